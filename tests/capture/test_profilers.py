"""CUPTI is lent to torch.profiler and jax.profiler: on the real ones, which need no GPU for that."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.capture.conftest import Script

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")

RECORDER = """
from gpumem_magic.capture import profilers
from gpumem_magic.capture.profilers import ProfilerCourtesy, TEARDOWN

log = []

class Recorder:
    '''Stands for the session: writes down what it is asked.'''
    state = "on"
    frees_at = 1  # the check at which CUPTI comes free

    def yield_slot(self, to):
        log.append(f"lent to {to}")
        self.state, self.checks = "yielded", 0
        return True

    def check(self):
        self.checks += 1
        log.append("check")
        assert not courtesy.in_use
        if self.checks >= self.frees_at:
            self.state = "on"
        return self.state == "on"

courtesy = ProfilerCourtesy(Recorder())
"""

TORCH = (
    RECORDER
    + """
NAMES = ("_prepare_profiler", "_enable_profiler", "_disable_profiler")

def watch_kineto():
    '''Log what reaches the originals, so that the order of things can be seen.'''
    import torch.autograd.profiler as module
    def logged(name, original):
        def call(*args, **kwargs):
            log.append(name)
            return original(*args, **kwargs)
        return call
    for name in NAMES:
        setattr(module, name, logged(name, getattr(module, name)))
    return module, originals(module)

def originals(module):
    return [getattr(module, name) for name in NAMES]

def profiled(**options):
    import torch
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], **options) as profile:
        torch.ones(4).sum()
    return any("sum" in event.key for event in profile.key_averages())
"""
)


@needs_torch
def test_torch_gets_cupti_before_kineto_asks_for_it_and_gives_it_back_after(script: Script) -> None:
    found = script(
        TORCH
        + """
module, before = watch_kineto()
courtesy.install()
patched, wrapped = courtesy.patched, originals(module)
worked = profiled()
courtesy.remove()
answer(log=log, patched=patched, worked=worked, removed=courtesy.patched, problems=courtesy.problems,
       wrapped=[a is not b for a, b in zip(before, wrapped)],
       same=[a is b for a, b in zip(before, originals(module))])
""",
        silent=False,
    )
    assert found["log"] == [
        "lent to torch.profiler",
        "_prepare_profiler",
        "_enable_profiler",
        "_disable_profiler",
        "check",
    ]
    assert found["patched"] == ["torch.profiler"]
    assert found["worked"]
    assert found["wrapped"] == found["same"] == [True] * 3
    assert found["removed"] == found["problems"] == []


@needs_torch
def test_the_older_entry_of_torch_and_one_profile_after_another(script: Script) -> None:
    found = script(
        TORCH
        + """
import torch
courtesy.install()
with torch.autograd.profiler.profile() as profile:
    torch.ones(4).sum()
one = list(log)
log.clear()
schedule = torch.profiler.schedule(wait=1, warmup=1, active=1, repeat=2)
with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], schedule=schedule) as profile:
    for _ in range(8):
        torch.ones(4).sum()
        profile.step()
courtesy.remove()
answer(one=one, many=log)
""",
        silent=False,
    )
    assert found["one"] == ["lent to torch.profiler", "check"]
    assert found["many"] == ["lent to torch.profiler", "check"] * 2


@needs_torch
def test_torch_that_is_imported_later_is_patched_then(script: Script) -> None:
    found = script(
        TORCH
        + """
courtesy.install()
imported, early = "torch" in sys.modules, courtesy.patched
import torch
import torch.autograd.profiler as module
loader = module.__spec__.loader
pristine = "exec_module" not in vars(loader) and type(loader).__name__ == "SourceFileLoader"
import inspect
source = "class profile" in inspect.getsource(module)
wrapped = originals(module)
worked = profiled()
courtesy.remove()
restored = originals(module)
import torch._C._autograd as native
answer(imported=imported, early=early, pristine=pristine, source=source, worked=worked, log=log,
       wrapped=[function.__wrapped__ is getattr(native, name) for function, name in zip(wrapped, NAMES)],
       named=[function.__name__ for function in wrapped],
       same=[function is getattr(native, name) for function, name in zip(restored, NAMES)],
       finders=[type(finder).__name__ for finder in sys.meta_path if "Watcher" in type(finder).__name__])
""",
        silent=False,
    )
    assert not found["imported"]
    assert found["early"] == []
    assert found["pristine"]
    assert found["source"]
    assert found["worked"]
    assert found["log"] == ["lent to torch.profiler", "check"]
    assert found["wrapped"] == found["same"] == [True] * 3
    assert found["named"] == ["_prepare_profiler", "_enable_profiler", "_disable_profiler"]
    assert found["finders"] == []


@needs_torch
def test_errors_of_the_user_pass_and_errors_of_ours_do_not(script: Script) -> None:
    found = script(
        TORCH
        + """
module, _ = watch_kineto()
courtesy.install()
try:
    module._prepare_profiler("nonsense", {1})
except TypeError:
    error = "TypeError"
failed, in_use = list(log), courtesy.in_use
log.clear()
def refuse(self, to):
    raise OSError("no room")
Recorder.yield_slot = refuse
worked = profiled()
answer(error=error, failed=failed, in_use=in_use, worked=worked, problems=courtesy.problems)
courtesy.remove()
""",
        silent=False,
    )
    assert found["error"] == "TypeError"
    assert found["failed"] == ["lent to torch.profiler", "_prepare_profiler", "check"]
    assert not found["in_use"]
    assert found["worked"]
    assert any("no room" in problem for problem in found["problems"])


@needs_torch
def test_markers_for_other_tools_need_no_cupti(script: Script) -> None:
    found = script(
        TORCH
        + """
import torch
import torch.autograd.profiler as module
courtesy.install()
config = module.ProfilerConfig(module.ProfilerState.NVTX, False, False, False, False, False,
                               module._ExperimentalConfig())
try:
    module._enable_profiler(config, set())
    module._disable_profiler()
except RuntimeError:  # this torch was built without CUDA
    pass
courtesy.remove()
answer(log=log)
""",
        silent=False,
    )
    assert found["log"] == []


@needs_torch
def test_who_wrapped_over_us_stays(script: Script) -> None:
    found = script(
        TORCH
        + """
module, before = watch_kineto()
courtesy.install()
ours = module._prepare_profiler
def theirs(*args, **kwargs):
    log.append("theirs")
    return ours(*args, **kwargs)
module._prepare_profiler = theirs
courtesy.remove()
stays = module._prepare_profiler is theirs
worked = profiled()
answer(stays=stays, worked=worked, log=log, others=[getattr(module, name) is function
       for name, function in list(zip(NAMES, before))[1:]])
""",
        silent=False,
    )
    assert found["stays"]
    assert found["worked"]
    assert found["log"] == ["theirs", "_prepare_profiler", "_enable_profiler", "_disable_profiler"]
    assert found["others"] == [True, True]


@needs_torch
def test_a_torch_that_works_in_another_way_is_told_and_left_alone(script: Script) -> None:
    found = script(
        TORCH
        + """
import torch.autograd.profiler as module
kept = module._disable_profiler
del module._disable_profiler
before = module._prepare_profiler, module._enable_profiler
courtesy.install()
after = module._prepare_profiler, module._enable_profiler
answer(patched=courtesy.patched, problems=courtesy.problems, same=[a is b for a, b in zip(before, after)])
courtesy.remove()
"""
    )
    assert found["patched"] == []
    assert found["same"] == [True, True]
    (problem,) = found["problems"]
    assert problem.startswith("This release of torch.profiler")
    assert "%gpumem off" in problem


@needs_torch
def test_a_reloaded_module_is_patched_again(script: Script) -> None:
    found = script(
        TORCH
        + """
import importlib, torch
import torch.autograd.profiler as module
courtesy.install()
importlib.reload(module)
wrapped = [hasattr(function, "__wrapped__") for function in originals(module)]
courtesy.remove()
answer(wrapped=wrapped, left=[hasattr(function, "__wrapped__") for function in originals(module)])
""",
        silent=False,
    )
    assert found == {"wrapped": [True] * 3, "left": [False] * 3}


@needs_torch
def test_kineto_is_prodded_until_it_lets_go_but_not_for_ever(script: Script) -> None:
    found = script(
        TORCH
        + """
import torch
prods = []
torch.cuda.is_initialized = lambda: True
torch.cuda.is_current_stream_capturing = lambda: prods.append(1)
courtesy.install()
Recorder.frees_at = 4
profiled()
soon = len(log) - 1, len(prods), courtesy.settling
log.clear(), prods.clear()
Recorder.frees_at = 1000
began = time.monotonic()
profiled()
never = len(log) - 1, len(prods), courtesy.settling
os.environ[TEARDOWN] = "0"
log.clear(), prods.clear()
courtesy._session.state = "on"
profiled()
answer(soon=soon, never=never, switched_off=[len(log) - 1, len(prods)], seconds=time.monotonic() - began)
courtesy.remove()
""",
        silent=False,
    )
    assert found["soon"] == [4, 3, False]
    assert found["never"] == [8, 7, True]
    assert found["switched_off"] == [1, 0]
    assert found["seconds"] < 20


@needs_torch
def test_a_session_lends_to_torch_where_there_is_no_gpu_too(script: Script) -> None:
    found = script(
        TORCH
        + """
session = Session()
session.start()
import torch
worked = profiled()
status = session.status()
session.stop()
import torch.autograd.profiler as module
answer(worked=worked, courtesy=status.profiler_courtesy, state=status.state, gaps=status.gaps,
       left=[hasattr(function, "__wrapped__") for function in originals(module)], teardown=TEARDOWN in os.environ)
""",
        silent=False,
    )
    assert found["worked"]
    assert found["courtesy"] == ["torch.profiler"]
    assert (found["state"], found["gaps"], found["left"], found["teardown"]) == ("no GPU", 0, [False] * 3, False)


@pytest.mark.parametrize(
    ("before", "meanwhile", "during", "after"),
    [(None, None, "1", None), ("0", None, "0", "0"), ("1", None, "1", "1"), (None, "0", "0", "0")],
)
def test_the_environment_is_asked_for_a_teardown_and_left_as_it_was(
    script: Script, before: str | None, meanwhile: str | None, during: str, after: str | None
) -> None:
    found = script(
        RECORDER
        + f"""
os.environ.pop(TEARDOWN, None)
if {before!r}: os.environ[TEARDOWN] = {before!r}
courtesy.install()
if {meanwhile!r}: os.environ[TEARDOWN] = {meanwhile!r}
during = os.environ.get(TEARDOWN)
courtesy.remove()
answer(during=during, after=os.environ.get(TEARDOWN))
"""
    )
    assert found == {"during": during, "after": after}


def test_imports_are_followed_without_leaving_a_trace(script: Script) -> None:
    """With two watchers at once, a module served by the usual loader, and one whose import fails."""
    found = script(
        RECORDER
        + """
import tempfile, pathlib
folder = tempfile.mkdtemp()
sys.path.insert(0, folder)
pathlib.Path(folder, "watched_one.py").write_text("value = 1")
pathlib.Path(folder, "watched_two.py").write_text("raise ValueError('of its own')")
told = [[], []]
names = frozenset({"watched_one", "watched_two", "watched_nowhere"})
watchers = [profilers._ImportWatcher(names, each.append, print) for each in told]
for watcher in watchers:
    sys.meta_path.insert(0, watcher)
import watched_one
errors = []
for name in ("watched_two", "watched_nowhere"):
    try:
        __import__(name)
    except (ValueError, ModuleNotFoundError) as error:
        errors.append(type(error).__name__)
import json as other, colorsys
answer(value=watched_one.value, told=[[module.__name__ for module in each] for each in told], errors=errors,
       trace=list(vars(watched_one.__spec__.loader)), path=watched_one.__spec__.origin == watched_one.__file__)
"""
    )
    assert found["value"] == 1
    assert found["told"] == [["watched_one"], ["watched_one"]]
    assert found["errors"] == ["ValueError", "ModuleNotFoundError"]
    assert "exec_module" not in found["trace"]
    assert found["path"]


def test_an_import_that_cannot_be_followed_succeeds_all_the_same(script: Script) -> None:
    found = script(
        RECORDER
        + """
import importlib.machinery
class Loader:
    __slots__ = ()
    def create_module(self, spec): return None
    def exec_module(self, module): module.value = 7
class Finder:
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, Loader()) if name == "watched" else None
problems = []
def fail(module): raise AssertionError("unreachable")
sys.meta_path.insert(0, Finder())
sys.meta_path.insert(0, profilers._ImportWatcher(frozenset({"watched"}), fail, problems.append))
import watched
answer(value=watched.value, problems=problems)
"""
    )
    assert found["value"] == 7
    assert len(found["problems"]) == 1
    assert found["problems"][0].startswith("The import of watched cannot be followed")


JAX = (
    RECORDER
    + """
import tempfile
folder = tempfile.mkdtemp()

def held(*functions):
    return [hasattr(function, "__wrapped__") for function in functions]
"""
)


@needs_jax
def test_jax_traces_and_server(script: Script) -> None:
    found = script(
        JAX
        + """
import jax, jax.profiler
before = jax.profiler.start_trace, jax.profiler.stop_trace, jax.profiler.start_server
courtesy.install()
wrapped = held(jax.profiler.start_trace, jax.profiler.stop_trace, jax.profiler.start_server)
with jax.profiler.trace(folder):
    jax.numpy.ones(4).sum().block_until_ready()
traced = list(log)
log.clear()
jax.profiler.start_trace(folder)
try:
    jax.profiler.start_trace(folder)
except RuntimeError:
    log.append("refused")
still = courtesy.in_use
jax.profiler.stop_trace()
try:
    jax.profiler.stop_trace()
except RuntimeError:
    log.append("none to stop")
by_hand = list(log)
log.clear()
import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
jax.profiler.start_server(port)
jax.profiler.start_trace(folder)
jax.profiler.stop_trace()
serving = list(log)
jax.profiler.stop_server()
after = list(log)
courtesy.remove()
answer(wrapped=wrapped, traced=traced, by_hand=by_hand, still=still, serving=serving, after=after,
       patched=courtesy.patched, problems=courtesy.problems,
       same=[a is b for a, b in zip(before, (jax.profiler.start_trace, jax.profiler.stop_trace,
                                            jax.profiler.start_server))])
""",
        silent=False,
        JAX_PLATFORMS="cpu",
    )
    assert found["wrapped"] == found["same"] == [True] * 3
    assert found["traced"] == ["lent to jax.profiler", "check"]
    assert found["by_hand"] == ["lent to jax.profiler", "refused", "check", "none to stop"]
    assert found["still"]
    assert found["serving"] == ["lent to the server of jax.profiler", "lent to jax.profiler"]
    assert found["after"] == [*found["serving"], "check"]
    assert found["problems"] == []


@needs_jax
def test_jax_that_is_imported_later_is_restored_in_every_module(script: Script) -> None:
    found = script(
        JAX
        + """
courtesy.install()
early = "jax" in sys.modules
import jax, jax.profiler, jax._src.profiler as inner
names = [name for name in ("start_trace", "stop_trace", "start_server", "stop_server") if hasattr(jax.profiler, name)]
wrapped = held(*(getattr(module, name) for name in names for module in (jax.profiler, inner)))
patched = courtesy.patched
courtesy.remove()
answer(early=early, wrapped=wrapped, patched=patched, names=len(names),
       left=held(*(getattr(module, name) for name in names for module in (jax.profiler, inner))),
       same=all(getattr(jax.profiler, name) is getattr(inner, name) for name in names),
       session=hasattr(getattr(getattr(inner, "ProfileSession", None), "start", None), "__wrapped__"))
""",
        silent=False,
        JAX_PLATFORMS="cpu",
    )
    assert not found["early"]
    assert found["patched"] == ["jax.profiler", "the server of jax.profiler"]
    assert found["wrapped"] == [True] * (2 * found["names"])
    assert found["left"] == [False] * (2 * found["names"])
    assert found["same"]
    assert not found["session"]
