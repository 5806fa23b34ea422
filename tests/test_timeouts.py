"""The limits of a stream's waits, and which of them ends first. Times are plain numbers here."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import inf, nan
from typing import Any

import pytest

from chatapi_async import ConfigurationError, Timeouts
from chatapi_async._timeouts import Waits

FIELDS = ["connect", "first_chunk", "idle", "total", "write", "pool"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [0, -1, nan, True, "5", 10**400])
def test_a_limit_that_is_no_positive_number_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"timeout {field}="):
        Timeouts(**{field: value})


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [0.001, 1, inf, None])
def test_a_limit_is_a_positive_number_or_none(field: str, value: float | None) -> None:
    assert getattr(Timeouts(**{field: value}), field) == value


def test_by_default_every_wait_is_limited_and_the_total_is_not() -> None:
    assert Timeouts() == Timeouts(connect=5, first_chunk=120, idle=60, total=None, write=30, pool=30)


@pytest.mark.parametrize("limit", [7, None])
def test_one_number_limits_each_wait_alike_but_not_the_total(limit: float | None) -> None:
    assert Timeouts.of(limit) == Timeouts(
        connect=limit, first_chunk=limit, idle=limit, total=None, write=limit, pool=limit
    )


def test_timeouts_are_taken_as_they_are() -> None:
    timeouts = Timeouts(idle=1)
    assert Timeouts.of(timeouts) is timeouts


def test_timeouts_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Timeouts().idle = 5  # type: ignore[misc]


# ── which limit ends a wait ──────────────────────────────────────────────────────────────────────────────────────────


def waits(**limits: float | None) -> Waits:
    """The waits of a stream that began at 100, whose first attempt began at 100 too."""
    waits = Waits(Timeouts(**limits), 100.0)
    waits.attempt_began(100.0)
    return waits


def test_the_first_chunk_is_waited_for_from_the_start_of_the_attempt() -> None:
    stream = waits(first_chunk=10, idle=1)
    assert [stream.deadline(now) for now in (100.0, 105.0)] == [110.0, 110.0]
    assert stream.expired(110.0) == ("first_chunk", 10)
    stream.attempt_began(130.0)
    assert stream.deadline(131.0) == 140.0


def test_between_two_attempts_only_the_total_counts() -> None:
    stream = waits(first_chunk=10, total=50)
    stream.attempt_failed()
    assert stream.deadline(105.0) == 150.0
    assert stream.expired(150.0) == ("total", 50)


def test_silence_counts_from_when_the_caller_waits_and_not_while_the_caller_is_busy() -> None:
    stream = waits(first_chunk=10, idle=5)
    stream.content_came()
    assert stream.deadline(200.0) == 205.0
    assert stream.deadline(203.0) == 205.0
    assert stream.expired(205.0) == ("idle", 5)
    stream.content_came()
    assert stream.deadline(300.0) == 305.0


def test_silence_is_summed_up_over_an_event_that_is_no_chunk_without_the_time_that_the_caller_takes_for_it() -> None:
    stream = waits(first_chunk=10, idle=5)
    stream.content_came()
    assert stream.deadline(200.0) == 205.0
    stream.caller_took_over(203.0)
    stream.caller_took_over(250.0)
    assert stream.deadline(300.0) == 302.0
    stream.caller_took_over(301.0)
    assert stream.deadline(400.0) == 401.0
    stream.content_came()
    assert stream.deadline(500.0) == 505.0


def test_the_first_chunk_is_waited_for_whatever_the_caller_does_meanwhile() -> None:
    stream = waits(first_chunk=10)
    stream.caller_took_over(105.0)
    assert stream.deadline(109.0) == 110.0


@pytest.mark.parametrize(("total", "phase"), [(3, "total"), (5, "total"), (8, "first_chunk")])
def test_the_limit_that_comes_first_ends_the_wait(total: float, phase: str) -> None:
    stream = waits(first_chunk=5, total=total)
    assert stream.deadline(101.0) == 100.0 + min(5, total)
    assert stream.expired(101.0) == (phase, min(5, total))


def test_the_total_counts_on_whatever_comes() -> None:
    stream = waits(idle=5, total=20)
    for now in range(101, 119):
        stream.content_came()
        assert stream.deadline(float(now)) == min(now + 5, 120)
    assert stream.total_at == 120.0
    assert stream.expired(118.0) == ("total", 20)


def test_without_limits_a_wait_never_ends() -> None:
    stream = waits(first_chunk=None, idle=None)
    assert (stream.deadline(100.0), stream.total_at) == (inf, inf)
    stream.attempt_failed()
    stream.content_came()
    assert stream.deadline(1e9) == inf
