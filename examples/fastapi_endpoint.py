"""A web endpoint that streams an answer to its own client, for whichever operator asks.

Run it, with a local server of the service beside it::

    python examples/fastapi_endpoint.py
    curl -N "http://127.0.0.1:8080/answer?prompt=Why+is+the+sky+blue"
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from chatapi_async import APIStatusError, AsyncChatClient, ChatAPIError
from chatapi_async.emulator import serve


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with serve() as server, AsyncChatClient(server.base_url, token="any") as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(ChatAPIError)
async def failed(_: Request, error: ChatAPIError) -> PlainTextResponse:
    busy = isinstance(error, APIStatusError) and error.status_code == 429
    return PlainTextResponse("The assistant cannot answer now.", status_code=503 if busy else 502)


@app.get("/answer")
async def answer(
    request: Request, prompt: str, model: str | None = None, operator: Annotated[str, Header()] = "tn_local"
) -> StreamingResponse:
    client: AsyncChatClient = request.app.state.client
    # Awaited here, so that a refused request becomes an HTTP error before any of the answer is sent.
    stream = await client.chat_completion(prompt, operator_id=operator, model=model)

    async def text() -> AsyncIterator[str]:
        async with stream:  # a client that hangs up ends the upstream request too
            async for piece in stream.text_stream:
                yield piece

    return StreamingResponse(text(), media_type="text/plain; charset=utf-8")


if __name__ == "__main__":
    uvicorn.run(app, port=8080)
