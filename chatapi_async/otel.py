"""Traces and metrics of streams, by OpenTelemetry: ``AsyncChatClient(..., telemetry=OpenTelemetry())``."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

try:
    from opentelemetry import context, metrics, trace
except ImportError as error:
    raise ImportError("chatapi_async.otel needs opentelemetry-api; pip install 'chatapi-async[otel]'") from error

from ._observation import StreamCall, StreamEnd
from ._otel_attributes import (
    content,
    error_description,
    error_type,
    of_call,
    of_end,
    of_metrics,
    span_name,
    time_to_first_chunk,
    tokens,
)
from ._version import __version__
from .errors import ConfigurationError

__all__ = ["OpenTelemetry"]

logger = logging.getLogger("chatapi_async")

_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURE_VALUES: Final = {"NO_CONTENT": False, "EVENT_ONLY": False, "SPAN_ONLY": True, "SPAN_AND_EVENT": True}
# The bounds that the conventions give: seconds, tokens.
_SECONDS: Final = [0.01 * 2**power for power in range(14)]
_TOKENS: Final = [4**power for power in range(14)]
_TOTALS: Final = ("input_tokens", "output_tokens")


class OpenTelemetry:
    """Records a span and metrics for each stream, by the semantic conventions for generative AI, version 0.1.0.

    ::

        async with AsyncChatClient(..., telemetry=OpenTelemetry()) as client:
            ...

    The span begins with the request, as a child of what is current there, and ends with the stream, in whatever way
    that ends. While the request is sent it is the current span, and so the parent of what instruments httpx. Which
    attributes it has is in the README. It takes ``opentelemetry-api`` alone; without an SDK nothing is recorded.

    Args:
        tracer_provider: by default the global one, even if it is set later.
        meter_provider: ″
        capture_content: whether spans hold the messages, the answers and the tools' definitions, which may be personal
            and large. By default as the environment variable ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``
            says: with ``SPAN_ONLY`` or ``SPAN_AND_EVENT`` they do; otherwise, and where it is not set, they do not.

    Raises:
        ConfigurationError: ``capture_content`` is neither a bool nor None.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        capture_content: bool | None = None,
    ) -> None:
        self._capture_content = _captures_content(capture_content)
        self._tracer = trace.get_tracer("chatapi_async", __version__, tracer_provider)
        self._metrics = _Metrics(metrics.get_meter("chatapi_async", __version__, meter_provider))

    def stream_began(self, call: StreamCall) -> ObservedSpan:
        """Begin the span of a stream; called by the client."""
        span = self._tracer.start_span(span_name(call.request), kind=trace.SpanKind.CLIENT, attributes=of_call(call))
        return ObservedSpan(span, self._metrics, capture_content=self._capture_content)


class ObservedSpan:
    """The span of one stream."""

    def __init__(self, span: trace.Span, metrics: _Metrics, *, capture_content: bool) -> None:
        self._span = span
        self._metrics = metrics
        self._capture_content = capture_content
        self._context = trace.set_span_in_context(span)

    def sending(self) -> AbstractContextManager[None]:
        """Make the span the current one; called by the client."""
        return self._current()

    @contextmanager
    def _current(self) -> Generator[None]:
        token = context.attach(self._context)
        try:
            yield
        finally:
            # A task that is never finished is ended by the garbage collector, wherever that is.
            if context.get_current() == self._context:
                context.detach(token)

    def ended(self, end: StreamEnd) -> None:
        """End the span; called by the client."""
        span = self._span
        try:
            if span.is_recording():
                span.set_attributes(of_end(end))
                if end.error is not None:
                    span.set_status(trace.Status(trace.StatusCode.ERROR, error_description(end.error)))
            self._metrics.record(end, self._context)
            if self._capture_content and span.is_recording():
                span.set_attributes(content(end))
        finally:
            span.end()


class _Metrics:
    """The instruments. Time for each chunk is left out: it would cost something for each chunk."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._duration = meter.create_histogram(
            "gen_ai.client.inference.duration",
            unit="s",
            description="GenAI client inference operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._time_to_first_chunk = meter.create_histogram(
            "gen_ai.client.inference.time_to_first_chunk",
            unit="s",
            description="Time to receive the first chunk, from when the client issues the request.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._used = {
            kind: meter.create_counter(
                f"gen_ai.client.inference.usage.{kind}", unit="{token}", description=f"Tokens used: {kind}."
            )
            for kind in (*_TOTALS, "cache_read.input_tokens", "cache_write.input_tokens", "reasoning.output_tokens")
        }
        self._of_one = {
            kind: meter.create_histogram(
                f"gen_ai.client.inference.operation.{kind}",
                unit="{token}",
                description=f"Tokens used by one operation: {kind}.",
                explicit_bucket_boundaries_advisory=_TOKENS,
            )
            for kind in _TOTALS
        }

    def record(self, end: StreamEnd, within: context.Context) -> None:
        """Record one stream."""
        attributes = of_metrics(end)
        failed = {"error.type": kind} if (kind := error_type(end)) else {}
        self._duration.record(end.stats.duration, attributes | failed, within)
        if (seconds := time_to_first_chunk(end)) is not None:
            self._time_to_first_chunk.record(seconds, attributes, within)
        # Where the server said nothing of tokens, the conventions ask for a zero.
        for kind, count in (dict.fromkeys(_TOTALS, 0) | tokens(end.completion.usage)).items():
            self._used[kind].add(count, {**attributes, "gen_ai.token.modality": "unknown"}, within)
            if kind in _TOTALS:
                self._of_one[kind].record(count, attributes | failed, within)


def _captures_content(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if given is not None:  # "False" would be true
        raise ConfigurationError(f"capture_content={given!r} must be True, False or None")
    value = os.environ.get(_CAPTURE, "").strip()
    captures = _CAPTURE_VALUES.get(value.upper())
    if value and captures is None:
        logger.warning("%s=%r is none of %s; no content is recorded", _CAPTURE, value, ", ".join(_CAPTURE_VALUES))
    return bool(captures)
