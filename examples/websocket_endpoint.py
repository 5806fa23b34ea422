"""Answers over a WebSocket; a browser that leaves, or says stop, ends the request to the model at once.

Prompts and ``{"type": "stop"}`` go in; ``content.delta`` events come out, then ``done``, ``stopped`` or ``error``. Run
it, with a local server of the service beside it (or a real one, with CHATAPI_* set), and type a prompt::

    python examples/websocket_endpoint.py
    python -m websockets ws://127.0.0.1:8080/chat
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from chatapi_async import AsyncChatClient, ChatAPIError
from chatapi_async.emulator import serve


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    async with serve() as local:
        to_local = AsyncChatClient(local.base_url, operator_id="tn_local", token="any")
        async with AsyncChatClient() if "CHATAPI_BASE_URL" in os.environ else to_local as app.state.client:
            yield


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    answering, turn = anyio.CancelScope(), anyio.Lock()
    async with anyio.create_task_group() as tasks:
        async for text in websocket.iter_text():  # until the browser leaves
            answering.cancel()
            if text.replace(" ", "") != '{"type":"stop"}':
                answering = anyio.CancelScope()
                tasks.start_soon(answer, websocket, text, answering, turn)
        tasks.cancel_scope.cancel()


async def answer(websocket: WebSocket, prompt: str, answering: anyio.CancelScope, turn: anyio.Lock) -> None:
    async with turn:
        with suppress(WebSocketDisconnect):  # chat() sees it too
            try:
                with answering:
                    async with websocket.app.state.client.chat_completion(prompt) as stream:
                        async for delta in stream.text_stream:
                            await websocket.send_json({"type": "content.delta", "delta": delta})
                await websocket.send_json({"type": "stopped" if answering.cancelled_caught else "done"})
            except ChatAPIError:
                await websocket.send_json({"type": "error", "message": "The assistant cannot answer now."})


app = Starlette(routes=[WebSocketRoute("/chat", chat)], lifespan=lifespan)
if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8080")))
