"""Asks the upstream, and passes its answer on as it comes.

Each request has a client of httpx, and so a connection, of its own: no pool makes streams wait for one another, nothing
outlives the answer, and no event loop, server or lifespan has to close anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import cache
from ssl import SSLContext, SSLError

import anyio
import anyio.lowlevel
import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chatapi_async.types import ChatCompletionRequest, Message

from . import _translation as translation
from ._asgi import TRANSPORT, break_connection, while_connected
from ._merging import AnswerMerger, message_of
from ._refusals import RefusedError, refused
from ._upstream import Upstream

_CONNECT_SECONDS = 5.0
# A model may be loaded for minutes before its first token, but a list of models is at hand, and so is an error's body.
_LIST_SECONDS, _SHORT_SECONDS = 10.0, 5.0
_DESCRIBE_SECONDS = 3.0
_LONGEST_ERROR, _LONGEST_LIST = 64 * 1024, 16 * 1024 * 1024
# httpx has no error of its own for a TLS record that cannot be decrypted.
_BREAKS = (httpx.HTTPError, SSLError)
_EVENT_STREAM, _JSON = "text/event-stream", "application/json"
_READABLE = ("", "identity", "gzip", "deflate")
_HEADERS = {"accept-encoding": "identity", "content-type": _JSON}


class RelayedResponse(Response):
    """The upstream's answer to a request.

    Args:
        upstream: who is asked.
        request: what it is asked.
        history: what was said before.
        store: called with the message, once the answer ended well; None where nothing is kept.
        while_open: entered until the client has it all, or has hung up.
    """

    def __init__(
        self,
        upstream: Upstream,
        request: ChatCompletionRequest,
        history: Sequence[Message],
        *,
        store: Callable[[Message], None] | None,
        while_open: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self._upstream = upstream
        self._request = request
        self._history = tuple(history)
        self._store = store
        self._while_open = while_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask, and pass the answer on: the interface of ASGI."""

        async def relay() -> None:
            try:
                answer = await self._relay(scope, send)
            except RefusedError as error:
                answer = refused(error)
            if answer is not None:
                await answer(scope, receive, send)

        with self._while_open():
            await while_connected(receive, relay)

    async def _relay(self, scope: Scope, send: Send) -> Response | None:
        """Return the answer, None where it was a stream, which has been sent.

        Raises:
            RefusedError: there is none.
        """
        model = translation.named_model(self._request, self._upstream)
        if model is None:
            model = next(iter(await models_of(self._upstream)), None)
        if model is None:
            raise translation.no_model(self._upstream)
        content = translation.request_body(self._request, self._history, model)
        async with _asked(self._upstream, "POST", "/chat/completions", content=content) as response:
            if response.is_success:
                kind = self._upstream.concealed(response.headers.get("content-type", ""))
                kind = kind.partition(";")[0].strip().lower()
                if response.headers.get("content-encoding", "").strip().lower() not in _READABLE:
                    kind = f"{kind} compressed by {response.headers['content-encoding']}"
                if kind == _EVENT_STREAM:
                    await self._send_stream(response, scope, send)
                    return None
                return await self._whole(response, kind)
            answered = await _answered(response)
        if answered.status != 404:
            raise translation.refusal(self._upstream, answered)
        try:
            models = await models_of(self._upstream)
        except RefusedError:
            models = None
        raise translation.not_found(self._upstream, model, models, answered)

    async def _whole(self, response: httpx.Response, kind: str) -> Response:
        if kind != _JSON:
            raise translation.odd(self._upstream, kind or "no Content-Type", (await _answered(response)).body)
        try:
            body = await response.aread()
        except _BREAKS as error:
            raise translation.lost(self._upstream, _detail(error)) from error
        if not translation.is_json(body):
            raise translation.odd(self._upstream, "what is no JSON", body)
        concealment = self._upstream.concealment()
        body = concealment.feed(body) + concealment.close()
        if self._store is not None:
            self._keep(message_of(body))
        return Response(body, media_type=_JSON)

    async def _send_stream(self, response: httpx.Response, scope: Scope, send: Send) -> None:
        kind = self._upstream.concealed(response.headers["content-type"]).encode(response.headers.encoding)
        headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        merger = None if self._store is None else AnswerMerger(self._request.n or 1)
        concealment = self._upstream.concealment()
        try:
            async for piece in response.aiter_bytes():
                await self._pass_on(concealment.feed(piece), merger, send)
        except _BREAKS:
            if TRANSPORT not in scope.get("state", {}):
                raise  # the server closes the connection for it
            await break_connection(scope, reset=False)
        await self._pass_on(concealment.close(), merger, send)
        if merger is not None:
            self._keep(merger.close())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass_on(self, data: bytes, merger: AnswerMerger | None, send: Send) -> None:
        if merger is not None:
            self._keep(merger.feed(data))  # before the client sees the end
        await send({"type": "http.response.body", "body": data, "more_body": True})
        await anyio.lowlevel.checkpoint()  # of many pieces that came at once, too, none is sent after a hang-up

    def _keep(self, message: Message | None) -> None:
        if self._store is not None and message is not None:
            self._store(message)


async def models_of(upstream: Upstream) -> list[str]:
    """Return the models that the upstream has.

    Raises:
        RefusedError: it does not say.
    """
    async with _asked(upstream, "GET", "/models", silence=_LIST_SECONDS) as response:
        answered = await _answered(response, _LONGEST_LIST)
    if answered.status == 404:
        raise translation.wrong_address(upstream, "GET /models", answered)
    if answered.status != 200:
        raise translation.refusal(upstream, answered)
    models = translation.model_names(upstream, answered.body)
    if models is None:
        raise translation.odd(upstream, "what is no list of models", answered.body)
    return models


async def describe(upstream: Upstream) -> str:
    """Return in words whether the upstream answers, and which models it has."""
    with anyio.move_on_after(_DESCRIBE_SECONDS):
        try:
            models = await models_of(upstream)
        except RefusedError as error:
            return str(error)
        has, wanted = translation.some(models), upstream.model
        if wanted is not None:
            return f"model {wanted}" + ("" if wanted in models else f", which is none of its: {has}")
        return f"models {has}" if models else "it has no models"
    return f"no answer within {_DESCRIBE_SECONDS:g} s; it may come to life later"


@asynccontextmanager
async def _asked(
    upstream: Upstream, method: str, path: str, *, content: bytes | None = None, silence: float | None = None
) -> AsyncGenerator[httpx.Response, None]:
    """Send a request, and give its response once the headers have come; the connection is closed at the end.

    Args:
        upstream: who is asked.
        method: of HTTP.
        path: of the operation.
        content: the body.
        silence: seconds for which it may send nothing; None, the default, for any time.

    Raises:
        RefusedError: no connection, or it ended before the headers came.
    """
    # A transport that is given takes no proxy from the environment.
    transport = httpx.AsyncHTTPTransport(verify=_ssl_context()) if upstream.is_local else None
    limits = httpx.Timeout(silence, connect=_CONNECT_SECONDS)
    try:
        client = httpx.AsyncClient(verify=_ssl_context(), transport=transport, timeout=limits)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise translation.unreachable(
            upstream, f"the environment names a proxy that cannot be used: {error}"
        ) from error
    async with client:
        request = client.build_request(
            method, upstream.url(path), content=content, headers={**_HEADERS, **upstream.headers}
        )
        try:
            response = await client.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise translation.unreachable(upstream, _detail(error)) from error
        except httpx.ConnectTimeout as error:
            raise translation.unreachable(upstream, f"no connection within {_CONNECT_SECONDS:g} s") from error
        except (*_BREAKS, UnicodeError) as error:  # the latter of a redirect to what is no host's name
            raise translation.lost(upstream, _detail(error)) from error
        try:
            yield response
        finally:
            await response.aclose()


async def _answered(response: httpx.Response, longest: int = _LONGEST_ERROR) -> translation.Answered:
    """Read an error, or what else is short; of what is long, slow or breaks off, what came of it."""
    body = bytearray()
    with suppress(*_BREAKS), anyio.move_on_after(_SHORT_SECONDS):
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > longest:
                break
    return translation.Answered(response.status_code, response.headers, bytes(body[:longest]))


def _detail(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


@cache
def _ssl_context() -> SSLContext:
    # Reading the certificate store takes some 20 ms, so once for a process rather than for each request.
    return httpx.create_ssl_context()
