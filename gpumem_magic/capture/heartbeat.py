"""A slow pulse: a thread that looks now and then whether the tracker still hears the driver."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S = 5.0
_JOIN_S = 2.0


class Heartbeat:
    """Calls ``beat`` every ``interval_s`` seconds in a thread of its own, from ``start`` to ``stop``.

    ``beat`` must not wait for any lock that the caller of ``stop`` may hold. Its errors end nothing and are kept in
    ``problem``: a thread that prints would print into some cell of the notebook. A forked child has no such thread.
    """

    def __init__(self, beat: Callable[[], object], *, interval_s: float = INTERVAL_S) -> None:
        self._beat = beat
        self._interval_s = interval_s
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.problem = ""

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin beating. Does nothing when it does so already."""
        if self.is_alive:
            return
        self._ended = threading.Event()
        # A daemon, for it must not keep a script from ending; whoever starts it has to stop it before Python goes.
        self._thread = threading.Thread(target=self._run, args=(self._ended,), name="gpumem-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it: at most one beat."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
        self._thread = None

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self._interval_s):
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001  (see the class)
                self.problem = repr(error)
