"""Courtesy to other profilers: CUPTI is lent to them for as long as they run.

Most releases of CUPTI serve one tool per process. While we hold it, ``torch.profiler`` records no CUDA event and says
nothing, and it never asks again in that process when its very first attempt was refused. So the Python functions
through which a profile begins and ends are wrapped: CUPTI is given away before the first runs and asked back after the
last. Releases that serve several tools serve only those that use their newer functions, which neither profiler does.

Kineto, the engine of torch.profiler, keeps CUPTI for the life of the process unless ``TEARDOWN_CUPTI=1`` is in the
environment. Then a thread of its own prepares to let go after each profile, and it is done inside the next call into
the CUDA runtime. PyTorch switches that off again where it is known to fail; what it sets is left alone.

While other threads call CUDA, that letting go is a race inside Kineto, with or without us: later profiles come out
empty. So the variable is set for a profile only when no other thread of the user's is alive; else Kineto keeps CUPTI,
its profiles are whole, and the status says that tracking ended there and why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.abc
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

TEARDOWN = "TEARDOWN_CUPTI"
_SAFE_TEARDOWN = (12, 6)  # CUDA before this one crashed when CUPTI came back beside CUDA graphs
_INFRASTRUCTURE = ("ipykernel", "IPython", "zmq", "tornado", "jupyter", "tqdm", "gpumem_magic", "debugpy", "pydevd")
_WAITS_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)  # flushing a trace takes Kineto some milliseconds
SETTLING_S = 30.0


class Lender(Protocol):
    """The part of a Session that lends CUPTI."""

    @property
    def state(self) -> str: ...
    def yield_slot(self, to: str) -> bool: ...
    def check(self) -> bool: ...


def _always(_args: Sequence[Any], _kwargs: dict[str, Any]) -> bool:
    return True


def _never() -> bool:
    return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Profiler:
    """How a profiler is entered and left. Names are attributes of ``module``, those of its classes with a dot."""

    name: str
    module: str  # where the functions are looked up when they are called
    copies: tuple[str, ...] = ()  # modules that hold the same functions for users
    begins: tuple[str, ...]  # of these and of ``ends``, at least one has to exist
    ends: tuple[str, ...]
    uses_cupti: Callable[[Sequence[Any], dict[str, Any]], bool] = _always  # given the arguments of a begin
    prod: Callable[[], bool] = _never  # help it let go; True when it pays to wait for that


def _names_activities(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Kineto is asked for activities. ``emit_nvtx`` and ``emit_itt`` come through the same door without any."""
    return bool(args[1] if len(args) > 1 else kwargs.get("activities", True))


def _prod_kineto() -> bool:
    """Call the CUDA runtime, which Kineto waits for. This call is allowed during the capture of a graph too."""
    torch = sys.modules.get("torch")
    if os.environ.get(TEARDOWN) != "1" or torch is None or not torch.cuda.is_initialized():
        return False
    torch.cuda.is_current_stream_capturing()
    return True


PROFILERS = (
    Profiler(
        name="torch.profiler",
        module="torch.autograd.profiler",
        begins=("_prepare_profiler", "_enable_profiler"),
        ends=("_disable_profiler",),
        uses_cupti=_names_activities,
        prod=_prod_kineto,
    ),
    Profiler(
        name="jax.profiler",
        module="jax._src.profiler",
        copies=("jax.profiler",),
        begins=("start_trace", "ProfileSession.start"),
        ends=("stop_trace", "ProfileSession.stop", "stop_and_get_fdo_profile"),
    ),
    Profiler(  # a profile may be asked for over the network at any moment
        name="the server of jax.profiler",
        module="jax._src.profiler",
        copies=("jax.profiler",),
        begins=("start_server",),
        ends=("stop_server",),
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Patch:
    owner: Any  # a module or a class
    name: str
    original: Any
    wrapper: Any


class ProfilerCourtesy:
    """While installed, CUPTI is lent to profilers that begin and asked back when they end.

    The wrappers run in the caller's thread and may take the session's lock, the import hook never does. Nothing in
    here raises into the user's code; what went wrong is told in ``problems``.
    """

    def __init__(self, session: Lender) -> None:
        self._session = session
        self._finder: _ImportWatcher | None = None
        self._patches: list[_Patch] = []
        self._patched: list[str] = []
        self._problems: list[str] = []
        self._in_use: set[str] = set()
        self._set_teardown = False
        self._settled_at = 0.0

    @property
    def patched(self) -> tuple[str, ...]:
        """Profilers that are imported and that CUPTI will be lent to."""
        return tuple(self._patched)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a user should know, in sentences, each once."""
        return tuple(self._problems)

    @property
    def in_use(self) -> bool:
        """A profiler runs right now: CUPTI must not be taken from it, nor before it asked for it."""
        return bool(self._in_use)

    @property
    def settling(self) -> bool:
        """A profiler is about to reset CUPTI, from a thread and at a moment of its own: better not to be there."""
        return time.monotonic() < self._settled_at

    def install(self) -> None:
        """Wrap what is imported already, and the rest when it gets imported. Imports nothing."""
        if self._finder is not None:
            return
        self._problems.clear()
        self._in_use.clear()
        self._set_teardown = TEARDOWN not in os.environ
        self._choose_teardown()
        names = frozenset(profiler.module for profiler in PROFILERS)
        self._finder = _ImportWatcher(names, self._imported, self._problem)
        sys.meta_path.insert(0, self._finder)
        for name in names:
            if name in sys.modules:
                self._imported(sys.modules[name])

    def remove(self) -> None:
        """Undo ``install``. Where someone wrapped a function after us, theirs stays and ours only passes on."""
        if self._finder is None:
            return
        with contextlib.suppress(ValueError):  # somebody else took it out
            sys.meta_path.remove(self._finder)
        self._finder = None
        for patch in self._patches:
            _swap(patch.owner, patch.name, patch.wrapper, patch.original)
        for profiler in PROFILERS:
            self._restore_copies(profiler)
        self._patches.clear()
        self._patched.clear()
        self._in_use.clear()
        self._forget_teardown()

    # ---- patching ----

    def _imported(self, module: ModuleType) -> None:
        """``module`` is complete. Called by the import machinery, so it must not fail, nor wait for any lock."""
        for profiler in PROFILERS:
            if profiler.module != module.__name__ or self._finder is None:
                continue
            try:
                self._patch(profiler, module)
            except Exception as error:  # noqa: BLE001  (the user's import must succeed whatever we met)
                self._problem(f"CUPTI cannot be lent to {profiler.name} ({error!r}).")
        if module.__name__ == "torch.autograd.profiler" and not _teardown_is_safe():
            self._forget_teardown()

    def _patch(self, profiler: Profiler, module: ModuleType) -> None:
        begins = [found for name in profiler.begins if (found := _find(module, name))]
        ends = [found for name in profiler.ends if (found := _find(module, name))]
        if not begins or not ends:
            self._problem(
                f"This release of {profiler.name} begins and ends profiles in a way that is not known here. "
                "Its profiles show no CUDA events while tracking is on: run `%gpumem off` before them.",
            )
            return
        for owner, name in begins:
            self._wrap(profiler, owner, name, self._begin)
        for owner, name in ends:
            self._wrap(profiler, owner, name, self._end)
        if profiler.name not in self._patched:
            self._patched.append(profiler.name)

    def _wrap(self, profiler: Profiler, owner: Any, name: str, wrap: Callable[[Any, Profiler], Any]) -> None:
        original = vars(owner)[name]
        patch = _Patch(owner, name, original, wrap(original, profiler))
        self._patches.append(patch)
        setattr(owner, name, patch.wrapper)
        for copy in profiler.copies:
            _swap(sys.modules.get(copy), name, original, patch.wrapper)

    def _restore_copies(self, profiler: Profiler) -> None:
        """Modules that copied a wrapper when they were imported get the original, as if we had never been there."""
        for copy in profiler.copies:
            for patch in self._patches:
                _swap(sys.modules.get(copy), patch.name, patch.wrapper, patch.original)

    def _begin(self, original: Callable[..., Any], profiler: Profiler) -> Callable[..., Any]:
        @functools.wraps(original)
        def begin(*args: Any, **kwargs: Any) -> Any:
            lent = profiler.uses_cupti(args, kwargs) and self._lend(profiler)
            try:
                return original(*args, **kwargs)
            except BaseException:
                if lent:
                    self._take_back(profiler)
                raise

        return begin

    def _end(self, original: Callable[..., Any], profiler: Profiler) -> Callable[..., Any]:
        @functools.wraps(original)
        def end(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            finally:
                self._take_back(profiler)

        return end

    # ---- lending ----

    def _lend(self, profiler: Profiler) -> bool:
        """True when this call began the loan."""
        if self._finder is None or profiler.name in self._in_use:
            return False
        self._choose_teardown()
        self._in_use.add(profiler.name)  # before the slot is free, or a heartbeat in between would take it again
        with self._reported(profiler):
            self._session.yield_slot(profiler.name)
        return True

    def _take_back(self, profiler: Profiler) -> None:
        if self._finder is None or profiler.name not in self._in_use:
            return
        self._in_use.discard(profiler.name)
        with self._reported(profiler):
            if self.in_use or self._session.check():
                return
            for wait_s in _WAITS_S:
                if self._session.state != "yielded" or not profiler.prod():
                    return
                time.sleep(wait_s)
                if self._session.check():
                    return
            self._settled_at = time.monotonic() + SETTLING_S

    @contextlib.contextmanager
    def _reported(self, profiler: Profiler) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  (the user's profile must go on whatever we met)
            self._problem(f"Lending CUPTI to {profiler.name} failed ({error!r}).")

    def _problem(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)

    def _choose_teardown(self) -> None:
        """Have Kineto let go after its next profile, unless other threads would be in its way."""
        if os.environ.get(TEARDOWN, "1") != "1":
            self._set_teardown = False  # the user has decided meanwhile
        if not self._set_teardown:
            return
        others = _working_threads()
        if not others:
            os.environ[TEARDOWN] = "1"
            return
        # For good: Kineto's next profile comes out empty when the variable goes and comes back between profiles.
        self._set_teardown = False
        if os.environ.pop(TEARDOWN, None) is not None and "torch" in sys.modules:
            self._problem(
                f"A profile began while other threads ran ({', '.join(others[:3])}): torch.profiler cannot be asked to "
                "give CUPTI back safely then. If it keeps CUPTI, tracking goes on after a restart of the kernel.",
            )

    def _forget_teardown(self) -> None:
        if self._set_teardown and os.environ.get(TEARDOWN) == "1":
            del os.environ[TEARDOWN]
        self._set_teardown = False


def _find(module: ModuleType, name: str) -> tuple[Any, str] | None:
    """The owner and the last part of a dotted name; None when this release has no such function."""
    owner: Any = module
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    return (owner, last) if owner is not None and callable(vars(owner).get(last)) else None


def _swap(owner: Any, name: str, expected: Any, replacement: Any) -> None:
    """Put ``replacement`` where ``expected`` is; leave anything else alone."""
    if owner is not None and vars(owner).get(name) is expected:
        setattr(owner, name, replacement)


def _working_threads() -> list[str]:
    """Names of live threads that may call CUDA: all but the caller, the main one, and those of the notebook itself."""
    mine = (threading.current_thread(), threading.main_thread())
    return [thread.name for thread in threading.enumerate() if thread not in mine and not _is_infrastructure(thread)]


def _is_infrastructure(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", None) or "")
    return any(module.split(".")[0] in _INFRASTRUCTURE for module in modules)


def _teardown_is_safe() -> bool:
    """False when the imported torch was built for a CUDA that is known to crash."""
    version = str(getattr(sys.modules.get("torch.version"), "cuda", None) or "")
    parts = version.split(".")[:2]
    return not all(part.isdigit() for part in parts) or tuple(int(part) for part in parts) >= _SAFE_TEARDOWN


class _ImportWatcher(importlib.abc.MetaPathFinder):
    """Tells when one of a few modules was imported. Finds nothing itself and changes nothing that others can see.

    The loader that the other finders chose stays in place; for the time of the import its ``exec_module`` is ours.
    """

    def __init__(
        self, names: frozenset[str], imported: Callable[[ModuleType], None], problem: Callable[[str], None]
    ) -> None:
        self._names = names
        self._imported = imported
        self._problem = problem

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = self._ask_others(fullname, path, target)
        if spec is not None and spec.loader is not None:
            try:
                self._hook(spec.loader, fullname)
            except Exception as error:  # noqa: BLE001  (the user's import must succeed whatever we met)
                self._problem(f"The import of {fullname} cannot be followed ({error!r}).")
        return spec

    def _ask_others(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """Those behind us: those before us were asked already, and may be watchers of another session."""
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else []:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(fullname, path, target) if find_spec is not None else None
            if spec is not None:
                return spec
        return None

    def _hook(self, loader: Any, fullname: str) -> None:
        attributes = vars(loader)  # the instance's own: the class serves every import
        absent = object()
        before = attributes.get("exec_module", absent)
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if module.__name__ != fullname:  # a loader that serves several modules
                execute(module)
                return
            if before is absent:
                attributes.pop("exec_module", None)
            else:
                attributes["exec_module"] = before
            execute(module)
            self._imported(module)

        loader.exec_module = exec_module
