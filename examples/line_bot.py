"""A LINE bot. It cannot edit its messages, so it answers with the first sentence at once, and then with the next few.

Let the webhook of a Messaging API channel lead to /callback on port 8080 here, install line-bot-sdk, and run::

    LINE_CHANNEL_SECRET=… LINE_CHANNEL_ACCESS_TOKEN=… python examples/line_bot.py

It starts a local server of the service, unless CHATAPI_BASE_URL, CHATAPI_OPERATOR_ID and CHATAPI_TOKEN name a real one.
"""

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress

import uvicorn
from fastapi import BackgroundTasks, FastAPI, Header, HTTPException, Request
from linebot.v3 import WebhookParser, exceptions, messaging, webhooks

from chatapi_async import AsyncChatClient, ChatAPIError, HeartbeatEvent, Message, RateLimitError
from chatapi_async.emulator import serve
from chatapi_async.pacing import LINE_LIMIT, heartbeat, paced, sentences, split_message, utf16_units

EVERY = 5.0  # seconds between messages: the first one, the reply, is free, and the others are counted
histories: defaultdict[str, deque[Message]] = defaultdict(lambda: deque(maxlen=20))
turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)


async def answer(event: webhooks.MessageEvent, chat: AsyncChatClient, line: messaging.AsyncMessagingApi) -> None:
    user, token, question = event.source.user_id, event.reply_token, Message.user(event.message.text)
    async with turns[user]:
        stream = chat.chat_completion([*histories[user], question])
        lines = (f"{sentence}\n" async for sentence in sentences(stream))
        loading = messaging.ShowLoadingAnimationRequest(chatId=user, loadingSeconds=10)
        await line.show_loading_animation(loading)
        try:
            async for update in heartbeat(paced(lines, EVERY), every=8):
                if isinstance(update, HeartbeatEvent):
                    await line.show_loading_animation(loading)
                else:
                    await send(line, user, token, update.delta)
                    token = ""
        except ChatAPIError as error:
            what = "I am asked too much" if isinstance(error, RateLimitError) else "My answer broke off"
            await send(line, user, token, f"{what}. Please ask again in a minute.")
        if text := stream.snapshot.text:
            histories[user] += [question, Message.assistant(text)]


async def send(line: messaging.AsyncMessagingApi, user: str, token: str, text: str) -> None:
    parts = split_message(text.strip(), LINE_LIMIT, measure=utf16_units)
    for first in range(0, len(parts), 5):
        messages = [messaging.TextMessage(text=part) for part in parts[first : first + 5]]
        if token and not first:
            with suppress(messaging.ApiException):  # a reply token is good for about a minute
                await line.reply_message(messaging.ReplyMessageRequest(replyToken=token, messages=messages))
                continue
        await line.push_message(messaging.PushMessageRequest(to=user, messages=messages))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
    host, token = os.environ.get("LINE_API_SERVER"), os.environ["LINE_CHANNEL_ACCESS_TOKEN"]
    async with nullcontext() if "CHATAPI_BASE_URL" in os.environ else serve() as local:
        chat = AsyncChatClient(local.base_url, operator_id="tn_local", token="any") if local else AsyncChatClient()
        async with chat, messaging.AsyncApiClient(messaging.Configuration(host, access_token=token)) as line:
            yield {"chat": chat, "line": messaging.AsyncMessagingApi(line)}


app = FastAPI(lifespan=lifespan)


@app.post("/callback")
async def callback(request: Request, background: BackgroundTasks, x_line_signature: str = Header()) -> None:
    try:
        parser = WebhookParser(os.environ["LINE_CHANNEL_SECRET"])
        events = parser.parse((await request.body()).decode(), x_line_signature)
    except exceptions.InvalidSignatureError:
        raise HTTPException(400, "this is not from LINE") from None
    for event in events:
        if isinstance(getattr(event, "message", None), webhooks.TextMessageContent) and event.source.type == "user":
            answering = asyncio.create_task(answer(event, request.state.chat, request.state.line))
            background.add_task(asyncio.wait_for, answering, None)  # LINE wants its 200 at once


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8080")), timeout_graceful_shutdown=10)
