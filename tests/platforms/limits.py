"""How often a platform lets something be done. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Hashable


class RateLimit:
    """So many requests in so many seconds, counted for each key by itself.

    A key's window opens with its first request, and all of its requests come back when the window closes. A refused
    request is not counted.
    """

    def __init__(self, requests: int, seconds: float) -> None:
        self.requests = requests
        self.seconds = seconds
        self._windows: dict[Hashable, tuple[float, int]] = {}

    def take(self, key: Hashable, now: float) -> float:
        """Count a request: 0 if it is allowed, else how many seconds to wait."""
        if not self.remaining(key, now):
            return self.reset_after(key, now)
        opened, taken = self._window(key, now)
        self._windows[key] = (opened, taken + 1)
        return 0.0

    def remaining(self, key: Hashable, now: float) -> int:
        """How many more requests are allowed in this window."""
        return self.requests - self._window(key, now)[1]

    def reset_after(self, key: Hashable, now: float) -> float:
        """Seconds until the window closes."""
        return self._window(key, now)[0] + self.seconds - now

    def _window(self, key: Hashable, now: float) -> tuple[float, int]:
        opened, taken = self._windows.get(key, (now, 0))
        return (opened, taken) if now - opened < self.seconds else (now, 0)
