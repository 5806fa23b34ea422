"""A Telegram bot whose answers grow as they come, edited no faster than Telegram allows. /stop ends an answer.

Get a token from @BotFather, install aiogram, and run it against a local server of the service that it starts itself::

    TELEGRAM_TOKEN=… python examples/telegram_bot.py

or against a real one, with CHATAPI_BASE_URL, CHATAPI_OPERATOR_ID and CHATAPI_TOKEN set.
"""

import asyncio
import os
from collections import defaultdict, deque
from contextlib import AsyncExitStack
from typing import Any

from aiogram import Bot, Dispatcher, F, exceptions, filters, types
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer

from chatapi_async import AsyncChatClient, ChatStream, HeartbeatEvent, Message
from chatapi_async.emulator import serve
from chatapi_async.errors import ChatAPIError, RateLimitError, StreamError
from chatapi_async.pacing import TELEGRAM_LIMIT, heartbeat, paced, utf16_units

EVERY = {"private": 1.2, "group": 3.3, "supergroup": 3.3}  # Telegram takes one edit a second; in groups 20 a minute
EXCUSES: dict[type[ChatAPIError], str] = {
    RateLimitError: "I am asked too much at the moment. Please ask again in a minute.",
    StreamError: "The answer broke off here. Please ask again.",
    ChatAPIError: "I cannot answer at the moment. Please ask again later.",
}
dispatcher = Dispatcher()
histories: defaultdict[int, deque[Message]] = defaultdict(lambda: deque(maxlen=20))
turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
streams: dict[int, ChatStream[Any]] = {}


@dispatcher.message(filters.Command("stop"))
async def stop(message: types.Message) -> None:
    if stream := streams.get(message.chat.id):
        await stream.stop()


@dispatcher.message(F.text)
async def answer(message: types.Message, bot: Bot, client: AsyncChatClient) -> None:
    chat, every, question = message.chat.id, EVERY[message.chat.type], Message.user(message.text or "")
    async with turns[chat]:
        stream = streams[chat] = client.chat_completion([*histories[chat], question])
        updates = paced(stream, every, limit=TELEGRAM_LIMIT, measure=utf16_units)
        parts: list[Any] = []
        await bot.send_chat_action(chat, "typing")  # shown for five seconds, or until a message comes
        try:
            async for update in heartbeat(updates, every=4):
                try:
                    if isinstance(update, HeartbeatEvent):
                        await bot.send_chat_action(chat, "typing")
                    elif update.part == len(parts):
                        parts.append(await message.answer(update.text))
                    elif update.text.strip() != parts[-1].text:  # Telegram refuses an edit that changes nothing
                        parts[-1] = await parts[-1].edit_text(update.text)
                except exceptions.TelegramRetryAfter as error:
                    updates.retry_after(error.retry_after)
        except ChatAPIError as error:
            await asyncio.sleep(every)
            await message.answer(next(text for kind, text in EXCUSES.items() if isinstance(error, kind)))
        if text := stream.snapshot.text:
            histories[chat] += [question, Message.assistant(text)]


async def main() -> None:
    server = TelegramAPIServer.from_base(os.environ.get("TELEGRAM_API_SERVER", "https://api.telegram.org"))
    async with AsyncExitStack() as stack:
        local = None if "CHATAPI_BASE_URL" in os.environ else await stack.enter_async_context(serve())
        client = AsyncChatClient(local.base_url, operator_id="tn_local", token="any") if local else AsyncChatClient()
        bot = Bot(os.environ["TELEGRAM_TOKEN"], session=AiohttpSession(api=server))
        await dispatcher.start_polling(bot, client=await stack.enter_async_context(client))  # pyright: ignore[reportUnknownMemberType]


if __name__ == "__main__":
    asyncio.run(main())
