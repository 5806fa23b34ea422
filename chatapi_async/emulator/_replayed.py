"""A recorded exchange as steps of the server that it was with. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from chatapi_async._inflate import unread_encoding
from chatapi_async.recording import Recording

from ._steps import Act, Head, Pause, Step

# Those of the connection (RFC 9110, 7.6.1), and those that any server makes itself.
_OF_THE_SERVER = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("content-length", "date", "server"),
    }
)


def replayed(recording: Recording, speed: float | None) -> Iterator[Step]:
    """Yield what the server did.

    Args:
        recording: the exchange.
        speed: how many times as fast it is done; None for without a pause.
    """
    now = 0.0

    def until(seconds: float) -> Iterator[Step]:
        nonlocal now
        if speed is not None and seconds > now:
            yield Pause((seconds - now) / speed)
            now = seconds

    if recording.status_code is not None:
        yield from until(recording.responded or 0.0)
        yield Head(recording.status_code, _headers(recording))
    for piece in recording.pieces:
        yield from until(piece.seconds)
        yield piece.data
    how = "connection_closed" if recording.end is None else recording.end.how
    if how == "client_closed" or (how == "no_response" and _timed_out(recording)):
        yield Pause(inf)  # what it would have done then, nobody knows
        return
    yield from until(0.0 if recording.end is None else recording.end.seconds)
    if how != "body_ended":
        yield Act.RESET if how == "connection_reset" else Act.CLOSE


def why_never(recording: Recording) -> str:
    """Return why a recording cannot be given again; ``""`` where it can."""
    outcome = None if recording.end is None else recording.end.outcome
    if recording.status_code is None:
        never_sent = outcome is not None and outcome.processed == "no"
        return "the recorded request never reached a server, so there is nothing to give again" if never_sent else ""
    if not 200 <= recording.status_code < 600:
        return f"the recorded status {recording.status_code} is none that this server can send"
    return ""


def _timed_out(recording: Recording) -> bool:
    outcome = None if recording.end is None else recording.end.outcome
    return outcome is not None and outcome.error == "APITimeoutError"


def _headers(recording: Recording) -> dict[str, str]:
    dropped = _OF_THE_SERVER
    if not unread_encoding(recording.headers):
        dropped |= {"content-encoding"}  # what was recorded is decompressed
    return {name: value for name, value in recording.headers.items() if name not in dropped}
