"""The widget that carries a dashboard between the kernel and the page. It knows nothing of what it carries.

The page gets its script and BokehJS from the kernel; nothing is fetched from elsewhere. BokehJS is in a widget of its
own, made once per process, so it travels once per page however many dashboards there are.
"""

from __future__ import annotations

import gzip
import importlib.resources
import pathlib
import threading
from typing import TYPE_CHECKING, Any

import anywidget
import bokeh
import traitlets

from gpumem_magic.views.theme import style

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPTS = ("format", "levels", "store", "bokeh", "dom", "pictures", "tables", "view", "widget")
"""The parts of the page's script, in the order in which they are put together: one module, one scope."""


def script() -> str:
    """The page's script as one ES module."""
    folder = importlib.resources.files(__package__) / "front"
    return "\n".join((folder / f"{name}.js").read_text("utf-8") for name in SCRIPTS)


def live_sheet() -> str:
    """The style sheet of answers and what the live parts add to it."""
    return style() + (importlib.resources.files(__package__) / "front" / "live.css").read_text("utf-8")


class BokehScript(anywidget.AnyWidget):
    """Holds BokehJS for the page; is shown nowhere."""

    _esm = "export default {}"
    script = traitlets.Bytes().tag(sync=True)

    def __init__(self) -> None:
        path = pathlib.Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
        super().__init__(script=gzip.compress(path.read_bytes(), 6))


_script_lock = threading.Lock()
_script: list[BokehScript] = []


def _shared_script() -> BokehScript:
    with _script_lock:
        if not _script or _script[0].comm is None:
            _script[:] = [BokehScript()]
        return _script[0]


class DashboardWidget(anywidget.AnyWidget):
    """Sends numbered messages, and the whole state to whoever missed some or came later.

    Args:
        whole: makes the state of this moment: (JSON object, packed history). Called with ``lock`` held.
        heard: takes what the page says. Called on the thread that the kernel handles messages on.
        lock: held while a number is given to a message and while the state is made, so that both agree.
    """

    _esm = script()
    state = traitlets.Dict().tag(sync=True)
    levels = traitlets.Bytes().tag(sync=True)
    sheet = traitlets.Unicode().tag(sync=True)
    bokeh_version = traitlets.Unicode(bokeh.__version__).tag(sync=True)
    bokeh_script = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        whole: Callable[[], tuple[dict[str, Any], bytes]],
        heard: Callable[[dict[str, Any]], None],
        lock: threading.RLock,
    ) -> None:
        self._whole = whole
        self._heard = heard
        self._state_lock = lock
        self.seq = 0
        with lock:
            state, levels = self._current()
        super().__init__(
            state=state,
            levels=levels,
            sheet=live_sheet(),
            bokeh_script=f"IPY_MODEL_{_shared_script().model_id}",
        )
        self.on_msg(self._hear)
        if hasattr(self.comm, "_reply_subshell_for"):
            # ipykernel 7.4 answers on the main shell, which is busy, unless told otherwise.
            self.comm._reply_subshell_for = None  # noqa: SLF001  (there is no public way)

    def _current(self) -> tuple[dict[str, Any], bytes]:
        state, levels = self._whole()
        return {**state, "seq": self.seq}, levels

    def send_update(self, message: dict[str, Any]) -> None:
        """Send the next message. Any thread; the caller holds the lock."""
        self.seq += 1
        self.send({"kind": "update", "seq": self.seq, **message})

    def bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A MIME bundle and its metadata."""
        with self._state_lock:
            self.state, self.levels = self._current()  # a page that makes its first view of it begins with now
        made = self._repr_mimebundle_()
        assert made is not None, "a widget with a view has a bundle"
        bundle, metadata = made
        return {**bundle, "text/plain": "GPU memory, live. Shown where widgets are."}, metadata

    def send_everything(self) -> None:
        """For a page that missed a message."""
        with self._state_lock:
            state, levels = self._current()
            self.send({"kind": "full", "state": state}, [levels])

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        """As a page asks for it that was loaded anew: the state of now, not that of the beginning."""
        if key is None and self.comm is not None:
            with self._state_lock:
                self._trait_values["state"], self._trait_values["levels"] = self._current()
        state: dict[str, Any] = super().get_state(key, drop_defaults=drop_defaults)
        return state

    def close(self) -> None:
        """Let go of the page and of what belongs to this widget alone."""
        layout = self.layout
        super().close()
        layout.close()

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if content.get("kind") == "resync":
            self.send_everything()
        else:
            self._heard(content)
