"""A chat page: answers grow in the browser as they arrive, and its Stop button stops the model as well.

Run it, with a local server of the service beside it, and open http://127.0.0.1:8080::

    python examples/web_chat

or against a real one, with CHATAPI_BASE_URL, CHATAPI_OPERATOR_ID and CHATAPI_TOKEN set.
"""

import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

from chatapi_async import AsyncChatClient, Message
from chatapi_async.emulator import serve
from chatapi_async.relay import SSE_HEADERS, relay_sse

HERE = Path(__file__).parent


class Said(BaseModel):
    role: Literal["user", "assistant"]  # a browser may not speak as the system, nor as a tool
    content: str


class Conversation(BaseModel):
    messages: list[Said]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with serve() as local:
        to_local = AsyncChatClient(local.base_url, operator_id="tn_local", token="any")
        async with AsyncChatClient() if "CHATAPI_BASE_URL" in os.environ else to_local as app.state.client:
            yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(HERE / "index.html")


@app.get("/chat.js")
async def script() -> FileResponse:
    return FileResponse(HERE / "chat.js")


@app.post("/chat")
async def chat(request: Request, conversation: Conversation) -> StreamingResponse:
    client: AsyncChatClient = request.app.state.client
    stream = client.chat_completion([Message(role=said.role, content=said.content) for said in conversation.messages])
    return StreamingResponse(relay_sse(stream), media_type="text/event-stream", headers=SSE_HEADERS)


if __name__ == "__main__":
    logging.basicConfig()  # what a person in front of the page is not told is logged
    uvicorn.run(app, port=int(os.environ.get("PORT", "8080")))
