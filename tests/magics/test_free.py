"""``%gpumem free``: in a real shell, on arrays of numba, which own their memory also on the simulated GPU."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gpumem_magic import api
from gpumem_magic.model.release import Release, Released
from gpumem_magic.model.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.magics.conftest import Notebook

MIB = 1 << 20
SETUP = """
import numpy as np
from numba import cuda as numba_cuda
make = lambda mib: numba_cuda.device_array(mib << 20, np.uint8)
"""
FAILING = """
def train():
    logits = make(300)
    error = ValueError("too much")  # refers to its own frame, as exceptions of frameworks do
    raise error
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


def live_mib() -> int:
    return api.session().ledger().live_bytes >> 20


def flat(text: str) -> str:
    """``text`` without its line breaks."""
    return " ".join(text.split())


def rows(text: str) -> dict[str, list[str]]:
    """Predicted, freed and returned sizes by what was freed."""
    size = r"((?:[\d.]+ [KMG]?i?B)|–)"  # noqa: RUF001
    found = re.findall(rf"^(\S+) +{size} +{size}.*?{size}$", text, re.MULTILINE)
    return {name: list(sizes) for name, *sizes in found}


def test_the_last_traceback(arrays: Notebook) -> None:
    arrays.run(FAILING)
    arrays.run("train()", fails=True)
    assert live_mib() == 300
    text = arrays.run("%gpumem free traceback")
    assert rows(text) == {"traceback": ["300 MiB", "300 MiB", "0 B"]}
    assert "%debug and %tb have nothing left" in text
    assert live_mib() == 0
    assert not hasattr(sys, "last_value")
    assert "No traceback available" in arrays.run("%tb")
    assert "There is no traceback." in arrays.run("%gpumem free traceback")


def test_the_shell_reports_the_next_exception(arrays: Notebook) -> None:
    arrays.run("1 / 0", fails=True)
    arrays.run("%gpumem free traceback")
    assert "ZeroDivisionError" in arrays.run("1 / 0", fails=True)
    assert "SyntaxError" in arrays.run("1 +", fails=True)
    assert "SyntaxError" in arrays.run("%tb") or sys.last_value is not None
    arrays.run("%gpumem free traceback")
    assert "NameError" in arrays.run("nothing_of_that_name", fails=True)


def test_an_exception_with_a_name_stays(arrays: Notebook) -> None:
    arrays.run(FAILING)
    arrays.run("try:\n    train()\nexcept ValueError as error:\n    saved = error\n    raise", fails=True)
    text = arrays.run("%gpumem free traceback")
    assert rows(text) == {"traceback": ["0 B", "0 B", "0 B"]}
    assert re.search(r"300 MiB stay, because saved → traceback → train\(\) in .* local logits keeps them", flat(text))
    assert live_mib() == 300


def test_one_output(arrays: Notebook) -> None:
    arrays.run("make(40)")
    first = arrays.result.execution_count
    arrays.run("make(50)")
    assert live_mib() == 90
    text = arrays.run(f"%gpumem free Out[{first}]")
    assert rows(text) == {f"Out[{first}]": ["40.0 MiB", "40.0 MiB", "0 B"]}
    assert live_mib() == 50
    names = arrays.shell.user_ns
    assert names["__"] == "" != names["_"]
    assert first not in names["Out"]
    assert f"_{first}" not in names
    arrays.run("'and on it goes'")
    assert names["_"] == "and on it goes"
    assert f"no Out[{first}] any more" in arrays.run(f"%gpumem free Out[{first}]", fails=True)


def test_all_outputs(arrays: Notebook) -> None:
    arrays.run("kept = make(40)\nkept")
    arrays.run("make(50)")
    text = arrays.run("%gpumem free out")
    assert rows(text)["out"][:2] == ["50.0 MiB", "50.0 MiB"]
    assert "40.0 MiB stay, because kept keeps them" in flat(text)
    assert live_mib() == 40
    assert arrays.shell.user_ns["Out"] == {}


def test_a_variable_and_what_else_keeps_it(arrays: Notebook) -> None:
    arrays.run("a = make(40)\nb = {'x': a}\nc = make(10)")
    text = arrays.run("%gpumem free a")
    assert rows(text) == {"a": ["0 B", "0 B", "0 B"]}
    assert "40.0 MiB stay, because b['x'] keeps them" in flat(text)
    assert "a" not in arrays.shell.user_ns
    text = arrays.run("%gpumem free b c")
    assert rows(text) == {"b": ["40.0 MiB", "40.0 MiB", "0 B"], "c": ["10.0 MiB", "10.0 MiB", "0 B"]}
    assert live_mib() == 0


def test_names_that_share_memory_are_predicted_together(arrays: Notebook) -> None:
    arrays.run("a = make(40)\nb = [a]")
    text = arrays.run("%gpumem free a b --dry-run")
    assert rows(text) == {"a": ["0 B", "–", "–"], "b": ["40.0 MiB", "–", "–"]}  # noqa: RUF001
    assert "Nothing was freed. This would free 40.0 MiB that are in use." in text
    assert live_mib() == 40
    assert "a" in arrays.shell.user_ns


def test_a_variable_called_like_a_word(arrays: Notebook) -> None:
    arrays.run("cache = make(40)")
    arrays.run("%gpumem free cache")
    assert live_mib() == 40
    assert rows(arrays.run("%gpumem free --variable cache")) == {"cache": ["40.0 MiB", "40.0 MiB", "0 B"]}


def test_garbage_and_caches(arrays: Notebook) -> None:
    gc.disable()
    try:
        arrays.run("class Node: pass\na = Node()\na.me, a.buffer = a, make(20)\ndel a\nlate = make(6)\ndel late")
        text = arrays.run("%gpumem free cycles")
        assert rows(text) == {"cycles": ["20.0 MiB", "20.0 MiB", "0 B"]}
    finally:
        gc.enable()
    assert "%gpumem free cache" in text
    text = arrays.run("%gpumem free cache")
    assert rows(text) == {"cache": ["26.0 MiB", "–", "26.0 MiB"]}  # noqa: RUF001
    assert "26.0 MiB given back to the GPU" in text


def test_the_driver_s_own_pool(arrays: Notebook) -> None:
    arrays.run(
        "pool = check(cuda.cuDeviceGetDefaultMemPool(0))\n"
        "threshold = cuda.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD\n"
        "check(cuda.cuMemPoolSetAttribute(pool, threshold, cuda.cuuint64_t(1 << 40)))\n"
        "pointer = check(cuda.cuMemAllocAsync(64 << 20, 0))\n"
        "check(cuda.cuMemFreeAsync(pointer, 0))\n"
        "check(cuda.cuCtxSynchronize())"
    )
    assert rows(arrays.run("%gpumem free cache")) == {"cache": ["64.0 MiB", "–", "64.0 MiB"]}  # noqa: RUF001
    arrays.run("check(cuda.cuMemPoolSetAttribute(pool, threshold, cuda.cuuint64_t(0)))")


def test_all_that_is_safe(arrays: Notebook) -> None:
    arrays.run(f"{FAILING}\nkept = make(7)")
    arrays.run("make(50)")
    arrays.run("train()", fails=True)
    text = arrays.run("%gpumem free all-safe")
    found = rows(text)
    assert list(found) == ["cycles", "traceback", "cache"]
    assert found["traceback"] == ["300 MiB", "300 MiB", "0 B"]
    assert found["cache"] == ["300 MiB", "–", "300 MiB"]  # noqa: RUF001
    assert live_mib() == 57, "variables and outputs stay"


def test_the_only_address_of_raw_memory_is_not_thrown_away(arrays: Notebook) -> None:
    arrays.run(f"pointer = alloc({30 * MIB})")
    text = arrays.run("%gpumem free pointer", fails=True)
    assert "the only address of 30.0 MiB" in text
    assert "cuMemFree" in text
    assert "pointer" in arrays.shell.user_ns
    arrays.run("free(pointer)")
    assert rows(arrays.run("%gpumem free pointer")) == {"pointer": ["0 B", "0 B", "0 B"]}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("", "Say what to free: out, traceback"),
        ("nothing_like_it", "There is no variable 'nothing_like_it'"),
        ("Out[99]", "There is no Out[99] any more"),
        ("make.x", "'make.x' is a part of 'make'"),
        ("get_ipython", "belongs to the shell itself"),
    ],
)
def test_what_cannot_be_freed(arrays: Notebook, words: str, answer: str) -> None:
    assert answer in arrays.run(f"%gpumem free {words}", fails=True)


def test_names_are_shown_as_text(arrays: Notebook) -> None:
    arrays.run("data = {'<script>alert(1)</script>': make(3)}\na = data['<script>alert(1)</script>']")
    arrays.run("%gpumem free a")
    assert "&lt;script&gt;alert(1)" in arrays.html
    assert "<script>" not in arrays.html


SCRIPT = f"""
import gpumem_magic as gpumem
from gpumem_magic.capture import driver
if not driver.is_driver_present():
    gpumem.simulate()
gpumem.start()
{SETUP}
model = {{"weights": make(40)}}
assert gpumem.who(model).holders[0].names[0].path == "model['weights']"
assert gpumem.who(model["weights"]).holders[0].bytes == 40 << 20
assert gpumem.who("model").holders == gpumem.who(model).holders
predicted = gpumem.free("model", dry_run=True)
done = gpumem.free("model", "cache")
print(predicted.predicted_bytes >> 20, done.freed_bytes >> 20, done.returned_bytes >> 20, "model" in globals())
"""


def test_in_a_script() -> None:
    pytest.importorskip("numba.cuda")
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["40", "40", "40", "False"], ran.stderr


def test_a_release_knows_whether_it_was_measured() -> None:
    done = Released(target="a", predicted_bytes=1, freed_bytes=1, returned_bytes=0)
    Release(rows=(done,), cached_bytes=0).self_check()
    with pytest.raises(AssertionError, match="measured without being freed"):
        Release(rows=(done,), cached_bytes=0, is_dry_run=True).self_check()


def test_what_was_freed_earlier_comes_back_too(arrays: Notebook) -> None:
    """numba frees what it has set aside when that is much: then more comes back than a row let go of."""
    arrays.run("first, second = make(400), make(500)")
    assert rows(arrays.run("%gpumem free first"))["first"][:2] == ["400 MiB", "400 MiB"]
    before = api.session().ledger().held_bytes
    row = rows(arrays.run("%gpumem free second"))["second"]
    assert row[:2] == ["500 MiB", "500 MiB"]
    back = before - api.session().ledger().held_bytes
    assert row[2] == format_size(back)


def test_a_dry_run_tells_what_the_gpu_would_have_back(arrays: Notebook) -> None:
    arrays.run("late = make(6)\ndel late\nkept = make(3)")
    text = flat(arrays.run("%gpumem free kept cache --dry-run"))
    assert "This would free 3.00 MiB that are in use, and give 6.00 MiB that are in no use back to the GPU." in text


def test_an_object_is_no_name(arrays: Notebook) -> None:
    arrays.run("import gpumem_magic as gpumem\na = make(1)")
    assert "Name what to free, as text" in arrays.run("gpumem.free(a)", fails=True)


def test_a_part_of_a_variable_in_quotes(arrays: Notebook) -> None:
    arrays.run("d = {'x': make(1)}")
    assert "is a part of 'd'" in arrays.run("%gpumem free d['x']", fails=True)
    assert "1.00 MiB in 1 piece" in arrays.run("%gpumem who d['x']")
    assert "No closing quotation" in arrays.run("%gpumem who 'd", fails=True)


def test_a_variable_called_like_an_output_is_left_alone(arrays: Notebook) -> None:
    arrays.run("make(10)")
    cell = arrays.result.execution_count
    arrays.run(f"_{cell} = make(77)")
    assert rows(arrays.run("%gpumem free out"))["out"][:2] == ["10.0 MiB", "10.0 MiB"]
    assert f"_{cell}" in arrays.shell.user_ns
    arrays.run(f"del _{cell}")


def test_a_word_and_a_variable_of_that_name_at_once(arrays: Notebook) -> None:
    arrays.run("out = make(20)")
    arrays.run("make(30)")
    text = arrays.run("%gpumem free out --variable out")
    assert re.findall(r"^out +(\S+ MiB) +(\S+ MiB)", text, re.MULTILINE) == [
        ("30.0 MiB", "30.0 MiB"),
        ("20.0 MiB", "20.0 MiB"),
    ]


def test_raw_memory_that_an_exception_knows_alone_is_told(arrays: Notebook) -> None:
    arrays.run(f"kept = []\ndef train():\n  pointer = alloc({30 * MIB})\n  kept.append(hex(int(pointer)))\n  1 / 0")
    arrays.run("train()", fails=True)
    assert "30.0 MiB that were allocated by hand lose their last address" in flat(arrays.run("%gpumem free traceback"))
    arrays.run("free(int(kept[0], 16))")
