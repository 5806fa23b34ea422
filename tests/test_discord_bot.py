"""The Discord bot of the examples: the true discord.py, against a stand-in that enforces Discord's limits."""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import sys
import warnings
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from yarl import URL

from chatapi_async import AsyncChatClient, Message
from chatapi_async.emulator import Emulator, RunningEmulator, serve
from chatapi_async.pacing import heartbeat
from tests.platforms.discord import MENTION, PRIVATE, TOKEN, Discord
from tests.platforms.limits import RateLimit
from tests.raw_server import QUICK, RESET, AnyStep, RawServer, body, chunk, event, stream, wait_for

with warnings.catch_warnings():  # discord.py plays sound with it, where Python has it
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    import discord

pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).parent.parent / "examples" / "discord_bot.py"
ExampleBot = runpy.run_path(str(EXAMPLE))["Bot"]

WINDOW = 0.25
"""What five seconds of Discord are here; everything else is as much shorter."""
QUESTION = "Tell me about the rivers of Germany, and what they carry"

MakeBot = Callable[[AsyncChatClient, float], discord.Client]
"""What makes a bot of its service and the seconds between its edits."""


class NaiveBot(discord.Client):
    """Edits its message for each chunk, and waits until that is done; or does not even wait."""

    def __init__(self, chat: AsyncChatClient, *, waits: bool) -> None:
        super().__init__(intents=discord.Intents.default())
        self.chat = chat
        self.waits = waits

    async def on_message(self, message: discord.Message) -> None:
        if message.author == self.user:
            return
        text = ""
        shown: discord.Message | None = None
        edits: list[asyncio.Task[discord.Message]] = []
        async for piece in self.chat.chat_completion(message.content.replace(MENTION, "").strip()).text_stream:
            text += piece
            if shown is None:
                shown = await message.channel.send(text)
                continue
            edits.append(asyncio.create_task(shown.edit(content=text)))
            if self.waits:
                await edits[-1]
        await asyncio.gather(*edits, return_exceptions=True)


def naive_bot(chat: AsyncChatClient, _: float) -> discord.Client:
    return NaiveBot(chat, waits=True)


def hasty_bot(chat: AsyncChatClient, _: float) -> discord.Client:
    return NaiveBot(chat, waits=False)


@asynccontextmanager
async def logged_in(bot: discord.Client, platform: Discord) -> AsyncIterator[None]:
    """Let the bot log in, and log out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("discord.http.Route.BASE", platform.base_url)
        patch.setattr("discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY", URL(platform.gateway_url))
        async with bot:
            running = asyncio.create_task(bot.start(TOKEN))
            await wait_for(lambda: platform.online.is_set() or running.done(), "the bot to log in")
            yield
        await running


@asynccontextmanager
async def bot_of(
    service_url: str, make: MakeBot = ExampleBot, *, window: float = WINDOW, told: bool = True
) -> AsyncIterator[Discord]:
    """The platform that a bot is logged in to. Where it is not ``told`` of the limit, the headers tell of another."""
    announced = None if told else RateLimit(10, window)
    async with (
        AsyncChatClient(service_url, operator_id="tn_1", token="any", retries=QUICK) as chat,
        Discord(RateLimit(5, window), announced) as platform,
        logged_in(make(chat, 1.5 / 5 * window), platform),
    ):
        yield platform


@pytest.fixture
async def emulator() -> AsyncIterator[RunningEmulator]:
    async with serve(Emulator(tokens_per_second=100)) as running:
        yield running


@pytest.fixture
async def platform(emulator: RunningEmulator) -> AsyncIterator[Discord]:
    """The platform of a bot whose service is the local server."""
    async with bot_of(emulator.base_url) as platform:
        yield platform


@pytest.fixture
async def scripted(server: RawServer) -> AsyncIterator[Discord]:
    """The platform of a bot whose service answers what the test says."""
    async with bot_of(server.url) as platform:
        yield platform


async def answer_to(*questions: str) -> str:
    """What the local server answers to the last of these questions in one conversation."""
    conversation: list[Message] = []
    async with (
        serve(Emulator(tokens_per_second=None)) as running,
        AsyncChatClient(running.base_url, operator_id="tn_1", token="any") as chat,
    ):
        for question in questions:
            conversation.append(Message.user(question))
            conversation.append(await chat.chat_completion(conversation).get_final_message())
    return conversation[-1].text


# ── the bot ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_runs_by_the_command_in_its_docstring() -> None:
    async with Discord() as platform:
        launch = f"""
import runpy, discord, yarl
discord.http.Route.BASE = {platform.base_url!r}
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL({platform.gateway_url!r})
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""
        environment = {**os.environ, "DISCORD_TOKEN": TOKEN}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", launch, env=environment, stderr=PIPE)
        try:
            await asyncio.wait_for(platform.online.wait(), 30)
            await platform.say("Hello", PRIVATE)
            expected = [await answer_to("Hello")]
            await wait_for(lambda: platform.texts(PRIVATE) == expected, "the answer")
        finally:
            process.send_signal(signal.SIGINT)
            _, printed = await process.communicate()
    assert b"Traceback" not in printed, printed.decode()
    assert process.returncode == 0


async def test_an_answer_grows_in_one_message_after_typing_is_shown(platform: Discord) -> None:
    await platform.say(f"{MENTION} {QUESTION}", "1")
    expected = await answer_to(QUESTION)
    await wait_for(lambda: platform.texts("1") == [expected], "the answer")
    states = platform.shown("1")[0].states
    assert len(states) > 3
    assert all(later.startswith(earlier) and later != earlier for earlier, later in pairwise(states))
    assert [call.kind for call in platform.calls] == ["typing", "send", *["edit"] * (len(states) - 1)]


async def test_it_answers_those_who_mention_it_or_write_to_it_alone(platform: Discord) -> None:
    await platform.say("Hello, everyone but the bot", "1")
    await platform.say(f"{MENTION} Hello", "2")
    await platform.say("Hello", PRIVATE)
    expected = [await answer_to("Hello")]
    await wait_for(lambda: platform.texts("2") == platform.texts(PRIVATE) == expected, "both answers")
    await platform.say("What did I say?", PRIVATE)
    expected.append(await answer_to("Hello", "What did I say?"))
    await wait_for(
        lambda: platform.texts(PRIVATE) == expected, "an answer to the next question, and to none of its own"
    )
    assert platform.texts("1") == []


async def test_two_channels_are_answered_at_once_and_remembered_apart(platform: Discord) -> None:
    said, question = {"1": "My name is Ada", "2": "My name is Grace"}, "What did I say?"
    answers = {channel: [await answer_to(text), await answer_to(text, question)] for channel, text in said.items()}
    for channel, text in said.items():
        await platform.say(f"{MENTION} {text}", channel)
        await platform.say(f"{MENTION} {question}", channel)
    await wait_for(lambda: {channel: platform.texts(channel) for channel in said} == answers, "all answers")
    calls = [(call.channel, call.kind) for call in platform.calls]
    assert calls.index(("2", "send")) < calls.index(("1", "edit")), "one began before the other went on"
    assert platform.count(429) == 0


async def test_stop_ends_the_answer_and_keeps_what_came(platform: Discord, emulator: RunningEmulator) -> None:
    await platform.say(f"{MENTION} {QUESTION}", "1")
    await wait_for(lambda: bool(platform.texts("1")), "the first text")
    await platform.say(f"{MENTION} stop", "1")
    await wait_for(lambda: emulator.emulator.open_streams == 0, "the end of the answer")
    await platform.say(f"{MENTION} What did I say?", "1")
    recalled = await answer_to(QUESTION, "What did I say?")
    await wait_for(lambda: platform.texts("1")[1:] == [recalled], "the next answer")
    kept, whole = platform.texts("1")[0], await answer_to(QUESTION)
    assert whole.startswith(kept)
    assert kept != whole


async def test_a_message_that_is_deleted_ends_its_answer(platform: Discord, emulator: RunningEmulator) -> None:
    await platform.say(f"{MENTION} {QUESTION}", "1")
    await wait_for(lambda: bool(platform.texts("1")), "the first text")
    platform.delete(platform.shown("1")[0])
    await wait_for(lambda: platform.count(404) == 1, "an edit of what is gone")
    await wait_for(lambda: emulator.emulator.open_streams == 0, "the end of the stream")
    await platform.say(f"{MENTION} Hello", "1")
    expected = [await answer_to("Hello")]
    await wait_for(lambda: platform.texts("1") == expected, "the next answer")


async def test_a_long_answer_becomes_messages_that_each_fit_with_code_in_fences_of_its_own(
    server: RawServer, scripted: Discord
) -> None:
    lines = [f"    total += rivers[{number}].length  # the next river" for number in range(90)]
    answer = "\n".join(["Here it is:", "", "```python", *lines, "```", "", "That was all."])
    pieces = [answer[start : start + 40] for start in range(0, len(answer), 40)]
    server.answer(*stream(*(chunk(piece) for piece in pieces), chunk(finish="stop")))
    await scripted.say(f"{MENTION} Add them up", "1")
    await wait_for(lambda: scripted.texts("1")[-1:] != [] and "That was all." in scripted.texts("1")[-1], "the end")
    texts = scripted.texts("1")
    assert len(texts) == 3
    assert all(len(text) <= 2000 and text.count("```") == 2 for text in texts)
    assert [line for text in texts for line in text.split("\n") if line in lines] == lines
    assert {call.status for call in scripted.calls} == {200, 204}


@pytest.mark.parametrize(
    ("response", "kept", "excuse"),
    [
        (stream(chunk("The Elbe rises"), RESET), ["The Elbe rises"], "broke off"),
        (stream(chunk("The Elbe rises"), event({"message": "secret"}, "error")), ["The Elbe rises"], "broke off"),
        (body('{"message": "secret"}', 429), [], "too much"),
        (body('{"message": "secret"}', 500), [], "cannot answer"),
    ],
)
async def test_a_failure_keeps_what_came_and_is_told_in_a_sentence(
    server: RawServer, scripted: Discord, response: tuple[AnyStep, ...], kept: list[str], excuse: str
) -> None:
    server.answer(*response)
    await scripted.say(f"{MENTION} Where does the Elbe begin?", "1")
    await wait_for(lambda: len(scripted.texts("1")) > len(kept), "the sentence")
    *before, said = scripted.texts("1")
    assert before == kept
    assert excuse in said
    assert "secret" not in said


async def test_typing_is_shown_again_while_no_text_comes(
    server: RawServer, scripted: Discord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ExampleBot.answer.__globals__, "heartbeat", lambda items, every: heartbeat(items, every / 100))
    first_text = server.gate()
    server.answer(*stream(first_text, chunk("At last"), chunk(finish="stop")))
    await scripted.say(f"{MENTION} Think about it", "1")
    await wait_for(lambda: len(scripted.calls) >= 3, "typing to be shown again")
    assert {call.kind for call in scripted.calls} == {"typing"}
    first_text.open()
    await wait_for(lambda: scripted.texts("1") == ["At last"], "the answer")


async def test_an_answer_notifies_nobody(server: RawServer, scripted: Discord) -> None:
    server.answer(*stream(chunk("@everyone "), chunk("look"), chunk(finish="stop")))
    await scripted.say(f"{MENTION} Call them", "1")
    await wait_for(lambda: scripted.texts("1") == ["@everyone look"], "the answer")
    assert not scripted.shown("1")[0].notified_everyone


# ── what pacing is for ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Run:
    """One answer, as the platform saw it. Times are seconds since the question."""

    calls: list[tuple[float, str, int, int]]
    """Of each request its time, its kind, its status, and the length of the text."""
    stream_ended: float
    shown_then: int
    """How many characters were shown when the stream ended."""
    shown_last: int

    @property
    def refused(self) -> int:
        return sum(status == 429 for _, _, status, _ in self.calls)

    @property
    def lag(self) -> float:
        """How long after the end of the stream the shown text still changed."""
        return max(time for time, _, status, _ in self.calls if status == 200) - self.stream_ended


async def run_of(make: MakeBot, *, told: bool, window: float) -> Run:
    """Ask a bot a question, and watch what it does until nothing changes any more."""
    async with (
        serve(Emulator(tokens_per_second=30 / window)) as service,
        bot_of(service.base_url, make, window=window, told=told) as platform,
    ):
        asked = platform.now()
        await platform.say(f"{MENTION} {QUESTION}", "1")
        await wait_for(lambda: service.emulator.open_streams > 0, "the answer to begin")
        await wait_for(lambda: service.emulator.open_streams == 0, "the stream to end")
        ended, shown = platform.now() - asked, len(platform.texts("1")[-1])
        while platform.now() - platform.calls[-1].time < 2 * window:  # noqa: ASYNC110 - nothing tells of silence
            await asyncio.sleep(window / 10)
        calls = [(call.time - asked, call.kind, call.status, len(call.content)) for call in platform.calls]
        return Run(calls, ended, shown, len(platform.texts("1")[-1]))


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
async def test_paced_is_never_refused_and_shows_the_end_as_it_comes(told: bool) -> None:
    run = await run_of(ExampleBot, told=told, window=0.3)
    assert run.refused == 0
    assert run.lag < 1.0
    assert run.shown_last == len(await answer_to(QUESTION))


async def test_an_edit_for_each_chunk_lags_behind_for_longer_than_the_answer_took_if_the_limit_is_told() -> None:
    run = await run_of(naive_bot, told=True, window=0.15)
    assert run.refused == 0
    assert run.lag > run.stream_ended
    assert run.shown_then < run.shown_last / 2


async def test_an_edit_for_each_chunk_is_refused_many_times_if_the_limit_is_not_told() -> None:
    run = await run_of(hasty_bot, told=False, window=0.15)
    assert run.refused > 20
