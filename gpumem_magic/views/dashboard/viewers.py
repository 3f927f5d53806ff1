"""Who looks at a dashboard, by what the page says of its views."""

from __future__ import annotations

import collections
import time

UNSEEN_S = 35.0
"""A page says every 10 s that it is there. After so long without a word, while it could be heard, nobody looks."""
_RETURN_S = 2.0  # a page that is loaded anew says goodbye, and hello soon after
_MOST_DEPARTED = 64  # views whose goodbye is remembered


class Viewers:
    """Views that said hello and not goodbye. Not thread-safe."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}  # when each view was heard of last
        self._heard_at = time.monotonic()
        self._departed: collections.deque[str] = collections.deque(maxlen=_MOST_DEPARTED)
        self._has_left = False  # the last view said goodbye

    def hello(self, view: str) -> bool:
        """A view is there. False when it said goodbye before.

        Kernels may hand a page's first messages to the busy main thread and later ones to another, so that a view says
        hello after its goodbye.
        """
        if view in self._departed:
            return False
        now = time.monotonic()
        self._seen = {each: at for each, at in self._seen.items() if now - at < UNSEEN_S} | {view: now}
        self._heard_at, self._has_left = now, False
        return True

    def goodbye(self, view: str) -> None:
        """A view is gone."""
        self._departed.append(view)
        self._seen.pop(view, None)
        if not self._seen:
            self._has_left = True
            self._heard_at = time.monotonic() - UNSEEN_S + _RETURN_S

    def any(self, *, is_busy: bool) -> bool:
        """Whether anybody looks; in doubt, yes: while the kernel ``is_busy`` the page may be unable to say so."""
        now = time.monotonic()
        if is_busy and not self._has_left:
            self._heard_at = max(self._heard_at, now - UNSEEN_S / 2)
        return now - self._heard_at < UNSEEN_S
