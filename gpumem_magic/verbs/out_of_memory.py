"""Why a cell ran out of device memory, from the exception that it died of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpumem_magic.analysis.frames import NO_FRAME, frame_place, is_user, notebook_labels, shown_frames, where
from gpumem_magic.analysis.out_of_memory import Evidence, failing_device, out_of_memory, refused_call
from gpumem_magic.capture.forget import LastTraceback, Outputs, outputs
from gpumem_magic.capture.refusals import raising_frames, recognise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpumem_magic.analysis.out_of_memory import Moment
    from gpumem_magic.model.holders import HeldBy
    from gpumem_magic.model.out_of_memory import OutOfMemory
    from gpumem_magic.model.stacks import Frame
    from gpumem_magic.session import Session

_CALLERS = 2  # lines of the user's that led to the one that asked
_NAMED = 50  # memories for which the names that keep them are looked for


def explain(
    session: Session,
    span: int,
    error: BaseException | None,
    *,
    shell: Any,
    moment: Moment | None = None,
    note: str = "",
) -> OutOfMemory | None:
    """What made ``span`` run out of device memory; None when its exception is about something else.

    Args:
        session: that tracks.
        span: the cell, which has ended.
        error: that it died of.
        shell: IPython's.
        moment: what a framework told while it failed.
        note: why it did not, when it should have, as a sentence.

    Raises:
        RuntimeError: tracking was turned off.
    """
    snapshot = session.snapshot(allocations=False)
    cell = snapshot.cell(span)
    call = refused_call(snapshot, cell)
    recognised = recognise(error, was_refused=call is not None)
    if recognised is None:
        return None
    error, refusal = recognised
    del recognised  # a tuple of ours would count as one that holds the exception
    if moment is not None and refusal.framework not in ("torch", ""):
        moment = None  # an earlier failure, which was handled
    if moment is not None and refusal.device not in (None, moment.device):
        moment = None
    if call is not None and refusal.device not in (None, call.device):
        call = None
    labels = notebook_labels(snapshot)
    frames = _asking(shown_frames(raising_frames(error)))
    callers = [frame_place(frame, labels) for frame in frames if is_user(frame.filename)][1 : 1 + _CALLERS]
    traceback = LastTraceback(shell)
    results = Outputs("out", tuple(outputs(shell)), shell)

    def goes_with_both(label: str, held_by: HeldBy) -> bool:
        return traceback.keeps(label, held_by) or results.keeps(label, held_by)

    ledger = session.ledger()
    device = failing_device(refusal, call, moment, ledger)
    if device is None:
        return None
    found = session.holders(
        shell,
        device=device,
        named=_NAMED,
        freed_if=(traceback.keeps, goes_with_both),
        apart_from=traceback.keeps,
    )
    return out_of_memory(
        Evidence(
            refusal=refusal,
            cell=cell.label,
            where=" ← ".join([where(frames, labels), *callers]) if frames else NO_FRAME,
            call=call,
            moment=moment,
            ledger=ledger,
            device=device,
            note=note,
            holders=found,
        )
    )


def _asking(frames: Sequence[Frame]) -> Sequence[Frame]:
    """From the library function that the user's innermost line called: what is below it is how the library fails.

    What a library wraps its functions in has a name that begins with an underscore.
    """
    user = next((place for place, frame in enumerate(frames) if is_user(frame.filename)), 0)
    called = max(user - 1, 0)
    names = ((place, frames[place].function.rpartition(".")[2]) for place in range(called, -1, -1))
    return frames[next((place for place, name in names if not name.startswith("_")), called) :]
