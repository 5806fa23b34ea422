"""A Discord bot that answers whoever mentions it or writes to it alone, in a message that grows as the answer comes.

Make a bot in Discord's developer portal, and run it against a local server of the service that it starts itself, with
discord.py and chatapi-async[bots,emulator] installed::

    DISCORD_TOKEN=… python examples/discord_bot.py

or against a real one, with CHATAPI_BASE_URL, CHATAPI_OPERATOR_ID and CHATAPI_TOKEN set. "stop" ends an answer.
"""

import asyncio
import os
from collections import defaultdict, deque
from contextlib import AsyncExitStack, suppress
from typing import Any

import discord

from chatapi_async import AsyncChatClient, ChatStream, HeartbeatEvent, Message
from chatapi_async.emulator import serve
from chatapi_async.errors import APITimeoutError, ChatAPIError, RateLimitError, StreamError
from chatapi_async.pacing import DISCORD_LIMIT, heartbeat, paced

EXCUSES = {
    RateLimitError: "I am asked too much at the moment. Please ask again in a minute.",
    APITimeoutError: "The answer took too long, and I stopped waiting for it.",
    StreamError: "The answer broke off here. Please ask again.",
}
OTHER_EXCUSE = "I cannot answer at the moment. Please ask again later."


class Bot(discord.Client):
    def __init__(self, chat: AsyncChatClient, every: float = 1.5) -> None:  # Discord takes 5 edits in 5 seconds
        super().__init__(intents=discord.Intents.default(), allowed_mentions=discord.AllowedMentions.none())
        self.chat, self.every = chat, every
        self.histories: defaultdict[int, deque[Message]] = defaultdict(lambda: deque(maxlen=20))
        self.turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.streams: dict[int, ChatStream[Any]] = {}

    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot or not self.user or not (message.guild is None or self.user in message.mentions):
            return
        text = message.content.replace(self.user.mention, "").strip() or "Hello"
        if text.lower() != "stop":
            async with self.turns[message.channel.id]:
                await self.answer(Message.user(text), message.channel)
        elif stream := self.streams.get(message.channel.id):
            await stream.stop()

    async def answer(self, question: Message, channel: "discord.abc.MessageableChannel") -> None:
        stream = self.streams[channel.id] = self.chat.chat_completion([*self.histories[channel.id], question])
        parts: list[discord.Message] = []
        await channel.typing()  # shown for ten seconds, or until a message comes
        try:
            async for update in heartbeat(paced(stream, self.every, limit=DISCORD_LIMIT), every=8):
                if isinstance(update, HeartbeatEvent):
                    await channel.typing()
                elif update.part == len(parts):
                    parts.append(await channel.send(update.text))
                else:
                    await parts[update.part].edit(content=update.text)
        except ChatAPIError as error:
            await channel.send(next((text for kind, text in EXCUSES.items() if isinstance(error, kind)), OTHER_EXCUSE))
        if answer := stream.snapshot.message:
            self.histories[channel.id] += [question, answer]


async def main() -> None:
    discord.utils.setup_logging()
    async with AsyncExitStack() as stack:
        local = None if "CHATAPI_BASE_URL" in os.environ else await stack.enter_async_context(serve())
        chat = AsyncChatClient(local.base_url, operator_id="tn_local", token="any") if local else AsyncChatClient()
        bot = Bot(await stack.enter_async_context(chat))
        await (await stack.enter_async_context(bot)).start(os.environ["DISCORD_TOKEN"])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
