"""``AsyncChatClient``: where to send, with which headers, and how often to try."""

from __future__ import annotations

import logging
import os
import random
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, Unpack
from weakref import WeakSet

import anyio

from ._body import EXCERPT_BYTES, Patience, read_into
from ._configuration import (
    DEFAULT_BASE_URL,
    Credentials,
    Token,
    chatroom_segment,
    checked_base_url,
    checked_body,
    checked_header,
    checked_headers,
    checked_size,
    is_exposed,
)
from ._failures import closed, status_error
from ._http import BodyBrokenError, HTTPClient, Response
from ._reader import StreamReader
from ._retry import RetryPolicy
from ._stream import ChatStream
from ._timeouts import Timeouts
from .errors import APIStatusError, APITimeoutError, AuthenticationError, ChatAPIError, ConfigurationError
from .types import (
    ChatCompletionChunkResponse,
    ChatCompletionFields,
    ChatCompletionWithChatroomStreamResponse,
    ChunkT,
    MessagesOrRequest,
)

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("chatapi_async")

_DEFAULT_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
_ERROR_BODY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of an operation: all that its attempts have in common."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    credentials: Credentials | None
    content: bytes = field(repr=False)
    timeouts: Timeouts

    @property
    def where(self) -> str:
        return f"POST {self.url}"


class AsyncChatClient:
    """Streams chat completions. One client serves a whole program: any number of streams at once, on asyncio or trio.

    ::

        async with AsyncChatClient("https://api.example.com", operator_id="tn_…", token="…") as client:
            async for chunk in client.chat_completion("Hello"):
                print(chunk.text, end="", flush=True)

    It can be made before an event loop runs, and used from one loop after another.

    Args:
        base_url: where the service is, with any path that stands before ``/v1``. By default the environment variable
            ``CHATAPI_BASE_URL``, else ``http://localhost``.
        operator_id: the ``x-operator-id`` header; a call can give its own. By default ``CHATAPI_OPERATOR_ID``.
        token: an access token, or a function, sync or async, that returns one. A function is asked before every
            attempt, and once more after a 401. By default ``CHATAPI_TOKEN``.
        authorization: the whole ``Authorization`` header, instead of ``token``.
        timeout: see :class:`Timeouts`; a number of seconds limits each wait alike, None limits nothing.
        retries: see :class:`RetryPolicy`; or how often a request that was not processed is sent again.
        max_event_bytes: bound of one event, and of a JSON answer, in bytes. 16 MiB by default.
        http_client: an ``httpx.AsyncClient`` to send through, which stays the caller's to close. By default one of its
            own, without a limit to its connections.

    Raises:
        ConfigurationError: an argument, or an environment variable, cannot be used.

    Warns:
        UserWarning: the base URL is plain http to another machine, where tokens can be read on the way.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        operator_id: str | None = None,
        token: Token | None = None,
        authorization: str | None = None,
        timeout: Timeouts | float | None = Timeouts(),  # noqa: B008 - frozen
        retries: RetryPolicy | int = RetryPolicy(),  # noqa: B008 - frozen
        max_event_bytes: int = _DEFAULT_MAX_EVENT_BYTES,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._base_url = checked_base_url(base_url or os.environ.get("CHATAPI_BASE_URL") or DEFAULT_BASE_URL)
        self._operator_id = operator_id or os.environ.get("CHATAPI_OPERATOR_ID") or None
        if not token and not authorization:
            token = os.environ.get("CHATAPI_TOKEN")
        self._credentials = Credentials.of(token=token, authorization=authorization)
        self._timeouts = Timeouts.of(timeout)
        self._retries = RetryPolicy.of(retries)
        self._max_event_bytes = checked_size("max_event_bytes", max_event_bytes)
        self._http = HTTPClient(http_client)
        self._readers: WeakSet[StreamReader[Any]] = WeakSet()
        self._closed = False
        if is_exposed(self._base_url):
            warnings.warn(
                f"{self._base_url} is plain http to another machine: tokens can be read on the way; use https",
                stacklevel=2,
            )

    def chat_completion(
        self,
        messages_or_request: MessagesOrRequest,
        *,
        operator_id: str | None = None,
        authorization: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = None,
        **fields: Unpack[ChatCompletionFields],
    ) -> ChatStream[ChatCompletionChunkResponse]:
        """Answer a conversation that the caller keeps (``POST /v1/llms/chat/completions``).

        Returns at once, without I/O; the request is sent when the stream is first read, awaited or entered.

        Args:
            messages_or_request: a ``str`` is one user message; a sequence of :class:`Message` or mappings is a
                conversation; a :class:`ChatCompletionRequest` is taken whole.
            operator_id: instead of the client's, for a backend that serves many operators.
            authorization: the whole ``Authorization`` header, instead of the client's token.
            extra_headers: sent beside, or instead of, the library's own.
            timeout: instead of the client's; None means the client's.
            **fields: the other fields of :class:`ChatCompletionRequest`, such as ``model="openai/gpt-4o"``.

        Raises:
            ConfigurationError: no operator id, no token, a header that cannot be sent, or a request that breaks the
                contract. Everything else is raised by reading the stream.
        """
        call = self._call(
            "chat/completions", messages_or_request, fields, operator_id, authorization, extra_headers, timeout
        )
        return self._stream(call, ChatCompletionChunkResponse)

    def chat_completion_on_chatroom(
        self,
        chatroom_id: str,
        messages_or_request: MessagesOrRequest,
        *,
        operator_id: str | None = None,
        authorization: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = None,
        **fields: Unpack[ChatCompletionFields],
    ) -> ChatStream[ChatCompletionWithChatroomStreamResponse]:
        """Answer in a chatroom, which keeps the conversation on the server
        (``POST /v1/llms/chatrooms/{chatroom_id}/chat/completions``).

        Send only the new messages. The server stores them, and the answer, when the stream ends.

        Args:
            chatroom_id: the chatroom's id; it is sent as one segment of the path, whatever it holds.
            messages_or_request: as in :meth:`chat_completion`, but the new messages alone.
            operator_id: as in :meth:`chat_completion`, like all the others.
            authorization: ″
            extra_headers: ″
            timeout: ″
            **fields: ″

        Raises:
            ConfigurationError: as in :meth:`chat_completion`, and for an id that cannot be a segment of a path.
        """
        path = f"chatrooms/{chatroom_segment(chatroom_id)}/chat/completions"
        call = self._call(path, messages_or_request, fields, operator_id, authorization, extra_headers, timeout)
        return self._stream(call, ChatCompletionWithChatroomStreamResponse)

    def chatroom(self, chatroom_id: str) -> Chatroom:
        """Return a handle of one chatroom, without I/O.

        Raises:
            ConfigurationError: the id cannot be a segment of a path.
        """
        return Chatroom(self, chatroom_id)

    async def aclose(self) -> None:
        """Close the client. Streams that are open end with :class:`StreamClosedError`, with their part kept."""
        self._closed = True
        for reader in list(self._readers):
            await reader.end_early(closed("its client was closed"))
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncChatClient {self._base_url} operator_id={self._operator_id!r}>"

    def _call(
        self,
        path: str,
        messages_or_request: MessagesOrRequest,
        fields: ChatCompletionFields,
        operator_id: str | None,
        authorization: str | None,
        extra_headers: Mapping[str, str] | None,
        timeout: Timeouts | float | None,
    ) -> _Call:
        headers = {"accept": "text/event-stream, application/json", "content-type": "application/json"}
        # A proxy that compresses holds tokens back until a block is full.
        headers["accept-encoding"] = "identity"
        if operator := operator_id or self._operator_id:
            headers["x-operator-id"] = checked_header("x-operator-id", operator)
        for name, value in checked_headers(extra_headers).items():
            headers[name] = value
        credentials = self._credentials
        if authorization:
            credentials = Credentials.of(token=None, authorization=authorization)
        elif "authorization" in headers:
            credentials = None
        elif credentials is None:
            raise ConfigurationError("no token: give token= or authorization=, or set CHATAPI_TOKEN")
        if "x-operator-id" not in headers:
            raise ConfigurationError("no operator id: give operator_id=, or set CHATAPI_OPERATOR_ID")
        content = checked_body(messages_or_request, fields)
        timeouts = self._timeouts if timeout is None else Timeouts.of(timeout)
        return _Call(f"{self._base_url}/v1/llms/{path}", headers, credentials, content, timeouts)

    def _stream(self, call: _Call, chunk_type: type[ChunkT]) -> ChatStream[ChunkT]:
        reader = StreamReader(
            partial(self._send, call),
            chunk_type=chunk_type,
            timeouts=call.timeouts,
            max_event_bytes=self._max_event_bytes,
            where=call.where,
        )
        self._readers.add(reader)
        return ChatStream(reader)

    async def _send(self, call: _Call, patience: Patience) -> Response:
        """Send until there is an answer, or a failure that must not be repeated."""
        retries = 0
        token_renewed = False
        while True:
            began = anyio.current_time()
            patience.waits.attempt_began(began)
            try:
                response = await self._attempt(call, patience)
            except ChatAPIError as error:
                patience.waits.attempt_failed()
                logger.debug("%s failed after %.3f s: %s", call.where, anyio.current_time() - began, _kind(error))
                renewable = call.credentials is not None and call.credentials.refreshable
                if isinstance(error, AuthenticationError) and renewable and not token_renewed:
                    token_renewed = True
                    continue
                delay = self._retries.delay(error, retries, random.random())  # noqa: S311 - spreads load, no secret
                if delay is None or anyio.current_time() + delay >= patience.waits.total_at:
                    raise
                retries += 1
                logger.warning("%s failed: %s; retry %d in %.2f s", call.where, _kind(error), retries, delay)
            else:
                logger.debug("%s: %d after %.3f s", call.where, response.status_code, anyio.current_time() - began)
                return response
            await patience.wait_for(partial(anyio.sleep, delay))

    async def _attempt(self, call: _Call, patience: Patience) -> Response:
        if self._closed:
            raise closed("the client is closed")
        headers = dict(call.headers)
        patience.request_sent(False)
        if call.credentials is not None:
            headers["authorization"] = await patience.wait_for(call.credentials.header)
        patience.request_sent(True)  # the HTTP layer says more precisely, where it can
        response = await patience.wait_for(
            partial(
                self._http.post,
                call.url,
                headers=headers,
                content=call.content,
                timeouts=call.timeouts,
                on_progress=patience.request_sent,
            )
        )
        if 200 <= response.status_code < 300:
            return response
        raise await _status_error(call, response, patience)


class Chatroom:
    """A chatroom of one client: its id, bound."""

    def __init__(self, client: AsyncChatClient, chatroom_id: str) -> None:
        chatroom_segment(chatroom_id)
        self._client = client
        self.id = chatroom_id
        """The chatroom's id."""

    def chat_completion(
        self,
        messages_or_request: MessagesOrRequest,
        *,
        operator_id: str | None = None,
        authorization: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = None,
        **fields: Unpack[ChatCompletionFields],
    ) -> ChatStream[ChatCompletionWithChatroomStreamResponse]:
        """Answer in this chatroom; see :meth:`AsyncChatClient.chat_completion_on_chatroom`."""
        return self._client.chat_completion_on_chatroom(
            self.id,
            messages_or_request,
            operator_id=operator_id,
            authorization=authorization,
            extra_headers=extra_headers,
            timeout=timeout,
            **fields,
        )

    def __repr__(self) -> str:
        return f"<Chatroom {self.id!r} of {self._client!r}>"


async def _status_error(call: _Call, response: Response, patience: Patience) -> APIStatusError:
    body = bytearray()
    try:
        # What the error says is worth a short wait, and no more: its status alone is known already.
        with anyio.move_on_after(_ERROR_BODY_SECONDS), suppress(BodyBrokenError, APITimeoutError):
            await patience.wait_for(partial(read_into, body, response, EXCERPT_BYTES))
    finally:
        await response.aclose()
    return status_error(
        where=call.where,
        status_code=response.status_code,
        headers=response.headers,
        body=bytes(body),
        now=time.time(),
        request_id=response.request_id,
    )


def _kind(error: ChatAPIError) -> str:
    # The server's own words stay out of the log: some servers repeat the token in them.
    return f"{type(error).__name__} {error.status_code}" if isinstance(error, APIStatusError) else type(error).__name__
