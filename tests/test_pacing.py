"""Updates, heartbeats and sentences: when they come, by a clock of the test's own, and what they say."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import AsyncChatClient, ChatCompletionChunkResponse, ConfigurationError, HeartbeatEvent
from chatapi_async.pacing import Update, heartbeat, paced, sentences, split_message, utf16_units
from tests.raw_server import DONE, RawServer, chunk, stream

Script = list[tuple[float, str]]
"""Pieces of text, each with the seconds before it."""


async def speak(script: Script, error: Exception | None = None) -> AsyncIterator[str]:
    for seconds, text in script:
        await anyio.sleep(seconds)
        yield text
    if error is not None:
        raise error


async def collect(items: AsyncIterable[Any], seen: list[Any]) -> None:
    async for item in items:
        seen.append(item)


def by_the_clock(main: Callable[[], Awaitable[None]]) -> None:
    """Run on trio, by a clock that jumps to the next time at which something happens."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def updates_of(
    script: Script, *, busy: float = 0.0, error: Exception | None = None, **options: Any
) -> list[tuple[float, Update]]:
    """The updates, each with its time, as one gets them who is busy for a while with each."""
    seen: list[tuple[float, Update]] = []

    async def main() -> None:
        start = trio.current_time()
        async for update in paced(speak(script, error), **options):
            seen.append((round(trio.current_time() - start, 6), update))
            await anyio.sleep(busy)

    by_the_clock(main)
    return seen


def shown(updates: list[tuple[float, Update]]) -> list[tuple[float, str, str, bool]]:
    return [(when, update.text, update.delta, update.final) for when, update in updates]


FAST: Script = [(0.0, "a"), *[(0.1, "b")] * 14, (0.1, "c")]
"""Ends after 1.5 seconds."""
ALL = "".join(text for _, text in FAST)


@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        # The first text at once, then one update an interval with all that came since, and the last one.
        (
            FAST,
            {"every": 1.05},
            [(0.0, "a", "a", False), (1.05, ALL[:11], "b" * 10, False), (2.1, ALL, "bbbbc", True)],
        ),
        # A slow platform gets as many as it takes, and never an old one.
        (
            FAST,
            {"every": 0.35, "busy": 0.775},
            [(0.0, "a", "a", False), (0.775, ALL[:8], "b" * 7, False), (1.55, ALL, "b" * 7 + "c", True)],
        ),
        # Whoever waits gets what comes when it comes, if the interval has passed.
        (
            [(0.5, "a"), (2.0, "b"), (3.0, "c")],
            {"every": 1.0},
            [(0.5, "a", "a", False), (2.5, "ab", "b", False), (5.5, "abc", "c", True)],
        ),
        # The end comes by itself where all was shown before.
        ([(0.0, "a"), (3.0, "")], {"every": 1.0}, [(0.0, "a", "a", False), (3.0, "a", "", True)]),
        ([(0.0, "a"), (0.25, "")], {"every": 1.0}, [(0.0, "a", "a", False), (1.0, "a", "", True)]),
        # White space is no message.
        ([(0.0, "\n"), (1.0, " a")], {"every": 1.0}, [(1.0, "\n a", "\n a", True)]),
        ([(0.0, "\n"), (1.0, " ")], {}, []),
        ([], {}, []),
        (
            [(0.5, "a"), (0.5, "b"), (0.5, "")],
            {"every": 0},
            [(0.5, "a", "a", False), (1.0, "ab", "b", False), (1.5, "ab", "", True)],
        ),
    ],
)
def test_when_updates_come_and_what_they_say(script: Script, options: dict[str, Any], expected: Any) -> None:
    assert shown(updates_of(script, **options)) == expected


def test_a_failure_is_raised_after_the_last_update() -> None:
    seen: list[Update] = []

    async def main() -> None:
        with pytest.raises(KeyError, match="lost"):
            await collect(paced(speak([(0.0, "a"), (0.1, "b")], KeyError("lost")), every=1.0), seen)
        assert trio.current_time() == 1.0

    by_the_clock(main)
    assert [(update.text, update.final) for update in seen] == [("a", False), ("ab", True)]


def test_a_refused_update_comes_again_with_what_came_since() -> None:
    seen: list[tuple[float, Update]] = []

    async def main() -> None:
        start = trio.current_time()
        updates = paced(speak([(0.0, "a"), *[(0.5, "b")] * 4]), every=0.6)
        refusals = {2: 1.5, 4: 0.25}
        async for update in updates:
            seen.append((round(trio.current_time() - start, 6), update))
            if len(seen) in refusals:
                updates.retry_after(refusals[len(seen)])

    by_the_clock(main)
    assert shown(seen) == [
        (0.0, "a", "a", False),
        (0.6, "ab", "b", False),
        (2.1, "abbbb", "bbbb", True),
    ]


def test_a_refused_last_update_comes_again_until_it_is_taken() -> None:
    seen: list[tuple[float, Update]] = []

    async def main() -> None:
        start = trio.current_time()
        async with paced(speak([(0.0, "a"), (0.1, "b")]), every=1.0) as updates:
            async for update in updates:
                seen.append((round(trio.current_time() - start, 6), update))
                if update.final and len(seen) < 4:
                    updates.retry_after(7)

    by_the_clock(main)
    final = [("ab", "b", True)] * 3
    assert shown(seen) == [
        (0.0, "a", "a", False),
        *[(at, *rest) for at, rest in zip((1.0, 8.0, 15.0), final, strict=True)],
    ]


def test_it_reads_on_while_the_caller_is_busy() -> None:
    ended: list[float] = []

    async def words() -> AsyncIterator[str]:
        for _ in range(10):
            yield "word "
            await anyio.sleep(0.1)
        ended.append(trio.current_time())

    async def main() -> None:
        start = trio.current_time()
        async for _ in paced(words(), every=0.1):
            await anyio.sleep(60)
            assert ended == [pytest.approx(start + 1.0)]

    by_the_clock(main)


WORDS = "The quick brown fox jumps over the lazy dog, and runs away. "


def test_parts_that_fit_grow_one_after_another() -> None:
    updates = [
        update for _, update in updates_of([(0.1, word + " ") for word in (WORDS * 9).split()], every=0.35, limit=100)
    ]
    parts: dict[int, str] = {}
    for update in updates:
        assert update.text
        assert len(update.text) <= 100
        assert update.part in (len(parts), len(parts) - 1)
        assert update.delta == update.text[len(update.text) - len(update.delta) :]
        parts[update.part] = update.text
    assert list(parts.values()) == split_message(WORDS * 9, 100)
    assert [update.final for update in updates] == [False] * (len(updates) - 1) + [True]


def test_what_comes_all_at_once_is_given_part_by_part() -> None:
    updates = updates_of([(0.0, WORDS * 4)], every=1.0, limit=70)
    assert [(when, update.part, update.final) for when, update in updates] == [
        (0.0, 0, False),
        (1.0, 1, False),
        (2.0, 2, False),
        (3.0, 3, True),
    ]
    assert {update.delta == update.text for _, update in updates} == {True}


def test_parts_are_measured_in_the_platforms_units() -> None:
    updates = updates_of([(0.0, "😀" * 10)], limit=8, measure=utf16_units)
    assert [update.text for _, update in updates] == ["😀" * 4, "😀" * 4, "😀" * 2]


def test_what_moves_to_the_next_part_is_taken_from_the_one_before() -> None:
    script = [(0.0, "First line\nsec"), (1.0, "ond line that is longer")]
    assert [(update.part, update.text, update.delta) for _, update in updates_of(script, limit=30)] == [
        (0, "First line\nsec", "First line\nsec"),
        (0, "First line", ""),
        (1, "second line that is longer", "second line that is longer"),
    ]


texts = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 2.0]), st.text(max_size=12)), max_size=12)


@given(texts, st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.4, 1.7]))
def test_whatever_the_pace_updates_add_up_to_the_text(script: Script, every: float, busy: float) -> None:
    updates = updates_of(script, every=every, busy=busy)
    text = "".join(piece for _, piece in script)
    if not text.strip():
        assert updates == []
        return
    assert updates[-1][1].text == text
    assert "".join(update.delta for _, update in updates) == text
    assert [update.final for _, update in updates] == [False] * (len(updates) - 1) + [True]
    times = [when for when, _ in updates]
    assert all(after - before >= every - 1e-6 for before, after in pairwise(times))


# ── heartbeat ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_heartbeat_comes_whenever_nothing_has_come_for_a_while() -> None:
    seen: list[tuple[float, object]] = []

    async def main() -> None:
        start = trio.current_time()
        async for item in heartbeat(speak([(2.5, "a"), (0.5, "b"), (1.0, "c"), (1.5, "d")]), every=1.0):
            seen.append((round(trio.current_time() - start, 6), item))

    by_the_clock(main)
    assert [item for item in seen if item[0] != 4.0] == [
        (1.0, HeartbeatEvent()),
        (2.0, HeartbeatEvent()),
        (2.5, "a"),
        (3.0, "b"),
        (5.0, HeartbeatEvent()),
        (5.5, "d"),
    ]
    assert (4.0, "c") in seen


def test_around_updates_it_takes_nothing_early() -> None:
    seen: list[tuple[float, object]] = []

    async def main() -> None:
        start = trio.current_time()
        updates = paced(speak([(0.0, "a"), *[(0.5, "b")] * 8]), every=1.0)
        async for item in heartbeat(updates, every=10.0):
            assert isinstance(item, Update)
            seen.append((round(trio.current_time() - start, 6), item.text))
            if len(seen) == 2:
                updates.retry_after(1.25)
            await anyio.sleep(1.3)

    by_the_clock(main)
    assert seen == [(0.0, "a"), (1.3, "abb"), (2.6, "abbbbb"), (3.9, "abbbbbbb"), (5.2, "abbbbbbbb")]


def test_while_the_caller_shows_a_marker_no_update_is_made() -> None:
    seen: list[tuple[float, str]] = []

    async def main() -> None:
        start = trio.current_time()
        updates = paced(speak([(0.0, "a"), (5.1, "b"), (0.2, "c"), (0.7, "d"), (0.4, "e")]), every=1.0)
        async for item in heartbeat(updates, every=5.0):
            shown = item.text if isinstance(item, Update) else "typing"
            seen.append((round(trio.current_time() - start, 6), shown))
            if shown == "typing":
                await anyio.sleep(0.5)

    by_the_clock(main)
    assert seen == [(0.0, "a"), (5.0, "typing"), (5.5, "abc"), (6.5, "abcde")]


def test_a_refusal_that_another_task_tells_of_ends_the_wait() -> None:
    seen: list[tuple[float, str]] = []

    async def main() -> None:
        start = trio.current_time()
        updates = paced(speak([(0.0, "a"), (100.0, "b")]), every=1.0)

        async def refuse() -> None:
            await anyio.sleep(2)
            updates.retry_after(3)
            await anyio.sleep(1)
            updates.retry_after(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refuse)
            async for update in updates:
                seen.append((round(trio.current_time() - start, 6), update.text))

    by_the_clock(main)
    assert seen == [(0.0, "a"), (4.0, "a"), (100.0, "ab")]


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sentences_come_as_soon_as_they_are_whole() -> None:
    seen: list[tuple[float, str]] = []
    script = [(0.0, "Dr. Smith "), (1.0, "is in. "), (1.0, "She "), (1.0, "waits"), (1.0, ". ")]

    async def main() -> None:
        start = trio.current_time()
        async for sentence in sentences(speak(script)):
            seen.append((round(trio.current_time() - start, 6), sentence))

    by_the_clock(main)
    assert seen == [(2.0, "Dr. Smith is in."), (4.0, "She waits.")]


def test_the_rest_of_a_failed_answer_comes_before_the_error() -> None:
    seen: list[str] = []

    async def main() -> None:
        with pytest.raises(KeyError):
            await collect(sentences(speak([(0.0, "One. Two. Thr")], KeyError())), seen)

    by_the_clock(main)
    assert seen == ["One.", "Two.", "Thr"]


# ── of a stream ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_of_a_stream_the_text_of_the_first_choice_is_shown(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hel"), chunk("other", index=1), chunk("lo", "stop"), DONE))
    source = client.chat_completion("Hi", n=2)
    texts = [update.text async for update in paced(source, every=0)]
    assert texts[-1] == "Hello"
    assert source.snapshot.text == "Hello"
    async for item in heartbeat(client.chat_completion("Hi")):
        assert isinstance(item, ChatCompletionChunkResponse)


async def test_of_an_answer_of_tool_calls_alone_there_is_nothing_to_show(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk(finish="tool_calls"), DONE))
    assert [update async for update in paced(client.chat_completion("Hi"))] == []
    assert [sentence async for sentence in sentences(client.chat_completion("Hi"))] == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda source: paced(source, every=-1),
        lambda source: paced(source, every=float("nan")),
        lambda source: paced(source, every="1"),
        lambda source: paced(source, every=None),
        lambda source: paced(source, every=float("inf")),
        lambda source: paced(source, limit=0),
        lambda source: heartbeat(source, every=0),
        lambda source: paced(source).retry_after(-1),
    ],
)
async def test_what_cannot_be_is_refused(wrong: Any, client: AsyncChatClient) -> None:
    with pytest.raises(ConfigurationError):
        wrong(client.chat_completion("Hi"))
