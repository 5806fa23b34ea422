"""``AsyncChatClient``: what to send where, with which headers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack
from weakref import WeakSet

from ._attempts import Call, send
from ._body_decoder import DEFAULT_MAX_EVENT_BYTES
from ._chatroom import Chatroom
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
from ._failures import closed
from ._http import HTTPClient
from ._reader import StreamReader
from ._retry import RetryPolicy
from ._secrets import SecretHeaders
from ._stream import ChatStream
from ._timeouts import Timeouts
from .errors import ConfigurationError
from .types import (
    ChatCompletionChunkResponse,
    ChatCompletionFields,
    ChatCompletionWithChatroomStreamResponse,
    ChunkT,
    MessagesOrRequest,
)

if TYPE_CHECKING:
    import httpx

    from ._observation import StreamEnd, Telemetry
    from ._observed_reader import ObservedReader
    from ._recorder import Recorder
    from ._recording import Operation


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
        record: a directory, made where there is none, to which each exchange with the server is written, a file each,
            without its token; see :mod:`chatapi_async.recording`. By default ``CHATAPI_RECORD``, else nothing is.
        on_end: a plain function, called with a :class:`StreamEnd` once for each stream whose request was begun, when it
            ends, in whatever way. Whoever ends the stream waits for it, so it should be quick; for one that is
            forgotten, the event loop calls it soon after. An exception in it is logged, and disturbs nothing.
        telemetry: observes each stream from its begin, such as :class:`chatapi_async.otel.OpenTelemetry`.

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
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        http_client: httpx.AsyncClient | None = None,
        record: str | os.PathLike[str] | None = None,
        on_end: Callable[[StreamEnd], object] | None = None,
        telemetry: Telemetry | None = None,
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
        self._recorder: Recorder | None = None
        if record := record or os.environ.get("CHATAPI_RECORD"):
            from ._recorder import Recorder  # which few need

            self._recorder = Recorder(record)
        self._observers: tuple[Telemetry, ...] = ()
        if on_end is not None or telemetry is not None:
            from ._observation import observers  # as above

            self._observers = observers(on_end, telemetry)
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
        return self._stream(call, ChatCompletionWithChatroomStreamResponse, chatroom_id)

    def chatroom(self, chatroom_id: str) -> Chatroom:
        """Return a handle of one chatroom, without I/O.

        Raises:
            ConfigurationError: the id cannot be a segment of a path.
        """
        return Chatroom(self, chatroom_id)

    async def aclose(self) -> None:
        """Close the client. Streams that are open end with :class:`StreamClosedError`, with their part kept."""
        self._http.closed = True
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

    def __reduce__(self) -> str:
        raise TypeError("an AsyncChatClient cannot be pickled or copied; make one in each process")

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
    ) -> Call:
        headers = SecretHeaders({"accept": "text/event-stream, application/json", "content-type": "application/json"})
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
        body = checked_body(messages_or_request, fields)
        timeouts = self._timeouts if timeout is None else Timeouts.of(timeout)
        return Call(f"{self._base_url}/v1/llms/{path}", headers, credentials, body, timeouts)

    def _stream(self, call: Call, chunk_type: type[ChunkT], chatroom_id: str | None = None) -> ChatStream[ChunkT]:
        recorder = None
        if self._recorder is not None:
            operation: Operation = "chat_completion" if chatroom_id is None else "chat_completion_on_chatroom"
            recorder = self._recorder.of_call(self._http, operation, call.secrets)
        make: type[StreamReader[ChunkT]] | partial[ObservedReader[ChunkT]] = StreamReader
        if self._observers:
            from ._observation import stream_call  # as above
            from ._observed_reader import ObservedReader

            observed = stream_call(call.url, call.headers, call.body.content, chatroom_id)
            make = partial(ObservedReader, self._observers, observed)
        reader = make(
            partial(send, call, recorder or self._http, self._retries),
            chunk_type=chunk_type,
            timeouts=call.timeouts,
            max_event_bytes=self._max_event_bytes,
            where=call.where,
            choices=call.body.choices,
            conceal=call.secrets.conceal,
            on_end=None if recorder is None else recorder.ended,
        )
        self._readers.add(reader)
        return ChatStream(reader)
