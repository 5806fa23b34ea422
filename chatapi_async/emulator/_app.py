"""The emulator as an ASGI application: its two operations, its chatrooms, and the requests that it has had."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from threading import Condition
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from chatapi_async.types import ChatCompletionRequest, Message

from ._answering import Answerer
from ._asgi import ReceivedRequest, read_body, with_body, with_header
from ._contract import ContractError, provider_and_name, read_request
from ._refusals import HANDLERS, RefusedError
from ._reply_file import ReplyFile
from ._scripted import ScriptedAnswer
from ._upstream import Upstream

_REQUESTS_KEPT = 1000


class Emulator:
    """A stand-in for the service: an ASGI application with a small deterministic model inside.

    It answers both operations, streamed or as one JSON body, in the shape that the service sends, and checks requests
    as the service does. Run it with :func:`serve`, :func:`serve_in_thread` or :func:`run`, or with any ASGI server.

    A request whose model is ``fault/NAME``, or that has the header ``x-fault: NAME``, which counts for more, gets an
    answer that goes wrong in that way; parameters follow as in a query: ``fault/truncate?after=3``. ``FAULTS`` has all.

    Args:
        token: the only access token that is accepted; any by default.
        tokens_per_second: pace of the answers; None for as fast as possible. Default 40.
        first_token_delay: seconds between the response's headers and the first chunk. Default 0.
        chatrooms: ids of the chatrooms that exist from the start.
        create_chatrooms: whether a chatroom is made where it is first spoken to; otherwise that is answered with 404.
        ping_interval: seconds between the keep-alive comments of a stream; None, the default, for none.
        replies: a file of answers, as for :meth:`load_replies`; None, the default, for none.
        upstream: an OpenAI-compatible server that answers in the place of the built-in model, at its own pace; faults
            and answers that are queued or in a file count for more. A text is its address. None, the default, for none.

    Raises:
        ValueError: an argument out of bounds, or a file of answers that breaks its schema.
        OSError: the file of answers cannot be read.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        tokens_per_second: float | None = 40.0,
        first_token_delay: float = 0.0,
        chatrooms: Iterable[str] = (),
        create_chatrooms: bool = False,
        ping_interval: float | None = None,
        replies: str | os.PathLike[str] | None = None,
        upstream: Upstream | str | None = None,
    ) -> None:
        if token == "":
            raise ValueError("token is empty; give a token, or None to accept any")
        for name, value in (("tokens_per_second", tokens_per_second), ("ping_interval", ping_interval)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be greater than 0, not {value}")
        if not first_token_delay >= 0:
            raise ValueError(f"first_token_delay must not be negative, and is {first_token_delay}")
        self.chatrooms: dict[str, list[Message]] = {chatroom_id: [] for chatroom_id in chatrooms}
        """The conversations by the chatroom's id. A key that is added is a new chatroom."""
        self._token = token
        self._create_chatrooms = create_chatrooms
        self._open_streams = 0
        self._streams_change = Condition()
        self._requests: deque[ReceivedRequest] = deque(maxlen=_REQUESTS_KEPT)
        self._numbers = itertools.count(1)
        self._answerer = Answerer(
            interval=0.0 if tokens_per_second is None else 1 / tokens_per_second,
            first_token_delay=first_token_delay,
            ping_interval=ping_interval,
            upstream=Upstream(upstream) if isinstance(upstream, str) else upstream,
            numbers=self._numbers,
            while_open=self._count_stream,
        )
        if replies is not None:
            self.load_replies(replies)
        self._routes = Starlette(
            routes=[
                Route("/v1/llms/chat/completions", self._chat_completion, methods=["POST"]),
                Route(
                    "/v1/llms/chatrooms/{chatroom_id}/chat/completions",
                    self._chat_completion_on_chatroom,
                    methods=["POST"],
                ),
            ],
            exception_handlers=HANDLERS,
        )
        self._routes.router.redirect_slashes = False

    @property
    def open_streams(self) -> int:
        """Number of event streams that are being sent; one that the client has hung up on is not counted."""
        return self._open_streams

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The last 1000 requests, refused ones too, oldest first."""
        return list(self._requests)

    def wait_for_open_streams(self, count: int, timeout: float) -> bool:
        """Wait, in a thread other than the server's, until so many streams are being sent; return whether that came.

        Args:
            count: how many.
            timeout: the most seconds to wait.
        """
        with self._streams_change:
            return self._streams_change.wait_for(lambda: self._open_streams == count, timeout)

    def script(self, *answers: ScriptedAnswer) -> None:
        """Queue answers: each is given to one request that is not refused, before a file or the model answers again."""
        self._answerer.queue.extend(answers)

    def load_replies(self, path: str | os.PathLike[str]) -> None:
        """Give the answers that a file has for prompts, where none is queued: the README says what it may hold.

        A change of the file counts from the next request on; one that breaks it is logged, and changes nothing.

        Args:
            path: a TOML or JSON file, which is used in the place of the one before.

        Raises:
            OSError: it cannot be read.
            ReplyFileError: it breaks its schema, a ``ValueError`` that says everything that does.
        """
        self._answerer.replies = ReplyFile(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: the interface of ASGI."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        body = await read_body(receive)
        if body is None:
            return
        # Routes match the path as it was sent, since an encoded slash belongs to the chatroom's id.
        path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._requests.append(ReceivedRequest(scope["method"], path, headers, body))
        request_id = f"req_{next(self._numbers):06d}"
        await self._routes(
            {**scope, "path": path}, with_body(body, receive), with_header("x-request-id", request_id, send)
        )

    async def _chat_completion(self, http: Request) -> Response:
        request = await self._accept(http)
        return await self._answerer.answer(http, request, (), None, store=None)

    async def _chat_completion_on_chatroom(self, http: Request) -> Response:
        request = await self._accept(http)
        chatroom_id = unquote(http.path_params["chatroom_id"])
        if chatroom_id not in self.chatrooms and not self._create_chatrooms:
            raise RefusedError(404, f"there is no chatroom {chatroom_id!r}")

        def store(answer: Message) -> None:
            self.chatrooms.setdefault(chatroom_id, []).extend([*request.messages, answer])

        history = self.chatrooms.get(chatroom_id, ())
        return await self._answerer.answer(http, request, history, chatroom_id, store=store)

    async def _accept(self, http: Request) -> ChatCompletionRequest:
        """Return the request's body, or refuse it."""
        scheme, _, token = http.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise RefusedError(401, "no access token: send the header 'Authorization: Bearer <token>'")
        if self._token is not None and token.strip() != self._token:
            raise RefusedError(401, "the access token is not valid, or has expired")
        if not http.headers.get("x-operator-id", "").strip():
            raise RefusedError(400, "no operator: send the header 'x-operator-id'")
        try:
            request = read_request(await http.body())
        except ContractError as error:
            raise RefusedError(400, str(error)) from error
        if provider_and_name(request.model)[0] == "unsupported":
            raise RefusedError(400, f"the model {request.model!r} is not supported", code="unsupported_model")
        return request

    @contextmanager
    def _count_stream(self) -> Generator[None, None, None]:
        self._change_open_streams(1)
        try:
            yield
        finally:
            self._change_open_streams(-1)

    def _change_open_streams(self, by: int) -> None:
        with self._streams_change:
            self._open_streams += by
            self._streams_change.notify_all()
