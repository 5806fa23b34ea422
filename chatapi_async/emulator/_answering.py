"""What one request is answered with: what is queued or in a file, a fault, the upstream, or the built-in model."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import anyio
from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from chatapi_async.recording import Recording
from chatapi_async.types import ChatCompletionRequest, Message

from . import _wire
from ._asgi import TRANSPORT, EventStream, while_connected
from ._contract import provider_and_name
from ._faults import ChosenFault, FaultError, chaos, read_fault
from ._model import plan
from ._refusals import RefusedError
from ._relay import RelayedResponse
from ._replayed import replayed
from ._replies import Asked, UnmatchedError
from ._reply_file import ReplyFile
from ._scripted import ScriptedAnswer
from ._stepped import SteppedResponse
from ._steps import Act, Answered, delayed
from ._upstream import Upstream


class Answerer:
    """Answers requests that were accepted.

    Args:
        interval: seconds between the chunks of an answer.
        first_token_delay: seconds before the first.
        ping_interval: seconds between the keep-alive comments of a stream; None for none.
        upstream: what answers in the place of the built-in model; None for nothing.
        numbers: what ids are made of.
        while_open: entered for as long as a stream is sent.
    """

    def __init__(
        self,
        *,
        interval: float,
        first_token_delay: float,
        ping_interval: float | None,
        upstream: Upstream | None,
        numbers: Iterator[int],
        while_open: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.queue: deque[ScriptedAnswer] = deque()
        """What is answered first, one a request."""
        self.replies: ReplyFile | None = None
        """What is answered then, where it has an answer."""
        self._interval = interval
        self._first_token_delay = first_token_delay
        self._ping_interval = ping_interval
        self._upstream = upstream
        self._numbers = numbers
        self._while_open = while_open
        self._chaos = Counter[str]()

    async def answer(
        self,
        http: Request,
        request: ChatCompletionRequest,
        history: Sequence[Message],
        chatroom_id: str | None,
        *,
        store: Callable[[Message], None] | None,
    ) -> Response:
        """Return the response, or refuse the request.

        Args:
            http: the request.
            request: what it asks.
            history: what was said in the chatroom before.
            chatroom_id: the chatroom; None where the request is not for one.
            store: keeps the answer in the chatroom, None where there is none.

        Raises:
            RefusedError: it cannot be answered.
        """
        # Taken from the queue only once it is the answer, since a request that is refused leaves it for the next.
        queued = self.queue[0] if self.queue else None
        if queued is not None and queued.recording is not None:
            response = self._replay(http, queued.recording, queued.speed)
            self.queue.popleft()
            return response
        scripted = queued or self._from_file(Asked([*history, *request.messages], request.model, chatroom_id))
        fault = self._fault(http, request, scripted.fault if scripted else None)
        if queued is not None:
            self.queue.popleft()
        if self._upstream is not None and scripted is None and fault is None:
            count = self._while_open if request.stream else nullcontext
            return RelayedResponse(self._upstream, request, history, store=store, while_open=count)
        scripted = scripted or ScriptedAnswer()
        answer = scripted.plan(plan(request, history))
        delay = scripted.delay or self._first_token_delay
        now = int(time.time())
        heading = _wire.Heading(
            id=f"msg_{next(self._numbers):06d}",
            model=":".join(provider_and_name(request.model)),
            created=now if chatroom_id is None or not request.stream else None,
        )

        def keep() -> None:
            if store is not None:
                store(Message.model_validate(_wire.message(answer)))

        if fault is not None:
            steps = itertools.chain.from_iterable(_wire.stream(answer, heading))
            answered = Answered(tuple(steps), _wire.completion(answer, heading), self._interval, time.time())
            return SteppedResponse(
                delayed(fault.steps(answered), delay),
                headers={"x-fault": str(fault)},
                store=keep,
                while_open=self._while_open,
            )
        if request.stream:
            events = self._play(_wire.stream(answer, heading), delay, keep)
            return EventStream(events, ping_interval=self._ping_interval, while_open=self._while_open)
        longest = max(planned.tokens for planned in answer.answers)
        if await while_connected(http.receive, partial(anyio.sleep, delay + longest * self._interval)):
            keep()
        return JSONResponse(_wire.completion(answer, heading))

    def _from_file(self, asked: Asked) -> ScriptedAnswer | None:
        """Return the answer that a file has; None where it is left to a model; or refuse the request."""
        try:
            return None if self.replies is None else self.replies.answer(asked)
        except UnmatchedError as error:
            raise RefusedError(400, str(error), code="no_reply") from error

    def _fault(self, http: Request, request: ChatCompletionRequest, scripted: ChosenFault | None) -> ChosenFault | None:
        """Return the fault that is scripted, or that the request asks for, or refuse the request."""
        provider, name = provider_and_name(request.model)
        wanted = http.headers.get("x-fault") or (name if provider == "fault" else None)
        fault = scripted
        if fault is None:
            if wanted is None:
                return None
            try:
                fault = read_fault(wanted)
            except FaultError as error:
                raise RefusedError(400, str(error), code="unknown_fault") from error
        if fault.name == "chaos":
            seed = str(fault)
            self._chaos[seed] += 1
            fault = chaos(self._chaos[seed], **fault.arguments)
        if not request.stream and not fault.answers_without_stream:
            raise RefusedError(400, f"the fault {fault.name!r} is one of a stream; send 'stream': true")
        if fault.breaks_connection:
            _require_connection(http, f"the fault {fault.name!r}")
        return fault

    def _replay(self, http: Request, recording: Recording, speed: float | None) -> Response:
        steps = list(replayed(recording, speed))
        if Act.CLOSE in steps or Act.RESET in steps:
            _require_connection(http, "the recorded exchange")
        return SteppedResponse(iter(steps), headers={}, store=lambda: None, while_open=self._while_open)

    async def _play(
        self, steps: Iterator[list[dict[str, Any]]], delay: float, store: Callable[[], None]
    ) -> AsyncIterator[ServerSentEvent]:
        """Yield the stream's events at the emulator's pace; what was said is stored before the client sees the end."""
        await anyio.sleep(delay)
        begin = anyio.current_time()
        for number, step in enumerate(steps):
            await anyio.sleep_until(begin + number * self._interval)
            for chunk in step:
                yield ServerSentEvent(_wire.data(chunk), sep="\n")
        store()
        yield ServerSentEvent(_wire.DONE, sep="\n")


def _require_connection(http: Request, what: str) -> None:
    if TRANSPORT not in http.scope.get("state", {}):
        raise RefusedError(400, f"{what} breaks the connection, which takes the emulator's own server: serve()")
