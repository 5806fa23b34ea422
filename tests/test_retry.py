"""Which failures are followed by another try, and after how long: only what was certainly not processed, by default."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from chatapi_async import (
    APIStatusError,
    ChatAPIError,
    ConfigurationError,
    EmptyStreamError,
    RetryPolicy,
    StreamClosedError,
)
from chatapi_async._failures import connection_lost, not_connected, status_error, timed_out, truncated
from chatapi_async.errors import TimeoutPhase


def status(code: int, retry_after: str | None = None) -> APIStatusError:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return status_error(where="POST x", status_code=code, headers=headers, body=b"", now=0.0, request_id=None)


def timeout(phase: TimeoutPhase, *, sent: bool = True) -> ChatAPIError:
    return timed_out(phase, 1.0, "POST x", sent=sent)


SAFE = [
    not_connected("POST x", "refused"),
    status(429),
    status(503, "0"),
    *(timeout(phase, sent=False) for phase in ("connect", "pool", "first_chunk")),
]
LOST = connection_lost("POST x", "reset")
WAITED = [timeout("first_chunk"), timeout("write"), timeout("idle")]
SERVER = [status(500), status(502), status(503), status(504)]
NEVER = [
    *(status(code) for code in (301, 400, 401, 402, 403, 404, 408, 409, 422)),
    status(400, "1"),
    timeout("total"),
    ConfigurationError("x"),
    truncated("x"),
    EmptyStreamError(),
    StreamClosedError("x"),
]
ALL = [*SAFE, LOST, *WAITED, *SERVER, *NEVER]


def retried(policy: RetryPolicy) -> list[ChatAPIError]:
    return [error for error in ALL if policy.delay(error, 0, 1.0) is not None]


def test_only_what_was_certainly_not_processed_is_sent_again() -> None:
    assert retried(RetryPolicy()) == SAFE
    assert all(error.processed == "no" for error in SAFE)


@pytest.mark.parametrize(
    ("also", "more"),
    [({"connection_lost"}, [LOST]), ({"timeout"}, WAITED), ({"server_error"}, SERVER)],
)
def test_risky_failures_are_sent_again_only_by_name(also: Any, more: list[ChatAPIError]) -> None:
    assert retried(RetryPolicy(also=also)) == [error for error in ALL if error in (*SAFE, *more)]


def test_what_ended_for_good_is_never_sent_again() -> None:
    everything = RetryPolicy(also=frozenset({"connection_lost", "timeout", "server_error"}))
    assert [error for error in ALL if error not in retried(everything)] == NEVER


@pytest.mark.parametrize(
    ("retries_done", "chance", "delay"),
    [
        (0, 1.0, 0.5),
        (1, 1.0, 1.0),
        (2, 1.0, 2.0),
        (4, 1.0, 8.0),
        (5, 1.0, 8.0),
        (10**6, 1.0, 8.0),
        (2, 0.25, 0.5),
        (3, 0.0, 0.0),
    ],
)
def test_a_delay_is_drawn_below_a_bound_that_doubles_up_to_a_cap(
    retries_done: int, chance: float, delay: float
) -> None:
    assert RetryPolicy(max_retries=10**9).delay(SAFE[0], retries_done, chance) == delay


def test_the_bounds_of_the_delay_can_be_given() -> None:
    policy = RetryPolicy(max_retries=9, initial_delay=2, max_delay=5)
    assert [policy.delay(SAFE[0], done, 1.0) for done in range(3)] == [2, 4, 5]


@pytest.mark.parametrize(("max_retries", "tries"), [(0, []), (1, [0]), (2, [0, 1])])
def test_a_request_is_sent_again_so_often_and_no_more(max_retries: int, tries: list[int]) -> None:
    policy = RetryPolicy.of(max_retries)
    assert [done for done in range(5) if policy.delay(SAFE[0], done, 0.5) is not None] == tries


@pytest.mark.parametrize(("asked", "delay"), [("7", 7.0), ("0", 0.0), ("60", 60.0), ("60.1", None), ("3600", None)])
def test_the_servers_wish_goes_before_chance_up_to_a_cap(asked: str, delay: float | None) -> None:
    for code in (429, 503):
        assert RetryPolicy().delay(status(code, asked), 0, 0.5) == delay


def test_the_cap_of_the_servers_wish_can_be_given() -> None:
    assert RetryPolicy(max_retry_after=5).delay(status(429, "6"), 0, 0.5) is None
    assert RetryPolicy(max_retry_after=6).delay(status(429, "6"), 0, 0.5) == 6


def test_by_default_there_are_two_retries_within_seconds() -> None:
    default = RetryPolicy(max_retries=2, initial_delay=0.5, max_delay=8, max_retry_after=60, also=frozenset())
    assert RetryPolicy() == default


def test_a_policy_is_taken_as_it_is() -> None:
    policy = RetryPolicy(max_retries=7)
    assert RetryPolicy.of(policy) is policy
    assert RetryPolicy.of(7) == policy


@pytest.mark.parametrize("field", ["max_retries", "initial_delay", "max_delay", "max_retry_after"])
@pytest.mark.parametrize("value", [-1, float("nan"), "3", None, True])
def test_a_number_that_is_none_or_negative_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=field):
        RetryPolicy(**{field: value})


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        RetryPolicy().max_retries = 5  # type: ignore[misc]


@pytest.mark.parametrize("field", ["max_retries", "initial_delay", "max_delay", "max_retry_after"])
def test_nought_is_a_number(field: str) -> None:
    fields: dict[str, Any] = {field: 0}
    assert getattr(RetryPolicy(**fields), field) == 0


def test_an_unknown_failure_is_refused_by_name() -> None:
    names: Any = ["timeout", "earthquake"]
    with pytest.raises(ConfigurationError, match=r"\['earthquake'\]"):
        RetryPolicy(also=names)


@pytest.mark.parametrize(
    "arguments", [{"also": "timeout"}, {"also": None}, {"also": {"sunshine"}}, {"max_retries": 1.5}]
)
def test_a_policy_that_means_nothing_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        RetryPolicy(**arguments)
