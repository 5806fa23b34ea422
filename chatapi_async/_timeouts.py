"""How long a stream may take: the limits, and which of them ends first. No clock: times are handed in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf

from .errors import ConfigurationError, TimeoutPhase


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits in seconds; None means no limit.

    ``first_chunk`` and ``idle`` ask for content: a keep-alive comment does not reset them. ``idle`` counts only while
    the caller waits for the next chunk, never while the caller is busy with the last one.

    Raises:
        ConfigurationError: a limit that is no positive number.
    """

    connect: float | None = 5.0
    """To connect to the server, TLS included."""
    first_chunk: float | None = 120.0
    """From the start of an attempt (connecting included) to its first chunk."""
    idle: float | None = 60.0
    """Without a new chunk, once the first has come."""
    total: float | None = None
    """From the start of the first attempt to the end of the stream, everything included."""
    write: float | None = 30.0
    """To send one piece of the request."""
    pool: float | None = 30.0
    """To wait for a free connection, where the pool is limited."""

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is None:
                continue
            if not _is_limit(limit):
                raise ConfigurationError(
                    f"timeout {field.name}={limit!r} is no positive number of seconds; use None for no limit"
                )

    @classmethod
    def of(cls, timeout: Timeouts | float | None) -> Timeouts:
        """Read what ``timeout=`` takes: a number limits each wait alike, but not the total; None limits nothing."""
        if isinstance(timeout, Timeouts):
            return timeout
        return cls(connect=timeout, first_chunk=timeout, idle=timeout, total=None, write=timeout, pool=timeout)


class Waits:
    """Which limit ends the present wait of one stream, and when. Times are seconds of the event loop's clock."""

    def __init__(self, timeouts: Timeouts, now: float) -> None:
        self.timeouts = timeouts
        self.total_at = _after(now, timeouts.total)
        self._content_at = inf
        self._idle = inf if timeouts.idle is None else timeouts.idle
        self._waiting_since: float | None = None
        self._waited = 0.0
        self._started = False
        self.attempts = 0
        """How many attempts have begun."""

    def attempt_began(self, now: float) -> None:
        """Count the wait for the first chunk from ``now``."""
        self.attempts += 1
        self._content_at = _after(now, self.timeouts.first_chunk)

    def attempt_failed(self) -> None:
        """Stop waiting for the first chunk, until the next attempt begins."""
        self._content_at = inf

    def content_came(self) -> None:
        """End the present wait; the next one, for more content, begins when it is asked for its deadline."""
        self._started = True
        self._waiting_since = None
        self._waited = 0.0

    def caller_took_over(self, now: float) -> None:
        """Interrupt the present wait, without content having come, until it is asked for its deadline again."""
        if self._waiting_since is not None:
            self._waited += now - self._waiting_since
            self._waiting_since = None

    def deadline(self, now: float) -> float:
        """Return when the present wait ends; ``inf`` for never."""
        if self._started:
            if self._waiting_since is None:
                self._waiting_since = now
            self._content_at = self._waiting_since + self._idle - self._waited
        return self._content_at if self._content_at < self.total_at else self.total_at

    def expired(self, now: float) -> tuple[TimeoutPhase, float]:
        """Return which limit the deadline came from, and the limit."""
        if self.deadline(now) == self.total_at:
            return "total", self.timeouts.total or inf
        if self._started:
            return "idle", self._idle
        return "first_chunk", self.timeouts.first_chunk or inf


def _is_limit(value: object) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, int | float) and float(value) > 0
    except OverflowError:
        return False


def _after(now: float, limit: float | None) -> float:
    return inf if limit is None else now + limit
