"""Under ``%%gpumem``: who holds what stays, to the byte, and which cells leave more behind with every run."""

from __future__ import annotations

import gc
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from IPython.utils.capture import capture_output

import gpumem_magic.session
from gpumem_magic.capture import block_watch
from gpumem_magic.capture.frameworks import imported
from gpumem_magic.model.holders import HeldBy
from tests.pooled import PooledArrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpumem_magic.analysis.cell_holders import CellHolders, HeldRow
    from gpumem_magic.analysis.cell_report import CellReport
    from tests.magics.conftest import Notebook

MIB = 1 << 20
FREE_ALL = """
for each in get_ipython()._gpumem_magics.session.snapshot().allocations:
    if each["kind"] == 1:
        cuda.cuMemFree(int(each["address"]))
"""
MARKUP = "<img src=x onerror=hit()>"


@pytest.fixture
def nb(notebook: Notebook) -> Iterator[Notebook]:
    yield notebook
    for name in ("last_type", "last_exc", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)
    notebook.run(FREE_ALL)
    # A pointer that is left somewhere may lead into the next test's memory.
    notebook.shell.reset(new_session=False)
    notebook.shell.InteractiveTB.tb = notebook.shell.last_execution_result = None
    gc.collect()


@pytest.fixture
def pool(nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> Iterator[PooledArrays]:
    """A framework with a pool, in the notebook as ``take(MiB)`` for what it has, and ``gpu(MiB)`` for an array."""
    made = PooledArrays()
    monkeypatch.setattr(imported, "FRAMEWORKS", (*imported.FRAMEWORKS, made))
    nb.shell.user_ns["take"] = lambda mib: made.take(int(nb.shell.user_ns["alloc"](mib * MIB)), mib * MIB)
    nb.shell.user_ns["gpu"] = lambda mib: made.array(mib * MIB)
    nb.run("take(64)")
    yield made
    nb.shell.user_ns.pop("take")


@pytest.fixture
def settings() -> Iterator[types.ModuleType]:
    """A module that cells may keep something in."""
    made = sys.modules["settings_of_a_test"] = types.ModuleType("settings_of_a_test")
    yield made
    made.__dict__.clear()
    del sys.modules["settings_of_a_test"]


def report(nb: Notebook) -> CellReport:
    return nb.shell.user_ns["report"].answer


def held(nb: Notebook) -> CellHolders:
    found = report(nb).holders
    assert found is not None
    found.self_check()
    return found


def by_class(found: CellHolders) -> dict[HeldBy | None, HeldRow]:
    return {row.held_by: row for row in found.rows}


def sizes(found: CellHolders) -> dict[HeldBy | None, int]:
    return {row.held_by: row.bytes // MIB for row in found.rows}


def names(row: HeldRow) -> dict[str, int]:
    return {name.name: name.bytes // MIB for name in row.names}


# ---- classes ----

EVERYTHING = """%%gpumem --save report
import gc, settings_of_a_test
gc.disable()
class Thing: pass
model, trainer = Thing(), Thing()
model.layers = [alloc(10 << 20), alloc(20 << 20)]
best = alloc(3 << 20)
trainer.me, trainer.state = trainer, {'last': [alloc(9 << 20)]}
del trainer
settings_of_a_test.table = [alloc(4 << 20)]
lost = int(alloc(7 << 20))
del lost
passing = alloc(32 << 20)
free(passing)
array = cuda.CUDA_ARRAY_DESCRIPTOR()
array.Width, array.Height, array.NumChannels, array.Format = 1024, 1024, 1, cuda.CUarray_format.CU_AD_FORMAT_FLOAT
picture = check(cuda.cuArrayCreate(array))
def train():
    logits = [alloc(50 << 20)]
    raise ValueError('no')
train()
"""


def test_every_class_to_the_byte(nb: Notebook, settings: types.ModuleType) -> None:
    text = nb.run(EVERYTHING, fails=True)
    cell = nb.result.execution_count
    found = held(nb)
    assert sizes(found) == {
        HeldBy.EXCEPTION: 50,
        HeldBy.NOTEBOOK: 33,
        HeldBy.GARBAGE: 9,
        HeldBy.LOST: 7,
        HeldBy.LIBRARY: 4,
        None: 4,
    }
    assert found.bytes == report(nb).held_bytes == 107 * MIB
    rows = by_class(found)
    assert names(rows[HeldBy.NOTEBOOK]) == {"model": 30, "best": 3}
    assert names(rows[HeldBy.EXCEPTION]) == {f"train() in In [{cell}]:20, local logits": 50}
    assert names(rows[HeldBy.GARBAGE]) == {"<Thing>": 9}
    assert names(rows[HeldBy.LIBRARY]) == {"settings_of_a_test.table": 4}
    assert names(rows[HeldBy.LOST]) == {}
    assert "array, which has no address" in rows[None].names[0].name
    flat = " ".join(text.split())
    assert f"Stays 107 MiB: 50.0 MiB held by exception (train() in In [{cell}]:20, local logits), " in flat
    assert "33.0 MiB held by notebook (model, best), 9.00 MiB garbage cycle (<Thing>), 7.00 MiB lost, " in flat
    assert "Who holds what stays" in nb.html
    nb.run("gc.enable(); gc.collect(); cuda.cuArrayDestroy(picture);")


def test_an_output_is_held_under_its_number(nb: Notebook) -> None:
    nb.run("%%gpumem --save report\n[alloc(3 << 20)]")
    row = by_class(held(nb))[HeldBy.NOTEBOOK]
    assert names(row) == {f"Out[{nb.result.execution_count}]": 3}
    assert row.names[0].path == f"Out[{nb.result.execution_count}][0]"


def test_what_was_there_before_is_not_the_cell_s(nb: Notebook, pool: PooledArrays) -> None:
    nb.run("model = gpu(8)\nraw = alloc(2 << 20)")
    nb.run("%%gpumem --save report\nother = gpu(4)\nmore = alloc(1 << 20)")
    assert names(by_class(held(nb))[HeldBy.NOTEBOOK]) == {"other": 4, "more": 1}


def test_blocks_count_and_not_what_the_pool_took(nb: Notebook, pool: PooledArrays) -> None:
    text = nb.run("%%gpumem --save report\ntake(100)\nmodel = [gpu(8), gpu(70)]\npassing = gpu(6)\ndel passing")
    found = held(nb)
    assert report(nb).held_bytes == 100 * MIB
    assert (sizes(found), found.pools) == ({HeldBy.NOTEBOOK: 78}, ("pooled",))
    assert "The rows below count what pooled took from the driver" in text


def test_a_block_that_stays_in_an_old_segment_is_found(nb: Notebook, pool: PooledArrays) -> None:
    text = nb.run("%%gpumem --save report\nmodel = gpu(8)")
    assert report(nb).held_bytes == 0
    assert sizes(held(nb)) == {HeldBy.NOTEBOOK: 8}
    for shown in (text, nb.html):
        assert "Stays 8.00 MiB: 8.00 MiB held by notebook (model)." in shown
        assert "No CUDA allocation and no free was seen" in shown


def test_a_block_that_moved_from_one_name_to_another_is_not_born_again(nb: Notebook, pool: PooledArrays) -> None:
    nb.run("model = gpu(8)")
    nb.run("%%gpumem --save report\nbest = model\ndel model\nsmall = gpu(1)")
    assert names(by_class(held(nb))[HeldBy.NOTEBOOK]) == {"small": 1}


def test_blocks_that_come_to_light_when_another_is_given_back(nb: Notebook, pool: PooledArrays) -> None:
    pool.shows_full = False
    nb.run("big = gpu(64)\ntake(8)\nfirst, second = gpu(4), gpu(4)")
    nb.run("%%gpumem --save report\ndel first\nsmall = alloc(1 << 20)")
    assert names(by_class(held(nb))[HeldBy.NOTEBOOK]) == {"small": 1}
    nb.run("%%gpumem --save report\ntake(8)\nthird = gpu(5)")
    assert names(by_class(held(nb))[HeldBy.NOTEBOOK]) == {"third": 5}


def test_a_nested_report_has_its_own_blocks(nb: Notebook, pool: PooledArrays) -> None:
    nb.run("first = gpu(1)")
    nb.run("%%time\n%%gpumem --save report\ninner = gpu(3)")
    assert names(by_class(held(nb))[HeldBy.NOTEBOOK]) == {"inner": 3}


def test_blocks_of_a_cell_whose_calls_were_not_seen(nb: Notebook, pool: PooledArrays) -> None:
    nb.run("%gpumem pause")
    nb.run("%%gpumem --save report\nmodel = gpu(8)")
    assert sizes(held(nb)) == {HeldBy.NOTEBOOK: 8}
    nb.run("%gpumem on")


def test_many_blocks_are_looked_at_only_where_a_report_is_asked_for(
    nb: Notebook, pool: PooledArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    nb.run("kept = [gpu(1) for _ in range(5)]")
    monkeypatch.setattr(block_watch, "MOST_BLOCKS", 4)
    before = pool.reads
    nb.run("more = gpu(1)")
    assert pool.reads == before
    nb.run("%%gpumem --save report\nlast = gpu(2)")
    assert names(by_class(held(nb))[HeldBy.NOTEBOOK]) == {"last": 2}
    monkeypatch.setattr(block_watch, "MOST_BLOCKS", 7)
    before = pool.reads
    nb.run("pass")
    assert pool.reads == before + 2


# ---- the search ----


def _refuse(*_args: object, **_options: object) -> None:
    raise AssertionError("a search was made")


@pytest.mark.parametrize(
    "cell",
    [
        "%%gpumem\nfree(alloc(1 << 20))",
        "%%gpumem\nx = 1",
        "%%gpumem --quiet\nkept = alloc(1 << 20)",
        "kept = alloc(1 << 20)",
    ],
)
def test_nothing_is_searched_without_need(nb: Notebook, monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    monkeypatch.setattr(gpumem_magic.session, "find_holders", _refuse)
    text = nb.run(cell)
    assert "a search was made" not in text
    assert ("What stays" in text) is ("free(" in cell)
    assert "a search was made" in nb.run("%%gpumem\nkept = alloc(1 << 20)")  # as it must be, or this test sees nothing


def test_an_interrupted_search_leaves_the_report(nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpumem_magic.session, "find_holders", interrupt)
    for _ in range(3):
        text = nb.run("%%gpumem --save report\nkept = [alloc(1 << 20), globals().get('kept')]")
    assert "Who holds it is not known: the search was interrupted." in text
    assert "Still live" in text
    assert report(nb).held_bytes == MIB
    assert "the search was interrupted" in nb.html
    assert "runs 1-3: +1.00 MiB each\n" in nb.run("%gpumem cells")


def test_the_report_keeps_nothing_and_holds_nothing(nb: Notebook, pool: PooledArrays) -> None:
    nb.run(
        "%%gpumem --save report\nimport weakref\nmodel, raw = gpu(8), int(alloc(2 << 20))\ngone = weakref.ref(model)"
    )
    assert sizes(held(nb)) == {HeldBy.NOTEBOOK: 10}
    nb.run("%gpumem cells")
    nb.run("del model\nassert gone() is None\ndel raw")
    text = nb.run("%gpumem who")
    assert "2.00 MiB in 1 piece: 2.00 MiB lost" in text


def test_names_that_are_markup_are_text(nb: Notebook) -> None:
    nb.run(f"holder = {{}}\nclass Thing: pass\nThing.__name__ = '{MARKUP}'\nThing.__qualname__ = '{MARKUP}'")
    for _ in range(3):
        nb.run(
            f"%%gpumem --save report\nimport gc; gc.disable()\nholder['{MARKUP}', len(holder)] = alloc(1 << 20)\n"
            "cycle = Thing(); cycle.me, cycle.raw = cycle, [alloc(2 << 20)]\ndel cycle"
        )
    found = by_class(held(nb))
    assert MARKUP in found[HeldBy.NOTEBOOK].names[0].path
    assert found[HeldBy.GARBAGE].names[0].name == f"<{MARKUP}>"[: len(found[HeldBy.GARBAGE].names[0].name)]
    assert "runs 1-3" in nb.html
    assert "onerror" in nb.html
    assert "<img" not in nb.html
    nb.run("gc.enable(); gc.collect();")


# ---- cells that grow ----


def again(nb: Notebook, cell: str, times: int) -> str:
    for _ in range(times):
        text = nb.run(cell)
    return text


def test_a_list_that_grows_over_runs(nb: Notebook) -> None:
    nb.run("losses = []")
    cell = "%%gpumem --save report\nlosses.append([alloc(2 << 20)])"
    assert "runs" not in again(nb, cell, 2)
    label = f"In [{nb.result.execution_count + 1}]"
    assert f"! {label}, runs 1-3: +2.00 MiB each, held by `losses`" in again(nb, cell, 1)
    assert '<code title="losses">losses</code>' in nb.html
    text = nb.run("%gpumem cells")
    assert f"! {label}, runs 1-3: +2.00 MiB each, held by `losses`" in text
    assert "runs 1-3: +2.00 MiB each, held by " in nb.html
    growth = report(nb).growth
    assert growth is not None
    assert (growth.added_bytes, growth.holder, growth.held_by) == ((2 * MIB,) * 3, "losses", HeldBy.NOTEBOOK)


def test_runs_that_nobody_asked_to_report_count(nb: Notebook) -> None:
    nb.run("losses = []")
    again(nb, "losses.append(alloc(2 << 20))", 4)
    assert "runs 1-4: +2.00 MiB each, held by `losses`" in nb.run("%gpumem cells")


def test_blocks_that_grow_inside_a_pool(nb: Notebook, pool: PooledArrays) -> None:
    nb.run("losses = []")
    text = again(nb, "%%gpumem\nlosses.append(gpu(2))\nfor _ in range(3): passing = gpu(7)\ndel passing", 4)
    assert "runs 1-4: +2.00 MiB each, held by `losses`" in text
    assert "runs 1-4: +2.00 MiB each, held by `losses`" in nb.run("%gpumem cells")


def test_a_pool_that_takes_more_is_no_growth(nb: Notebook, pool: PooledArrays) -> None:
    again(nb, "take(10)\nmodel = gpu(3)", 4)
    assert "each" not in nb.run("%gpumem cells")


def test_different_amounts_are_a_range(nb: Notebook) -> None:
    nb.run("losses = []")
    cell = "%%gpumem\nlosses.append(alloc((10 + 2 * len(losses)) << 20))"
    assert "runs 1-3: +10.0 MiB to +14.0 MiB each, held by `losses`" in again(nb, cell, 3)


def test_a_tensor_that_is_made_anew_and_larger(nb: Notebook) -> None:
    nb.run("n, history = 0, None")
    cell = "%%gpumem\nn += 1\nnew = alloc(n << 20)\nif history: free(history)\nhistory = new\ndel new"
    assert "runs 1-4: +1.00 MiB each, held by `history`" in again(nb, cell, 4)


def test_who_holds_the_growth_and_not_what_every_run_makes_anew(nb: Notebook) -> None:
    nb.run("losses, model = [], None")
    cell = "%%gpumem\nif model: free(model)\nmodel = alloc(50 << 20)\nlosses.append(alloc(1 << 20))"
    text = again(nb, cell, 4)
    assert "runs 2-4: +1.00 MiB each, held by `losses`" in text  # the first run made the model


def test_raw_pointers_that_are_lost_with_every_run(nb: Notebook) -> None:
    text = again(nb, "%%gpumem\nint(alloc(1 << 20));", 3)
    assert "runs 1-3: +1.00 MiB each, held by nobody that Python knows" in text


def test_the_front_end_s_id_says_which_cell_it_is(nb: Notebook) -> None:
    nb.run("losses = []")
    for number in range(3):
        with capture_output() as output:
            nb.shell.run_cell(f"%%gpumem\nlosses.append(alloc({number + 1} << 20))", store_history=True, cell_id="c1")
    assert "runs 1-3: +1.00 MiB to +3.00 MiB each" in output.outputs[-1].data["text/plain"]


INNOCENT = {
    "warm-up": ("state = {}", "if not state: state['x'] = alloc(8 << 20)"),
    "replaced": ("x = None", "if x: free(x)\nx = alloc(8 << 20)"),
    "passing": ("", "free(alloc(8 << 20))"),
    "up and down": ("xs = []", "xs.append(alloc(2 << 20)) if len(xs) < 2 else free(xs.pop())"),
    "given back in its last run": (
        "xs = []",
        "xs.append(alloc(2 << 20)) if len(xs) < 4 else [free(xs.pop()) for _ in '1234']",
    ),
}


@pytest.mark.parametrize("case", INNOCENT)
def test_innocent_cells_get_no_sentence(nb: Notebook, case: str) -> None:
    begin, cell = INNOCENT[case]
    nb.run(begin)
    assert "each" not in again(nb, f"%%gpumem\n{cell}", 5)
    assert "each" not in nb.run("%gpumem cells")


def test_what_was_given_back_later_gets_no_sentence(nb: Notebook) -> None:
    nb.run("losses = []")
    again(nb, "losses.append(alloc(2 << 20))", 4)
    assert "runs 1-4" in nb.run("%gpumem cells")
    nb.run("free(losses.pop(0))")
    assert "runs 2-4" in nb.run("%gpumem cells")
    nb.run("free(losses.pop(0))")
    assert "each" not in nb.run("%gpumem cells")


def test_different_cells_that_begin_alike_are_no_series(nb: Notebook) -> None:
    nb.run("losses = []")
    for number in range(3):
        nb.run(f"for _ in range(1):\n    losses.append(alloc({number + 1} << 20))")
    assert "each" not in nb.run("%gpumem cells")


def test_runs_across_a_gap_are_not_counted(nb: Notebook) -> None:
    nb.run("losses = []")
    cell = "losses.append(alloc(2 << 20))"
    again(nb, cell, 2)
    nb.run("%gpumem pause")
    nb.run(cell)
    nb.run("%gpumem on")
    again(nb, cell, 2)
    assert "each" not in nb.run("%gpumem cells")
    nb.run("for each in losses: cuda.cuMemFree(each)")


def test_what_a_saved_notebook_shows(nb: Notebook) -> None:
    text: Any = again(nb, "%%gpumem\nkept = [alloc(1 << 20), globals().get('kept')]", 3)
    bundle = nb.output.outputs[-1].data
    assert set(bundle) == {"text/plain", "text/html"}
    assert "held by notebook (kept)" in text
    assert "held by notebook (kept)" in bundle["text/html"]
    assert "<script" not in bundle["text/html"]
