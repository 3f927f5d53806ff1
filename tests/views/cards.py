"""A cell that ran out of memory, and what was let go of after it: as answers, without a recording."""

from __future__ import annotations

from gpumem_magic.model.holders import HeldBy, Keeper
from gpumem_magic.model.out_of_memory import Action, OutOfMemory, Refusal
from gpumem_magic.model.release import Release, Released

GIB = 1 << 30
REFUSAL = Refusal(exception="torch.OutOfMemoryError", framework="torch", text="", requested_bytes=20 * GIB)
CARD = OutOfMemory(
    refusal=REFUSAL,
    cell="In [7]",
    where="train.py:12 forward",
    device=0,
    device_name="NVIDIA H200",
    total_bytes=140 * GIB,
    is_at_failure=True,
    requested_bytes=20 * GIB,
    free_bytes=3 * GIB,
    other_bytes=GIB,
    base_bytes=GIB,
    live_bytes=126 * GIB,
    cached_bytes=4 * GIB,
    pieces_bytes=4 * GIB,
    largest_piece_bytes=GIB,
    rest_bytes=GIB,
    pinned_bytes=38 * GIB,
    keepers=(
        Keeper(
            names=("sys.last_value", "sys.last_exc"),
            path="sys.last_value → traceback → train() in In [7]:4, local logits",
            held_by=HeldBy.EXCEPTION,
            pieces=3,
            held_bytes=40 * GIB,
            freed_bytes=38 * GIB,
        ),
        Keeper(
            names=("model",),
            path="model.layers[0].weight",
            held_by=HeldBy.NOTEBOOK,
            pieces=12,
            held_bytes=30 * GIB,
            freed_bytes=28 * GIB,
        ),
        Keeper(
            names=("Out[3]", "_3"),
            path="Out[3]['loss']",
            held_by=HeldBy.NOTEBOOK,
            pieces=1,
            held_bytes=2 * GIB,
            freed_bytes=2 * GIB,
        ),
    ),
    actions=(
        Action(command="%gpumem free traceback", purpose="let go of it", bytes=38 * GIB, is_safe=True),
        Action(command="%gpumem free model", purpose="delete it", bytes=28 * GIB, is_safe=False),
    ),
    safe_bytes=38 * GIB,
)

RELEASE = Release(
    rows=(
        Released(
            target="traceback",
            predicted_bytes=38 * GIB,
            freed_bytes=38 * GIB,
            returned_bytes=0,
            remarks=("Its text stays under the cell; %debug and %tb have nothing left to look into.",),
        ),
        Released(
            target="Out[3]",
            predicted_bytes=0,
            freed_bytes=0,
            returned_bytes=0,
            remarks=("2.00 GiB stay, because loss keeps them.",),
        ),
        Released(target="cache", predicted_bytes=42 * GIB, freed_bytes=42 * GIB, returned_bytes=42 * GIB),
    ),
    cached_bytes=0,
)
