"""From a failure and the number of tries to the next delay, or none. Pure: chance is handed in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ChatAPIError,
    ConfigurationError,
    InternalServerError,
)

RiskyFailure = Literal["connection_lost", "timeout", "server_error"]
"""Failures after which the request may have been processed: sending it again can pay twice, and store it twice."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request is sent again, and after how long.

    Only a request that was certainly not processed is sent again: the connection was never made, the status is 429, or
    it is 503 with ``Retry-After``. Nothing is ever sent again once a response has begun.

    Raises:
        ConfigurationError: a negative number, or an unknown name in ``also``.
    """

    max_retries: int = 2
    """How often a request is sent again, at most; 0 for never."""

    initial_delay: float = 0.5
    """Seconds; upper bound of the first delay. It doubles with each retry, and the delay is drawn evenly below it."""

    max_delay: float = 8.0
    """Seconds; upper bound of a delay that the server did not ask for."""

    max_retry_after: float = 60.0
    """Seconds; a server that asks for a longer wait than this gets none: its error is raised."""

    also: Collection[RiskyFailure] = frozenset()
    """Risky failures that are retried all the same, which can pay for a request twice: ``connection_lost`` before the
    response began, ``timeout`` while waiting for it, ``server_error`` for every status of 500 and above."""

    def __post_init__(self) -> None:
        for name in ("max_retries", "initial_delay", "max_delay", "max_retry_after"):
            value = getattr(self, name)
            kind = int if name == "max_retries" else int | float
            if not isinstance(value, kind) or isinstance(value, bool) or not value >= 0:
                raise ConfigurationError(f"RetryPolicy {name}={value!r} must be a number, and not negative")
        if isinstance(self.also, str | None):
            raise ConfigurationError(f"RetryPolicy also={self.also!r} must be a set of names")
        object.__setattr__(self, "also", frozenset(self.also))
        if unknown := frozenset(self.also) - {"connection_lost", "timeout", "server_error"}:
            raise ConfigurationError(f"RetryPolicy also={sorted(unknown)!r} names no failure that could be retried")

    @classmethod
    def of(cls, retries: RetryPolicy | int) -> RetryPolicy:
        """Read what ``retries=`` takes: a policy, or the number of retries."""
        return retries if isinstance(retries, RetryPolicy) else cls(max_retries=retries)

    def delay(self, error: ChatAPIError, retries_done: int, chance: float) -> float | None:
        """Return how many seconds to wait before the request is sent again, None if it is not.

        Args:
            error: why the last try failed.
            retries_done: how often the request was sent again already.
            chance: a random number from 0 to 1.
        """
        if retries_done >= self.max_retries or not (error.retryable or self._accepts(error)):
            return None
        if isinstance(error, APIStatusError) and error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.max_retry_after else None
        return chance * min(self.max_delay, self.initial_delay * 2.0 ** min(retries_done, 64))

    def _accepts(self, error: ChatAPIError) -> bool:
        if isinstance(error, InternalServerError):
            return "server_error" in self.also
        if isinstance(error, APITimeoutError):
            return "timeout" in self.also and error.phase != "total"
        return isinstance(error, APIConnectionError) and "connection_lost" in self.also
