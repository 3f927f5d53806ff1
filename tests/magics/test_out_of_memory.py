"""The card under a cell that ran out of device memory: in a real shell, on arrays of numba and raw pointers."""

from __future__ import annotations

import gc
import re
from typing import TYPE_CHECKING

import pytest

from gpumem_magic import api
from tests.magics.test_free import SETUP, flat, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumem_magic.model.out_of_memory import OutOfMemory
    from tests.magics.conftest import Notebook

GIB = 1 << 30
TITLE = "Out of memory in "
FILLING = """
model = {"weights": make(1024)}
history = []
def train():
    logits = make(2048)
    history.append(make(512))
    return make(40 * 1024)
"""


@pytest.fixture
def arrays(notebook: Notebook) -> Iterator[Notebook]:
    pytest.importorskip("numba.cuda")
    notebook.run(SETUP)
    yield notebook
    names = notebook.shell.user_ns
    for name in [name for name in names if not name.startswith("_")]:
        del names[name]
    notebook.run("pass")
    gc.collect()
    if api.session().state != "off":
        api.free("out", "traceback", "cycles", "cache")


def card(notebook: Notebook) -> OutOfMemory:
    """What the last card was made from."""
    found: OutOfMemory = notebook.shell.magics_manager.registry["GpuMemoryMagics"].cards.latest
    found.self_check()
    return found


def test_what_happened_and_who_keeps_what(arrays: Notebook) -> None:
    arrays.run(FILLING)
    cell = arrays.result.execution_count
    arrays.run("make(256)")
    text = flat(arrays.run("train()", fails=True).rpartition(TITLE)[2])
    assert re.search(
        r"40\.0 GiB asked for by In \[3\]:\d+ <lambda> via numba\S+ ← In \[4\]:\d train ← In \[6\]:1; \d", text
    ), text
    assert "That is more than the GPU can ever give" in text
    assert re.search(
        rf"the exception: train\(\) in In \[{cell}\]:\d, local logits exception 2\.00 GiB \S+ 2\.00 GiB", text
    )
    assert re.search(r"model\['weights'\] notebook 1\.00 GiB \S+ 1\.00 GiB", text)
    assert re.search(r"Out\[5\] and \d+ more names notebook 256 MiB", text)
    assert "%gpumem free traceback 2.00 GiB ✓" in text
    found = card(arrays)
    assert (found.device, found.requested_bytes, found.pinned_bytes) == (0, 40 * GIB, 2 * GIB)
    assert found.live_bytes == 3 * GIB + GIB // 2 + GIB // 4
    assert [keeper.held_bytes // (GIB // 4) for keeper in found.keepers] == [8, 4, 2, 1]
    assert [keeper.names[0] for keeper in found.keepers[1:]] == ["model", "history", "Out[5]"]


def test_what_is_predicted_comes_back(arrays: Notebook) -> None:
    arrays.run(FILLING)
    arrays.run("train()", fails=True)
    predicted = {action.command: action.bytes for action in card(arrays).actions}
    assert predicted["%gpumem free traceback"] == 2 * GIB
    assert rows(arrays.run("%gpumem free traceback"))["traceback"][:2] == ["2.00 GiB", "2.00 GiB"]
    assert predicted["%gpumem free model"] == GIB
    assert rows(arrays.run("%gpumem free model"))["model"][:2] == ["1.00 GiB", "1.00 GiB"]


def test_what_is_missing_and_whether_it_can_be_had(arrays: Notebook) -> None:
    total = api.session().ledger().devices[0].device.total_bytes
    assert total is not None
    whole = total >> 20
    arrays.run(f"def train():\n    logits = make({whole // 2})\n    return make({whole // 4 * 3})")
    text = flat(arrays.run("train()", fails=True).rpartition(TITLE)[2])
    assert "are missing: what is marked as safe below gives" in text
    found = card(arrays)
    assert found.missing_bytes is not None
    assert found.missing_bytes <= found.safe_bytes
    arrays.run("%gpumem free all-safe")
    arrays.run(f"it_fits = make({whole // 4 * 3})")
    text = flat(arrays.run(f"make({whole // 2})", fails=True).rpartition(TITLE)[2])
    assert "and nothing is safe to free. Something below must go" in text
    assert "%gpumem free it_fits" in text


def test_the_driver_s_own_word_for_it(arrays: Notebook) -> None:
    text = flat(arrays.run(f"alloc({50 * GIB})", fails=True).rpartition(TITLE)[2])
    assert "50.0 GiB asked for by In [2]:" in text
    assert card(arrays).is_at_failure


def test_what_was_freed_on_the_way_out_was_in_use_when_it_failed(arrays: Notebook) -> None:
    before = api.session().ledger().live_bytes
    arrays.run(
        f"pointer = alloc({3 * GIB})\ntry:\n    alloc({50 * GIB})\nfinally:\n    free(pointer)\n    pointer = None",
        fails=True,
    )
    assert api.session().ledger().live_bytes == before
    found = card(arrays)
    assert found.live_bytes == before + 3 * GIB
    assert found.is_at_failure


def test_a_host_s_memory_error_is_none_of_ours(arrays: Notebook) -> None:
    for cell in ("raise MemoryError('host')", "1 / 0", "raise KeyboardInterrupt"):
        assert TITLE not in arrays.run(cell, fails=True)
    refused = f"import contextlib\nwith contextlib.suppress(AssertionError):\n    alloc({50 * GIB})\n"
    assert TITLE in arrays.run(f"{refused}raise MemoryError('device')", fails=True), "the driver had refused"
    assert TITLE not in arrays.run(f"{refused}raise ValueError", fails=True)


def test_an_error_that_was_handled_shows_nothing(arrays: Notebook) -> None:
    assert TITLE not in arrays.run(f"try:\n    alloc({50 * GIB})\nexcept AssertionError:\n    pass")


def test_a_cause_is_found_below_another_exception(arrays: Notebook) -> None:
    text = arrays.run(
        "try:\n    make(40 * 1024)\nexcept Exception as error:\n    raise ValueError('no') from error", fails=True
    )
    assert TITLE in text


def test_names_are_shown_as_text(arrays: Notebook) -> None:
    arrays.run("data = {'<script>alert(1)</script>': make(64)}")
    arrays.run("make(40 * 1024)", fails=True)
    assert "&lt;script&gt;alert(1)" in arrays.html
    assert "<script>" not in arrays.html


def test_the_card_keeps_nothing(arrays: Notebook) -> None:
    arrays.run(FILLING)
    arrays.run("train()", fails=True)
    arrays.run("%gpumem free traceback")
    arrays.run("del model, history")
    gc.collect()
    assert api.session().ledger().live_bytes == 0


def test_without_tracking_there_is_no_card(arrays: Notebook) -> None:
    arrays.run("%gpumem off")
    assert TITLE not in arrays.run("make(40 * 1024)", fails=True)
    arrays.run("%gpumem on")
    assert TITLE not in arrays.run("%gpumem off\nmake(40 * 1024)", fails=True)


def test_what_the_card_offers_can_be_typed(arrays: Notebook) -> None:
    arrays.run("out = make(300)\nfirst = second = make(400)")
    arrays.run("make(100)")
    arrays.run("make(40 * 1024)", fails=True)
    predicted = {action.command: action.bytes for action in card(arrays).actions}
    assert predicted["%gpumem free --variable out"] == 300 << 20
    pair = next(command for command in predicted if "first" in command)
    assert pair == "%gpumem free first second"
    freed = rows(arrays.run(pair))
    assert freed["second"][1] == "400 MiB"
    assert rows(arrays.run("%gpumem free --variable out"))["out"][1] == "300 MiB"


def test_only_memory_of_the_full_gpu_counts(arrays: Notebook) -> None:
    arrays.run("def train():\n    here = make(3 * 1024)\n    with numba_cuda.gpus[1]:\n        make(40 * 1024)")
    arrays.run("train()", fails=True)
    found = card(arrays)
    assert found.device == 1
    assert (found.pinned_bytes, found.keepers) == (0, ())
    assert found.actions == ()


def test_the_line_is_that_of_the_allocation(arrays: Notebook) -> None:
    arrays.run(
        "def inner():\n    return make(40 * 1024)\ndef outer():\n    try:\n        inner()\n"
        "    except Exception as error:\n        raise RuntimeError('no') from error"
    )
    arrays.run("outer()", fails=True)
    assert "inner" in card(arrays).where
