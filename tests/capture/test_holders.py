"""Every way to hold device memory that we know of is found, in the expected words, and nobody else is named."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gpumem_magic.analysis.retention import MEMORY_DTYPE
from gpumem_magic.capture.holders import find_holders
from gpumem_magic.capture.roots import Shell, collect_roots
from gpumem_magic.model.frameworks import (
    BLOCK_DTYPE,
    SEGMENT_DTYPE,
    UNKNOWN_SIZE,
    BlockState,
    FrameworkMemory,
    Pool,
)
from gpumem_magic.model.holders import HeldBy, Holder, Holders
from tests.capture import planted
from tests.capture.planted import SIZE, Buffer, Buffers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'c' was never awaited:RuntimeWarning")


class Notebook:
    """What stands for a shell: a namespace and its results."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"gpu": Buffer}
        self.out: dict[int, Any] = {}
        self.result: object = None
        self.tracebacks: tuple[tuple[str, object], ...] = ()
        self.buffers = Buffers()

    def run(self, code: str) -> None:
        exec(compile(code, "/home/someone/case.py", "exec"), self.names)

    def holders(self, **options: Any) -> Holders:
        shell = Shell(
            shell=object(),
            user_ns=self.names,
            out=self.out,
            last_result=self.result,
            tracebacks=self.tracebacks,
        )
        found = find_holders([self.buffers], lambda: collect_roots(shell), **options)
        found.self_check()
        return found

    def only(self) -> Holder:
        (holder,) = self.holders().holders
        return holder


@pytest.fixture
def nb() -> Iterator[Notebook]:
    notebook = Notebook()
    yield notebook
    notebook.names.clear()
    notebook.out.clear()
    gc.collect()


def paths(holder: Holder) -> dict[str, str]:
    assert holder.name_count == len(holder.names)
    return {name.name: name.path for name in holder.names}


@pytest.mark.parametrize("case", planted.EVERYTHING, ids=lambda case: case.kind)
def test_every_kind_of_holder_is_found(nb: Notebook, case: planted.Planted) -> None:
    nb.run(case.code)
    holder = nb.only()
    assert paths(holder) == case.names
    assert holder.held_by is case.held_by
    assert (holder.bytes, holder.type_name, holder.frameworks, holder.device) == (SIZE, "Buffer", ("buffers",), 0)


# What the shell keeps


def test_results_of_cells(nb: Notebook) -> None:
    nb.names["_"] = nb.names["_7"] = nb.out[7] = {"loss": Buffer()}
    nb.names["Out"] = nb.names["_oh"] = nb.out
    assert paths(nb.only()) == {"Out[7]": "Out[7]['loss']", "_": "_['loss']", "_7": "_7['loss']"}


def failing(nb: Notebook) -> BaseException:
    nb.run("def train_step():\n  logits = gpu()\n  1 / 0")
    try:
        nb.run("train_step()")
    except ZeroDivisionError as error:
        return error
    raise AssertionError


@pytest.fixture
def last() -> Iterator[dict[str, Any]]:
    """``sys``, in which a test may set ``last_value`` and its fellows."""
    yield sys.__dict__
    for name in ("last_type", "last_exc", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)


FRAME = "train_step() in case.py:3, local logits"


def test_the_last_exception(nb: Notebook, last: dict[str, Any]) -> None:
    last["last_value"] = failing(nb)
    holder = nb.only()
    assert paths(holder) == {"sys.last_value": f"sys.last_value → traceback → {FRAME}"}
    assert holder.held_by is HeldBy.EXCEPTION


def test_the_last_traceback(nb: Notebook, last: dict[str, Any]) -> None:
    last["last_traceback"] = failing(nb).__traceback__
    assert paths(nb.only()) == {"sys.last_traceback": f"sys.last_traceback → {FRAME}"}


def test_the_last_result_and_the_shell_s_own_traceback(nb: Notebook) -> None:
    error = failing(nb)
    nb.result = types.SimpleNamespace(error_in_exec=error)
    nb.tracebacks = (("the shell's traceback", error.__traceback__),)
    del error
    label = "get_ipython().last_execution_result.error_in_exec"
    # The test itself, which is running, holds the shell's data too.
    assert {each.name: each.path for each in nb.only().names if each.held_by is HeldBy.EXCEPTION} == {
        "the shell's traceback": f"the shell's traceback → {FRAME}",
        label: f"{label} → traceback → {FRAME}",
    }


def test_the_last_result_is_a_value(nb: Notebook) -> None:
    nb.result = types.SimpleNamespace(result=[Buffer()], error_in_exec=None)
    (name,) = [each for each in nb.only().names if each.held_by is HeldBy.NOTEBOOK]
    assert name.path == "get_ipython().last_execution_result.result[0]"


def test_a_name_in_use_comes_before_the_exception(nb: Notebook, last: dict[str, Any]) -> None:
    nb.run("def train_step(x):\n  1 / 0\nmodel = gpu()")
    try:
        nb.run("train_step(model)")
    except ZeroDivisionError as error:
        last["last_value"] = error
    holder = nb.only()
    assert list(paths(holder)) == ["model", "sys.last_value"]
    assert [name.exclusive_bytes for name in holder.names] == [0, 0]
    assert holder.held_by is HeldBy.NOTEBOOK


def test_cells_have_their_labels_in_paths(nb: Notebook) -> None:
    error = failing(nb)
    shell = Shell(shell=object(), user_ns={"err": error}, out={}, cell_labels={"/home/someone/case.py": "In [3]"})
    del error
    (holder,) = find_holders([nb.buffers], lambda: collect_roots(shell)).holders
    assert holder.names[0].path == "err → traceback → train_step() in In [3]:3, local logits"


# Modules and running code


def test_a_module_s_cache(nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("helper.deep")
    monkeypatch.setitem(sys.modules, "helper.deep", module)
    module.__dict__["cache"] = {"a": Buffer()}
    nb.names["helper"] = module  # a module's names are its own: the variable that refers to it holds nothing
    holder = nb.only()
    assert paths(holder) == {"helper.deep.cache": "helper.deep.cache['a']"}
    assert holder.held_by is HeldBy.LIBRARY


def test_a_function_does_not_hold_what_its_module_holds(nb: Notebook) -> None:
    nb.run("x = gpu()\ndef f(): return x\nclass C:\n  def go(self): return x\nc = C().go")
    assert paths(nb.only()) == {"x": "x"}


def test_locals_of_a_running_function(nb: Notebook) -> None:
    nb.names["look"] = lambda: found.append(nb.only())
    found: list[Holder] = []
    nb.run("def train(x):\n  def inner(): return x\n  look()\n  return inner\ntrain([gpu()])")
    place = "train() in case.py:3"
    assert paths(found[0]) == {
        f"{place}, local x": f"{place}, local x[0]",
        f"{place}, local inner": f"{place}, local inner → closure variable x of inner[0]",
    }
    assert found[0].held_by is HeldBy.RUNNING


def test_locals_of_a_running_class_body(nb: Notebook) -> None:
    found: list[Holder] = []
    nb.names["look"] = lambda: found.append(nb.only())
    nb.run("class C:\n  x = gpu()\n  look()\n  del x")
    name = "local x of C() in case.py:3"
    assert paths(found[0]) == {name: name}


def test_globals_of_running_code_without_a_module(nb: Notebook) -> None:
    found: list[Holder] = []
    code = compile("x = gpu()\nlook()", "/home/someone/other.py", "exec")
    exec(code, {"gpu": Buffer, "look": lambda: found.append(nb.only())})
    assert paths(found[0]) == {"global x of other.py:2": "global x of other.py:2"}


def test_locals_of_another_thread(nb: Notebook) -> None:
    ready, done = threading.Event(), threading.Event()
    nb.names.update(ready=ready, done=done)
    nb.run("def worker():\n  x = gpu()\n  ready.set()\n  done.wait()")
    thread = threading.Thread(target=nb.names["worker"])
    thread.start()
    ready.wait()
    holder = nb.only()
    done.set()
    thread.join()
    assert paths(holder) == {"worker() in case.py:4, local x": "worker() in case.py:4, local x"}


def test_a_context_variable(nb: Notebook) -> None:
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("current_model")
    token = variable.set([Buffer()])
    holder = nb.only()
    variable.reset(token)
    found = {each.name: each.path for each in holder.names}
    assert found["context variable current_model"] == "context variable current_model[0]"


def test_looking_at_a_frame_leaves_nothing_in_it(nb: Notebook) -> None:
    """``frame.f_locals`` would keep what the function deletes afterwards, on Python 3.11 and 3.12."""
    alive: list[object] = []
    nb.names.update(look=nb.holders, check=lambda ref: alive.append(ref()), ref=weakref.ref)
    nb.run("def f():\n  x = gpu()\n  r = ref(x)\n  look()\n  del x\n  check(r)\nf()")
    assert alive == [None]


# Nobody's


def test_a_garbage_cycle(nb: Notebook) -> None:
    gc.disable()
    nb.run("class M: pass\nm = M()\nm.me = m\nm.w = [gpu()]\ndel m")
    holder = nb.only()
    freed = gc.collect()
    gc.enable()
    assert (holder.held_by, holder.names, holder.name_count) == (HeldBy.GARBAGE, (), 0)
    assert holder.path == "<M>.w[0]"
    assert freed > 0
    assert nb.holders().holders == ()


def test_held_by_native_code(nb: Notebook) -> None:
    kept = ctypes.py_object([Buffer()])
    address = id(kept.value)
    ctypes.pythonapi.Py_IncRef(kept)  # a reference that no object shows
    del kept
    holder = nb.only()
    assert (holder.held_by, holder.names, holder.path) == (HeldBy.OPAQUE, (), "<list>[0]")
    ctypes.pythonapi.Py_DecRef(ctypes.cast(address, ctypes.py_object))


# Raw pointers

RAW = np.array([(0x7E00_0000_0000, 4096, 0), (0x7E00_0000_2000, 64, 1)], MEMORY_DTYPE)


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("p = 0x7E0000000000", "p"),
        ("p = [1, 0x7E0000000fff]", "p[1]"),
        ("p = {'a': 0x7E0000000000}", "p['a']"),
        ("p = (0x7E0000000000, 'x')", "p[0]"),
        ("class M: pass\np = M()\np.pointer = 0x7E0000000000", "p.pointer"),
        ("import ctypes\np = ctypes.c_void_p(0x7E0000000000)", "p"),
        ("from cuda.bindings import driver\np = [driver.CUdeviceptr(0x7E0000000000)]", "p[0]"),
        ("def p(x=0x7E0000000000): pass", "p → default argument x of p"),
    ],
)
def test_a_raw_pointer_that_python_still_knows(nb: Notebook, code: str, path: str) -> None:
    nb.run(code.replace("0x7E0000000000", str(0x7E00_0000_0000)).replace("0x7E0000000fff", str(0x7E00_0000_0FFF)))
    known, lost = nb.holders(allocations=RAW).holders
    assert (known.address, known.bytes, known.device, known.frameworks) == (0x7E00_0000_0000, 4096, 0, ())
    assert paths(known) == {"p": path}
    assert (lost.address, lost.device, lost.held_by, lost.names, lost.type_name) == (
        0x7E00_0000_2000,
        1,
        HeldBy.LOST,
        (),
        "",
    )


def test_a_number_beside_the_memory_is_no_pointer(nb: Notebook) -> None:
    nb.run(
        "class Meta(type):\n  def refuse(self, *_): raise SystemExit\n"
        "  __getattribute__ = __hash__ = __eq__ = __repr__ = refuse\n"
        "class K(metaclass=Meta): pass\nk = object.__new__(K)"
    )
    nb.names["numbers"] = [0x7E00_0000_1000, 0x7E00_0000_0000 - 1, -5, 1 << 70, 0]
    assert {holder.held_by for holder in nb.holders(allocations=RAW).holders} == {HeldBy.LOST}


# Shared memory, hidden references, what would be freed


def test_memory_that_several_objects_share_is_counted_once(nb: Notebook) -> None:
    nb.run("a = gpu()\nb = [gpu(shares=a)]")
    holder = nb.only()
    assert (holder.bytes, paths(holder)) == (SIZE, {"a": "a", "b": "b[0]"})
    assert [name.exclusive_bytes for name in holder.names] == [0, 0]


def test_what_one_name_alone_would_free(nb: Notebook) -> None:
    nb.run("model = [gpu(), gpu()]\nfirst = model[0]\nother = [gpu(), gpu()]\nother.append(other)")
    found = nb.holders()
    assert {(each.name, each.exclusive_bytes) for each in found.totals} == {("model", SIZE), ("other", 2 * SIZE)}


def test_what_several_names_free_together(nb: Notebook, last: dict[str, Any]) -> None:
    nb.run("a = gpu()\nb = [a]\nc = gpu()\nkept = gpu()")
    last["last_value"] = ValueError(nb.names["c"])
    found = nb.holders(
        freed_if=[
            lambda name, _: name in ("a", "b"),
            lambda name, _: name == "a",
            lambda name, held_by: name == "c" or held_by is HeldBy.EXCEPTION,
        ]
    )
    assert [each.bytes for each in found.freed] == [SIZE, 0, SIZE]


def test_what_a_module_keeps_for_reuse_is_left_alone(nb: Notebook) -> None:
    """asyncio shows the collector its dead iterators; one that was taken for an object dies twice."""

    async def wait() -> None:
        await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(50)))

    asyncio.run(wait())
    for _ in range(3):
        nb.holders()
        gc.collect()  # would go round in a circle for ever
        asyncio.run(wait())


def test_both_ends_of_a_long_path_are_told(nb: Notebook) -> None:
    nb.run("x = [gpu()]\nfor _ in range(100_000): x = [x]")
    path = nb.only().names[0].path
    nb.run("while type(x[0]) is list: x = x[0]")  # freeing it at once would be deep
    assert path == "x" + "[0]" * 23 + " → 99,954 more → <list>" + "[0]" * 23


def test_a_number_keeps_nothing_that_an_array_keeps(nb: Notebook) -> None:
    nb.run("x = gpu()\naddress = {x.address: 1}")
    raw = np.array([(nb.names["x"].address, nb.names["x"].size, 0)], MEMORY_DTYPE)
    assert [paths(each) for each in nb.holders(allocations=raw).holders] == [{"x": "x"}]
    del nb.names["x"]
    assert [set(paths(each)) for each in nb.holders(allocations=raw).holders] == [{"address"}]


def test_the_autograd_graph(nb: Notebook) -> None:
    nb.run("hidden = gpu()\nloss = gpu()\nloss.saved = (hidden.address, 'grad_fn MmBackward0: saved mat2')")
    address = nb.names["hidden"].address
    (holder,) = nb.holders(addresses=[address]).holders
    assert paths(holder) == {"hidden": "hidden", "loss": "loss → grad_fn MmBackward0: saved mat2"}
    assert holder.held_by is HeldBy.NOTEBOOK
    del nb.names["hidden"]
    (holder,) = nb.holders(addresses=[address]).holders
    assert paths(holder) == {"loss": "loss → grad_fn MmBackward0: saved mat2"}
    assert holder.held_by is HeldBy.AUTOGRAD


def pool_of(blocks: list[tuple[int, int, BlockState]]) -> FrameworkMemory:
    """One segment on device 1 with these blocks: (address, bytes, state)."""
    begin, end = blocks[0][0], blocks[-1][0] + blocks[-1][1]
    memory = FrameworkMemory(
        name="buffers",
        version="1",
        pools=(Pool(name="default", device=1, kind="device"),),
        segments=np.array([(begin, end - begin, 0, 0)], SEGMENT_DTYPE),
        blocks=np.array([(address, size, UNKNOWN_SIZE, 0, state) for address, size, state in blocks], BLOCK_DTYPE),
    )
    memory.self_check()
    return memory


def test_live_blocks_of_a_framework_s_pool(nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    nb.run("x = gpu()\nloss = gpu()")
    begin = nb.names["x"].address
    unknown, saved, cached = begin + SIZE + 512, begin + SIZE + 1024, begin + SIZE + 1536
    nb.names["loss"].saved = (saved, "grad_fn MulBackward0: saved self")
    memory = pool_of(
        [
            (begin, SIZE + 512, BlockState.LIVE),  # its array asked for less
            (unknown, 512, BlockState.LIVE),
            (saved, 512, BlockState.LIVE),
            (cached, 512, BlockState.CACHED),
        ]
    )
    monkeypatch.setattr(nb.buffers, "memory", lambda: memory)
    held = {
        each.address: (each.bytes, each.device, each.held_by, [name.path for name in each.names], each.frameworks)
        for each in nb.holders(addresses=[begin + SIZE + 3, unknown, saved + 511, cached]).holders
    }
    assert held == {
        begin: (SIZE + 512, 1, HeldBy.NOTEBOOK, ["x"], ("buffers",)),
        unknown: (512, 1, HeldBy.OPAQUE, [], ("buffers",)),
        saved: (512, 1, HeldBy.AUTOGRAD, ["loss → grad_fn MulBackward0: saved self"], ("buffers",)),
    }


# How the search behaves


def test_the_search_keeps_nothing(nb: Notebook) -> None:
    nb.run("class M: pass\nm = M()\nm.w = gpu()")
    counts = [sys.getrefcount(nb.names[name]) for name in ("m", "M", "gpu")]
    found = nb.holders()
    assert counts == [sys.getrefcount(nb.names[name]) for name in ("m", "M", "gpu")]
    gone = weakref.ref(nb.names["m"])
    del nb.names["m"]
    assert gone() is None
    assert found.holders[0].names[0].path == "m.w"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_search_leaves_nothing_behind(nb: Notebook, error: type[BaseException]) -> None:
    nb.run("m = [gpu()]")
    gone = weakref.ref(nb.names["m"][0])

    def interrupt(_progress: object) -> None:
        raise error

    with pytest.raises(error) as raised:
        nb.holders(progress=interrupt)
    del nb.names["m"]
    assert gone() is None, "the exception's traceback keeps what was looked at"
    assert raised.value.__traceback__ is not None
    assert gc.isenabled()


def test_interrupted_while_it_puts_things_together(nb: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    nb.run("m = [gpu()]")
    gone = weakref.ref(nb.names["m"][0])

    def interrupt(objects: list[object]) -> list[Any]:
        first = next(each for each in objects if each is gone())
        raise KeyboardInterrupt(type(first))

    monkeypatch.setattr(nb.buffers, "holdings", interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        nb.holders()
    del nb.names["m"]
    assert gone() is None, "the exception's traceback keeps what was looked at"
    assert raised.value.args == (Buffer,)


def test_progress_is_told(nb: Notebook) -> None:
    nb.names["many"] = [[] for _ in range(100_000)]
    told: list[Any] = []
    nb.holders(progress=told.append)
    assert len(told) >= 5
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert all(each.total >= 100_000 for each in told)


def test_the_collector_does_not_run(nb: Notebook) -> None:
    ran: list[str] = []
    nb.names["many"] = [[] for _ in range(50_000)]

    def note(phase: str, _info: object) -> None:
        ran.append(phase)

    shell = Shell(shell=object(), user_ns=nb.names, out={})
    gc.collect()
    gc.callbacks.append(note)
    find_holders([nb.buffers], lambda: collect_roots(shell))
    gc.callbacks.remove(note)
    assert ran == []


def test_other_threads_have_their_turn(nb: Notebook) -> None:
    nb.names["many"] = [[] for _ in range(300_000)]
    turns, stop = [], threading.Event()

    def count() -> None:
        while not stop.wait(0.001):
            turns.append(1)

    thread = threading.Thread(target=count)
    thread.start()
    before = len(turns)
    nb.holders()
    after = len(turns)
    stop.set()
    thread.join()
    assert after - before >= 5


def test_objects_may_come_and_go_meanwhile(nb: Notebook) -> None:
    nb.run("class M: pass\nmodel = M()\nmodel.w = gpu()")
    stop = threading.Event()

    def churn() -> None:
        kept: list[object] = []
        while not stop.is_set():
            kept.append({"a": [len(kept)], "b": (len(kept), kept)})
            generator = (each for each in kept)
            next(generator)
            if len(kept) > 5000:
                kept.clear()

    threads = [threading.Thread(target=churn) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that generators go while their frames are looked at
    try:
        for thread in threads:
            thread.start()
        found = [nb.only() for _ in range(10)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert {holder.names[0].path for holder in found} == {"model.w"}


def test_names_are_limited_but_counted(nb: Notebook) -> None:
    nb.run("class M: cache = gpu()\nms = [M() for _ in range(5)]\na, b, c, d, e = ms")
    found = nb.holders(names_each=3)
    assert found.holders[0].names[0].name == "M"
    assert len(found.holders[0].names) == 3
    assert found.holders[0].name_count == 7


def test_a_slot_of_another_class_as_an_attribute(nb: Notebook) -> None:
    nb.run(
        "class A:\n    __slots__ = ('a',)\nclass S:\n    __slots__ = ('q', '__dict__')\n    x = A.a\n"
        "s = S()\ns.q = gpu()"
    )
    assert paths(nb.only()) == {"s": "s.q"}


def test_more_default_values_than_arguments(nb: Notebook) -> None:
    nb.run("def f(x): pass\nf.__defaults__ = (1, gpu())")
    assert paths(nb.only()) == {"f": "f → default argument x of f"}


def test_a_deque_that_another_thread_feeds(nb: Notebook) -> None:
    nb.run("import collections\nfed = collections.deque(range(300_000))\nfed.append(gpu())")
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            nb.names["fed"].appendleft(1)
            nb.names["fed"].popleft()

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for _ in range(3):
            (holder,) = nb.holders().holders
            assert any(name.path.startswith("fed[") for name in holder.names)
    finally:
        stop.set()
        feeder.join()


def test_an_interrupt_at_any_place_leaves_the_collector_on(nb: Notebook) -> None:
    nb.run("a = gpu()")
    for place in range(1, 40, 3):
        calls = 0

        def interrupt(_frame: Any, _event: str, _argument: Any, place: int = place) -> None:
            nonlocal calls
            calls += 1
            if calls == place:
                raise KeyboardInterrupt

        sys.setprofile(interrupt)
        try:
            nb.holders()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        assert gc.isenabled(), place
