"""A stream that is observed: its end is told once, be it read, stopped, cancelled, or forgotten, wherever that is."""

from __future__ import annotations

import asyncio
import atexit
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakSet

from anyio.lowlevel import RunVar

from ._body import Body
from ._closing import on_asyncio
from ._failures import closed
from ._observation import Observation, StreamCall, StreamEnd, Telemetry, begin, report, sending, stream_end
from ._reader import StreamReader
from .errors import APIStatusError, ChatAPIError
from .types import ChunkT, Completeness


class ObservedReader(StreamReader[ChunkT]):
    """A reader that tells observers of its stream.

    Args:
        observers: who is told.
        call: what they are told at the begin.
        *arguments: those of :class:`StreamReader`.
        **options: ″
    """

    _observations: list[Observation] | None = None
    """None where there is nothing to tell: not yet, or no more."""

    def __init__(self, observers: tuple[Telemetry, ...], call: StreamCall, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._observers = observers
        self._call = call
        self._raised: Exception | None = None
        self._call_soon: Callable[[Callable[[], object]], None]

    async def _open(self) -> Body[ChunkT]:
        (await _readers_of_loop()).add(self)
        self._call_soon = _calls_soon()
        self._observations = begin(self._observers, self._call)
        with sending(self._observations):
            return await super()._open()

    def end_with_loop(self) -> None:
        """End the stream, unless it has ended, since its event loop has."""
        self._end("stopped", closed("its event loop ended"))

    def _end_with(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._raised = error
        super()._end_with(error)

    def _end(self, completeness: Completeness, error: ChatAPIError | None) -> None:
        super()._end(completeness, error)
        if (ended := self._to_tell()) is not None:
            report(*ended)

    def __del__(self) -> None:
        if (ended := self._to_tell()) is not None:
            # Later: the garbage collector may have come in the middle of an exporter that holds a lock.
            self._call_soon(_Report(*ended))

    def _to_tell(self) -> tuple[list[Observation], StreamEnd] | None:
        """Return who is to be told of the end, and what, the first time that it is asked for."""
        observations = self._observations
        if observations is None:
            return None
        completeness = self._completeness or "stopped"
        error = self._raised if completeness in ("truncated", "failed") else None
        status_code = error.status_code if isinstance(error, APIStatusError) else None
        request_id = error.request_id if isinstance(error, ChatAPIError) else None
        if self.response is not None:
            status_code, request_id = self.response.status_code, self.response.request_id
        end = stream_end(
            self._call,
            completeness=completeness,
            error=error,
            stats=self.stats,
            status_code=status_code,
            request_id=request_id,
            attempts=0 if self._patience is None else self._patience.waits.attempts,
            accumulator=self.accumulator,
        )
        self._observations = self._raised = None  # not before: Ctrl-C may come in between, and then it is told later
        return observations, end


class _Report:
    """Tells when it is called; or else when it is dropped, as by an event loop that is closed before it calls it."""

    def __init__(self, observations: list[Observation], end: StreamEnd) -> None:
        self._observations = observations
        self._end = end

    def __call__(self) -> None:
        observations, self._observations = self._observations, []
        report(observations, self._end)

    def __del__(self) -> None:
        self()


def _calls_soon() -> Callable[[Callable[[], object]], None]:
    """Return what has a function called by the present event loop, from any thread; it drops it where that is over."""
    if on_asyncio():
        loop = asyncio.get_running_loop()
        return partial(_call_soon, loop.call_soon_threadsafe, loop.is_running)
    import trio

    return partial(_call_soon, trio.lowlevel.current_trio_token().run_sync_soon, lambda: True)


def _call_soon(
    call_soon: Callable[[Callable[[], object]], object], is_running: Callable[[], bool], function: Callable[[], object]
) -> None:
    if is_running():
        with suppress(RuntimeError):  # the event loop has ended
            call_soon(function)


_Readers = WeakSet[ObservedReader[Any]]

_readers_of: RunVar[tuple[_Readers, AsyncGenerator[None, None]]] = RunVar("chatapi_async observed streams")


async def _readers_of_loop() -> _Readers:
    """Return the set of those that end with the present event loop: when it ends, is dropped, or the program exits."""
    try:
        readers, _ = _readers_of.get()
    except LookupError:
        readers = _Readers()
        ending = _end_with_loop(readers)
        hooks = sys.get_asyncgen_hooks()
        # The loop's finalizer, which awaits what is left to await, would keep the loop; here nothing is.
        sys.set_asyncgen_hooks(finalizer=None)
        try:
            await anext(ending)
        finally:
            sys.set_asyncgen_hooks(*hooks)
        _readers_of.set((readers, ending))
    return readers


async def _end_with_loop(readers: _Readers) -> AsyncGenerator[None, None]:
    """Yield until the event loop closes it, or is dropped and this with it, and end what is left."""
    end_all = partial(_end_all, readers)
    atexit.register(end_all)  # before exporters are shut down, which the end of the interpreter is not
    try:
        yield
    finally:
        atexit.unregister(end_all)
        end_all()


def _end_all(readers: _Readers) -> None:
    for reader in tuple(readers):
        reader.end_with_loop()
