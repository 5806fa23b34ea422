"""Which end of a stream is an error, and what its error carries. No I/O."""

from __future__ import annotations

from ._accumulate import MessageAccumulator
from ._failures import truncated
from .errors import APITimeoutError, ChatAPIError, EmptyStreamError, StreamError, StreamTruncatedError
from .types import ChatCompletionResponse, Completeness


def end_with_done(accumulator: MessageAccumulator) -> None:
    """Accept the end that the server announced.

    Raises:
        EmptyStreamError: nothing came before it.
    """
    if not accumulator.has_choices:
        raise EmptyStreamError


def end_with_body(
    accumulator: MessageAccumulator,
    *,
    how: str,
    chunks: int,
    choices: int,
    excerpt: str,
    cause: BaseException | None = None,
) -> None:
    """Accept an end that the server did not announce.

    Args:
        accumulator: what came.
        how: the end in words.
        chunks: how many came.
        choices: how many answers were asked for.
        excerpt: the first words of a body in which no event was found.
        cause: what broke the connection.

    Raises:
        StreamTruncatedError: not every answer that was asked for ended with a finish reason.
    """
    came = len(accumulator.completion().choices)
    if came >= choices and accumulator.finished:
        return
    reason = "without a finish reason" if came else "before any answer"
    if accumulator.finished:
        reason = f"with {came} of {choices} answers"
    if excerpt:
        reason = f"{reason}, with {excerpt!r}"
    raise truncated(f"{how} after {chunks} chunks, {reason}") from cause


def completeness_after(error: ChatAPIError) -> Completeness:
    """Return how whole a completion is that ends with the error."""
    return "truncated" if isinstance(error, StreamTruncatedError) else "failed"


def attach(error: ChatAPIError, partial: ChatCompletionResponse, chunks: int) -> None:
    """Let the error of a stream carry what had arrived."""
    if isinstance(error, StreamError | APITimeoutError):
        error.partial = partial
        error.chunks_received = chunks
