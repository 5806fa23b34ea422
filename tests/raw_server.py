"""A scripted HTTP/1.1 server on raw sockets, in threads of its own, so that tests on asyncio and on trio can use it.

Each request takes the next answer; the last answer is given again and again. An answer is a list of steps: bytes are
sent at once, everything else is one of the steps below. After its last step the connection waits for the next request.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

import anyio

from chatapi_async import AsyncChatClient, RetryPolicy

WAIT_SECONDS = 5.0
"""How long a test waits for what must happen; long enough for a busy machine."""


class Gate:
    """A step that waits until the test opens the gate."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reached = threading.Event()

    def open(self) -> None:
        self._writer.send(b"x")

    async def reached(self) -> None:
        """Wait until the server stands before the gate: all that comes before it has been sent."""
        await wait_for(self._reached.is_set, "the server to come to the gate")

    def pass_through(self, connection: Connection) -> None:
        self._reached.set()
        connection.wait_for(self._reader)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


@dataclass(frozen=True)
class Repeat:
    """A step that sends the same bytes until the client hangs up; with a pause in seconds before each."""

    data: bytes
    every: float = 0.0


class Step:
    """A step that is told apart by its identity."""


HOLD = Step()
"""Send nothing more, and wait until the client hangs up."""
RESET = Step()
"""Break the connection with a TCP reset."""
CLOSE = Step()
"""Close the connection in an orderly way."""

AnyStep = bytes | Gate | Repeat | Step


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The value of the one header of that name; None if there is none."""
        values = [value for key, value in self.headers if key.lower() == name]
        assert len(values) < 2, f"{name} was sent {len(values)} times"
        return values[0] if values else None


class HungUpError(Exception):
    """The client closed its end."""


class Connection:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, server: RawServer) -> None:
        self.sock = sock
        self._server = server
        self._received = b""

    def serve(self) -> None:
        with suppress(HungUpError):
            while (request := self._request()) is not None:
                try:
                    if not self._answer(self._server.take(request)):
                        return
                except HungUpError:
                    self._server.count_hang_up()
                    return

    def wait_for(self, readable: socket.socket | None, seconds: float | None = None) -> None:
        """Wait until ``readable`` is, or the time has passed; hang up if the client does."""
        sockets = [self.sock] if readable is None else [self.sock, readable]
        ready, _, _ = select.select(sockets, [], [], seconds)
        if self.sock in ready:
            self._receive()  # a client that sends while it is answered is none of this library's
            raise AssertionError("the client sent more than its request")

    def _answer(self, steps: tuple[AnyStep, ...]) -> bool:
        for step in steps:
            if isinstance(step, bytes):
                self._send(step)
            elif isinstance(step, Gate):
                step.pass_through(self)
            elif isinstance(step, Repeat):
                while True:
                    self.wait_for(None, step.every)
                    self._send(step.data)
            elif step is HOLD:
                self.wait_for(None)
            else:
                if step is RESET:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
        return True

    def _request(self) -> Request | None:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, rest = self._received.partition(b"\r\n\r\n")
        line, *fields = head.decode("ascii").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        self._received = rest
        if not self._server.reads_bodies:
            self._server.stopping.wait(WAIT_SECONDS)
            return None
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Request(line, headers, body)

    def _send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            raise HungUpError from None

    def _receive(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise HungUpError
        self._received += data


class RawServer:
    """The server. It listens at ``url`` from the start, and stops at the end of ``with``."""

    def __init__(self, *, reads_bodies: bool = True) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        """How many connections were ever made."""
        self.open_connections = 0
        """How many are open now."""
        self.hang_ups = 0
        """How often the client closed a connection in the middle of an answer."""
        self.reads_bodies = reads_bodies
        self.stopping = threading.Event()
        self._answers: list[tuple[AnyStep, ...]] = []
        self._gates: list[Gate] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, *steps: AnyStep) -> None:
        """Answer the next request that has no answer yet with these steps."""
        self._answers.append(steps)

    def gate(self) -> Gate:
        """Make a gate, closed when the server stops."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    async def received(self, requests: int = 1) -> None:
        """Wait until so many requests have arrived."""
        await wait_for(lambda: len(self.requests) >= requests, f"{requests} requests")

    async def hung_up(self, count: int = 1) -> None:
        """Wait until the client closed so many connections in the middle of an answer."""
        await wait_for(lambda: self.hang_ups >= count, f"{count} hang-ups")

    async def all_closed(self) -> None:
        """Wait until no connection is open."""
        await wait_for(lambda: self.open_connections == 0, "every connection to be closed")

    def take(self, request: Request) -> tuple[AnyStep, ...]:
        with self._lock:
            self.requests.append(request)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def count_hang_up(self) -> None:
        with self._lock:
            self.hang_ups += 1

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping.set()
        # Closing a socket does not wake the thread that waits for it; shutting it down does.
        with self._lock:
            for sock in (self._listener, *self._sockets):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for gate in self._gates:
            gate.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self.open_connections += 1
                self._sockets.add(sock)
            self._start(lambda sock=sock: self._serve(sock))

    def _serve(self, sock: socket.socket) -> None:
        try:
            Connection(sock, self).serve()
        finally:
            with self._lock:
                self._sockets.remove(sock)
                sock.close()
                self.open_connections -= 1

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()


async def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so, on asyncio or trio; fail if it never is."""
    try:
        with anyio.fail_after(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
                await anyio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


QUICK = RetryPolicy(max_retries=2, initial_delay=0.01)


class HasURL(Protocol):
    url: str


def client_of(server: HasURL, **options: Any) -> AsyncChatClient:
    """A client of the server; any argument can be replaced."""
    given = {"base_url": server.url, "operator_id": "tn_1", "token": "t0ken", "retries": QUICK}
    return AsyncChatClient(**given | options)


# ── what answers are made of ─────────────────────────────────────────────────────────────────────────────────────────

DONE = b"data: [DONE]\n\n"


def event(data: object, name: str | None = None) -> bytes:
    """A server-sent event whose data is a text, or an object as JSON."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chunk(text: str = "", finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    """The event of one chunk."""
    choice: dict[str, Any] = {"index": index, "delta": {"content": text} if text else {}}
    if finish:
        choice["finish_reason"] = finish
    return event({"id": "msg_1", "object": "chat.completion.chunk", "choices": [choice], **fields})


def head(status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """The beginning of a response."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return "\r\n".join([*lines, "", ""]).encode()


def body(
    content: bytes | str, status: int = 200, content_type: str = "application/json", **headers: str
) -> tuple[bytes, ...]:
    """A whole response with a length; underscores in the names of headers stand for hyphens."""
    data = content if isinstance(content, bytes) else content.encode()
    fields = {"content-length": str(len(data)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    if content_type:
        fields["content-type"] = content_type
    return (head(status, fields) + data,)


def stream(*steps: AnyStep, content_type: str = "text/event-stream", **headers: str) -> tuple[AnyStep, ...]:
    """A response of unknown length: each piece of bytes is sent by itself, and the last step ends the body, unless it
    is a step that leaves it open."""
    fields = {"content-type": content_type, "transfer-encoding": "chunked"}
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    framed: list[AnyStep] = [head(200, fields)]
    for step in steps:
        if isinstance(step, Repeat):
            framed.append(Repeat(_framed(step.data), step.every))
        else:
            framed.append(_framed(step) if isinstance(step, bytes) else step)
    if not steps or not (isinstance(steps[-1], Step | Repeat)):
        framed.append(b"0\r\n\r\n")
    return tuple(framed)


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n" if data else b""
