"""The Telegram bot of the examples, with aiogram as it is, against a stand-in of Telegram on loopback."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import TelegramRetryAfter
from aiogram.types import Message

from chatapi_async import AsyncChatClient
from chatapi_async.emulator import Emulator, serve
from chatapi_async.pacing import heartbeat
from tests.platforms.telegram import TOKEN, Telegram
from tests.raw_server import HOLD, RESET, RawServer, body, chunk, stream

pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).parent.parent / "examples" / "telegram_bot.py"
SECOND = 0.2
"""How long Telegram's second is here; the bot's intervals shrink with it."""
QUESTION = "Tell me about rivers"

Sample = tuple[float, str, int, int]
"""Of one call of a bot: when, which, the answer's status, the text's length."""


def example(second: float = SECOND) -> ModuleType:
    """Load the bot anew, its seconds as long as the stand-in's."""
    spec = importlib.util.spec_from_file_location("telegram_bot", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for kind in module.EVERY:
        module.EVERY[kind] *= second
    module.heartbeat = lambda source, every: heartbeat(source, every * second)
    return module


@asynccontextmanager
async def running(bot: ModuleType, telegram: Telegram, upstream: str) -> AsyncGenerator[None, None]:
    """Run the bot's ``main`` in this event loop, until it has stopped as on Ctrl-C."""
    given = {"TELEGRAM_TOKEN": TOKEN, "TELEGRAM_API_SERVER": telegram.url, "CHATAPI_BASE_URL": upstream}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (given | {"CHATAPI_OPERATOR_ID": "tn_1", "CHATAPI_TOKEN": "t0ken"}).items():
            patch.setenv(name, value)
        main = asyncio.create_task(bot.main())
        await telegram.until(lambda: bool(telegram.calls))
        try:
            yield
            for turn in list(bot.turns.values()):
                await turn.acquire()
        finally:
            await bot.dispatcher.stop_polling()
            await main


@asynccontextmanager
async def running_naive(telegram: Telegram, upstream: str) -> AsyncGenerator[None, None]:
    """Run a bot as it is often written: it edits for each piece of the answer, and goes on if that is refused."""
    dispatcher = Dispatcher()

    @dispatcher.message()
    async def answer(message: Message, client: AsyncChatClient) -> None:
        text, shown, sent = "", "", None
        async for piece in client.chat_completion(message.text or "").text_stream:
            text += piece
            with suppress(TelegramRetryAfter):
                if sent is None:
                    sent = await message.answer(text)
                elif text.strip() != shown:
                    await sent.edit_text(text)
                shown = text.strip()
        while sent is not None and text.strip() != shown:  # at least its end is to be seen
            try:
                await sent.edit_text(text)
                shown = text.strip()
            except TelegramRetryAfter as error:
                await asyncio.sleep(error.retry_after)

    session = AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))
    async with AsyncChatClient(upstream, operator_id="tn_1", token="t0ken") as client:
        polling = asyncio.create_task(
            dispatcher.start_polling(Bot(TOKEN, session=session), client=client, handle_signals=False)
        )
        await telegram.until(lambda: bool(telegram.calls))
        try:
            yield
        finally:
            await dispatcher.stop_polling()
            await polling


async def calls_of(
    bot: str, *, chats: tuple[int, ...] = (1,), second: float = SECOND, tokens_per_second: float = 40.0
) -> tuple[list[Sample], float]:
    """Ask a bot, ``"paced"`` or ``"naive"``, in some chats at once: its calls, and how long after the end of the last
    answer's stream all of it was shown."""
    emulator = Emulator(tokens_per_second=tokens_per_second)
    async with Telegram(second=second).running() as telegram, serve(emulator) as upstream:
        whole = await answer_to(QUESTION)
        start: dict[str, Callable[[], AbstractAsyncContextManager[None]]] = {
            "paced": lambda: running(example(second), telegram, upstream.base_url),
            "naive": lambda: running_naive(telegram, upstream.base_url),
        }
        async with start[bot]():
            begin = telegram.now()
            for chat in chats:
                await telegram.say(QUESTION, chat)
            ended = asyncio.create_task(end_of_streams(emulator, telegram, len(chats)))
            await telegram.until(lambda: all(telegram.texts(chat) == [whole] for chat in chats))
            late = telegram.now() - await ended
        calls = [call for call in telegram.calls if call.time > begin and call.kind != "getUpdates"]
        return [(call.time - begin, call.kind, call.status, len(call.text)) for call in calls], late


async def end_of_streams(emulator: Emulator, telegram: Telegram, streams: int) -> float:
    while len(emulator.requests) < streams or emulator.open_streams:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.002)
    return telegram.now()


async def answer_to(question: str) -> str:
    """What the local server of the service answers: the same each time."""
    async with (
        serve(Emulator(tokens_per_second=None)) as server,
        AsyncChatClient(server.base_url, operator_id="tn_1", token="t0ken") as client,
    ):
        return await client.chat_completion(question).get_final_text()


def statuses(samples: list[Sample]) -> dict[int, int]:
    found = [status for _, kind, status, _ in samples if kind != "sendChatAction"]
    return {status: found.count(status) for status in set(found)}


@pytest.fixture
async def telegram() -> AsyncGenerator[Telegram, None]:
    async with Telegram(second=SECOND).running() as telegram:
        yield telegram


@pytest.fixture
async def bot(telegram: Telegram, server: RawServer) -> AsyncGenerator[ModuleType, None]:
    module = example()
    async with running(module, telegram, server.url):
        yield module


async def test_run_as_its_docstring_says_it_answers_and_ends_on_a_signal() -> None:
    async with Telegram().running() as telegram:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CHATAPI_")}
        environment |= {"TELEGRAM_TOKEN": TOKEN, "TELEGRAM_API_SERVER": telegram.url}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLE), env=environment, stderr=subprocess.PIPE
        )
        try:
            await telegram.say(QUESTION)
            whole = await answer_to(QUESTION)
            await telegram.until(lambda: telegram.texts() == [whole])
        finally:
            process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "Received SIGTERM signal\n")
    assert [call.kind for call in telegram.calls if call.chat][:2] == ["sendChatAction", "sendMessage"]
    assert [call for call in telegram.calls if call.status != 200] == []
    assert len(telegram.messages.popitem()[1].states) > 1


async def test_paced_answers_in_several_chats_at_once_are_never_refused() -> None:
    samples, late = await calls_of("paced", chats=(1, 2, -3))
    assert statuses(samples).keys() == {200}
    assert len(samples) > 3 * 4
    assert late < 3.3 * SECOND + 1.0


async def test_a_paced_answer_that_takes_half_a_minute_in_a_group_is_never_refused() -> None:
    samples, _ = await calls_of("paced", chats=(-1,), second=0.05)
    assert statuses(samples).keys() == {200}


async def test_a_bot_that_edits_for_each_piece_is_refused_again_and_again() -> None:
    samples, _ = await calls_of("naive")
    assert statuses(samples)[429] > statuses(samples)[200]


async def test_what_is_refused_all_the_same_is_shown_later_and_nothing_is_lost(telegram: Telegram) -> None:
    async with serve(Emulator()) as upstream, running(example(), telegram, upstream.base_url):
        telegram.refuse_next(retry_after=1, chat=1)
        for chat in (1, 2):
            await telegram.say(QUESTION, chat)
        await telegram.until(lambda: len(telegram.texts(2)) == 1)
        telegram.refuse_next(retry_after=1, chat=2)
        whole = await answer_to(QUESTION)
        await telegram.until(lambda: telegram.texts(1) == telegram.texts(2) == [whole])
    refused = [call for call in telegram.calls if call.status == 429]
    assert [(call.kind, call.chat) for call in refused] == [("sendMessage", 1), ("editMessageText", 2)]
    for call in refused:
        later = [again for again in telegram.calls if again.time > call.time and again.chat == call.chat]
        following = next(again for again in later if again.kind != "sendChatAction")
        assert following.time - call.time >= 1.0


async def test_a_long_answer_becomes_messages_that_each_fit(
    bot: ModuleType, telegram: Telegram, server: RawServer
) -> None:
    pieces = [f"{number} 🏞️ rivers run to the sea 👩‍👩‍👧. " for number in range(300)]
    server.answer(*stream(*map(chunk, pieces), chunk(finish="stop")))
    await telegram.say(QUESTION)
    await telegram.until(lambda: "".join("".join(telegram.texts()).split()) == "".join("".join(pieces).split()))
    assert len(telegram.texts()) == 3
    assert {call.status for call in telegram.calls} == {200}


async def test_a_failure_keeps_what_came_and_says_so(bot: ModuleType, telegram: Telegram, server: RawServer) -> None:
    server.answer(*stream(chunk("The Elbe rises in the"), RESET))
    server.answer(*body('{"message": "slow down"}', 429, retry_after="3600"))
    server.answer(*body('{"message": "no route to db-7"}', 500))
    for chat, shown in enumerate(
        [
            ["The Elbe rises in the", "The answer broke off here. Please ask again."],
            ["I am asked too much at the moment. Please ask again in a minute."],
            ["I cannot answer at the moment. Please ask again later."],
        ],
        start=1,
    ):
        await telegram.say(QUESTION, chat)
        await telegram.until(lambda chat=chat, shown=shown: telegram.texts(chat) == shown)
    assert {call.status for call in telegram.calls} == {200}


async def test_stop_ends_the_answer_and_the_conversation_goes_on(
    bot: ModuleType, telegram: Telegram, server: RawServer
) -> None:
    server.answer(*stream(chunk("One, two"), HOLD))
    server.answer(*stream(chunk("Four."), chunk(finish="stop")))
    await telegram.say("Count")
    await telegram.until(lambda: telegram.texts() == ["One, two"])
    await telegram.say("/stop")
    await server.hung_up()
    await telegram.say("Go on")
    await telegram.until(lambda: telegram.texts() == ["One, two", "Four."])
    assert [message["content"] for message in server.requests[1].json["messages"]] == ["Count", "One, two", "Go on"]


async def test_a_chat_remembers_its_last_ten_turns(server: RawServer) -> None:
    server.answer(*stream(chunk("Yes."), chunk(finish="stop")))
    async with Telegram(second=0.001).running() as telegram, running(example(0.001), telegram, server.url):
        for number in range(12):
            await telegram.say(f"Question {number}")
            await telegram.until(lambda number=number: len(telegram.texts()) == number + 1)
    assert len(server.requests[-1].json["messages"]) == 21
    assert server.requests[-1].json["messages"][0]["content"] == "Question 1"


async def test_typing_is_shown_until_something_is_said_and_white_space_is_no_edit(
    bot: ModuleType, telegram: Telegram, server: RawServer
) -> None:
    gate, last = server.gate(), server.gate()
    server.answer(*stream(gate, chunk("\n\nWell."), last, chunk("\n"), chunk(finish="stop")))
    await telegram.say(QUESTION)
    await telegram.until(lambda: len([call for call in telegram.calls if call.kind == "sendChatAction"]) == 2)
    gate.open()
    await telegram.until(lambda: telegram.texts() == ["Well."])
    last.open()
    async with bot.turns[1]:
        pass
    assert [call.status for call in telegram.calls if call.text] == [200]
