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
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
                raise ConfigurationError(
                    f"timeout {field.name}={limit!r} is no positive number of seconds; use None for no limit"
                )

    @classmethod
    def of(cls, timeout: Timeouts | float | None) -> Timeouts:
        """Read what ``timeout=`` takes: a number limits each wait alike, but not the total; None limits nothing."""
        if isinstance(timeout, Timeouts):
            return timeout
        return cls(connect=timeout, first_chunk=timeout, idle=timeout, total=None, write=timeout, pool=timeout)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, and the limit that set it."""

    phase: TimeoutPhase
    limit: float
    at: float

    @classmethod
    def none(cls) -> Deadline:
        """Return a deadline that never comes."""
        return cls("total", inf, inf)

    @classmethod
    def after(cls, phase: TimeoutPhase, start: float, limit: float | None) -> Deadline:
        """Return the deadline of a limit that is counted from ``start``."""
        return cls.none() if limit is None else cls(phase, limit, start + limit)

    def earlier(self, other: Deadline) -> Deadline:
        """Return whichever of both comes first."""
        return self if self.at <= other.at else other
