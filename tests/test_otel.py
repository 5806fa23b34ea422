"""``chatapi_async.otel``: one span and its metrics for each stream, seen by OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from chatapi_async import (
    AsyncChatClient,
    ChatAPIError,
    ChatCompletionRequest,
    ChatStream,
    ConfigurationError,
    Message,
    MessageAccumulator,
    MessageToolCall,
    StreamEnd,
    StreamStats,
    Timeouts,
    Tool,
    Usage,
    __version__,
    _otel_attributes,
    tee,
)
from chatapi_async._observation import stream_call, stream_end
from chatapi_async._otel_attributes import content, tokens
from chatapi_async.otel import OpenTelemetry
from chatapi_async.pacing import heartbeat, paced
from chatapi_async.relay import relay_sse
from tests.raw_server import CLOSE, DONE, HOLD, AnyStep, RawServer, body, chunk, client_of, event, stream, wait_for
from tests.test_concurrency import AtRandom, CrowdServer

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 20,
    "total_tokens": 50,
    "cache_read_input_tokens": 7,
    "cache_creation_input_tokens": 5,
    "total_cost": 0.25,
    "completion_tokens_details": {"reasoning_tokens": 9},
}
ANSWER = stream(chunk("Hel", model="openai:gpt-4o-2024"), chunk("lo", "stop", usage=USAGE), DONE, x_request_id="req_1")
OPEN = stream(chunk("Hel"), HOLD)


class Recorded:
    """What was exported."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def telemetry(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(**{"tracer_provider": self.tracers, "meter_provider": self.meters} | options)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All that have ended."""
        return self._spans.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        """The one that has ended."""
        (span,) = self.spans
        return span

    @property
    def attributes(self) -> dict[str, Any]:
        """Those of the one span."""
        return dict(self.span.attributes or {})

    def points(self) -> dict[str, Any]:
        """The data points of each metric."""
        data = self._reader.get_metrics_data()
        found = data.resource_metrics[0].scope_metrics if data is not None else []
        return {metric.name: list(metric.data.data_points) for scope in found for metric in scope.metrics}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.delenv(CAPTURE, raising=False)
    return Recorded()


def client_with(server: Any, recorded: Recorded, **options: Any) -> AsyncChatClient:
    given = {"telemetry": recorded.telemetry()}
    return client_of(server, **given | options)


# ── the span ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_all_that_a_span_says(server: RawServer, recorded: Recorded) -> None:
    server.answer(*ANSWER)
    async with client_with(server, recorded) as client:
        await (
            client.chatroom("ch_1")
            .chat_completion(
                "Hi",
                model="openai/gpt-4o",
                temperature=0.5,
                top_p=0.25,
                n=1,
                max_completion_tokens=100,
                presence_penalty=1,
                frequency_penalty=-1,
                response_format={"type": "json_object"},
            )
            .until_done()
        )
    span = recorded.span
    assert (span.name, span.kind, span.status.status_code) == ("chat openai/gpt-4o", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("chatapi_async", __version__)
    attributes = recorded.attributes
    assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < 5
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "chatapi",
        "gen_ai.conversation.id": "ch_1",
        "gen_ai.output.type": "json",
        "gen_ai.request.model": "openai/gpt-4o",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.25,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.presence_penalty": 1,
        "gen_ai.request.frequency_penalty": -1,
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.model": "openai:gpt-4o-2024",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "gen_ai.usage.cache_write.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 9,
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "http.response.status_code": 200,
        "chatapi.operation": "chat_completion_on_chatroom",
        "chatapi.operator.id": "tn_1",
        "chatapi.completeness": "complete",
        "chatapi.chunks": 2,
        "chatapi.heartbeats": 0,
        "chatapi.attempts": 1,
        "chatapi.request.id": "req_1",
        "chatapi.usage.total_cost": 0.25,
    }


def test_the_readme_names_all_that_a_span_says() -> None:
    section = README.partition("## Telemetry")[2].partition("## Performance")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    source = Path(_otel_attributes.__file__).read_text(encoding="utf-8")
    written = set(re.findall(r'"((?:gen_ai|chatapi|server|error|http)\.[\w.]+)"', source))
    used = {f"gen_ai.usage.{kind}" for kind in tokens(Usage.model_validate(USAGE))}
    assert sorted(named) == sorted(written | used)
    assert "version 0.1.0" in section


async def test_what_is_not_known_is_not_said(server: RawServer, recorded: Recorded) -> None:
    server.answer(*body('{"choices": [{"message": {"content": "Hello"}}]}'))
    async with client_with(server, recorded) as client:
        await client.chat_completion("Hi", stream=False, response_format={"type": "poem"}).until_done()
    assert recorded.span.name == "chat"
    assert recorded.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "chatapi",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "http.response.status_code": 200,
        "chatapi.operation": "chat_completion",
        "chatapi.operator.id": "tn_1",
        "chatapi.completeness": "complete",
        "chatapi.chunks": 1,
        "chatapi.heartbeats": 0,
        "chatapi.attempts": 1,
    }


@pytest.mark.parametrize(
    ("answer", "n", "reasons"),
    [
        (stream(chunk("a", "length"), DONE), None, ("length",)),
        (stream(chunk("a", "stop"), chunk("b", "tool_calls", index=1), DONE), 2, ("stop", "tool_calls")),
        (stream(chunk("a", "stop"), chunk("b", index=1), CLOSE), 2, ("stop", "error")),
        (stream(chunk("a"), CLOSE), None, ("error",)),
        (stream(chunk("a"), DONE), None, None),
        (stream(CLOSE), None, None),
    ],
)
async def test_a_finish_reason_for_each_answer(
    answer: tuple[AnyStep, ...], n: int | None, reasons: object, server: RawServer, recorded: Recorded
) -> None:
    server.answer(*answer)
    async with client_with(server, recorded) as client:
        with suppress(ChatAPIError):
            await client.chat_completion("Hi", n=n).until_done()
    assert recorded.attributes.get("gen_ai.response.finish_reasons") == reasons
    assert recorded.attributes.get("gen_ai.request.choice.count") == n


async def test_cached_tokens_as_openai_counts_them(server: RawServer, recorded: Recorded) -> None:
    usage = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": None}
    server.answer(*stream(chunk("Hi", "stop", usage=usage), DONE))
    async with client_with(server, recorded) as client:
        await client.chat_completion("Hi").until_done()
    found = {name: value for name, value in recorded.attributes.items() if name.startswith("gen_ai.usage")}
    assert found == {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.cache_read.input_tokens": 4}


@pytest.mark.parametrize("count", [-1, 2**31, 10**30])
async def test_a_number_of_tokens_that_cannot_be_is_none(count: int, server: RawServer, recorded: Recorded) -> None:
    details = {
        "prompt_tokens_details": {"cached_tokens": True},
        "completion_tokens_details": {"reasoning_tokens": count},
    }
    usage = {"prompt_tokens": count, "completion_tokens": 2, "cache_creation_input_tokens": count, **details}
    server.answer(*stream(chunk("Hi", "stop", usage=usage), DONE))
    async with client_with(server, recorded) as client:
        await client.chat_completion("Hi").until_done()
    found = {name: value for name, value in recorded.attributes.items() if name.startswith("gen_ai.usage")}
    assert found == {"gen_ai.usage.output_tokens": 2}
    sums = {name: points[0].value for name, points in recorded.points().items() if ".usage." in name}
    assert sums == {"gen_ai.client.inference.usage.input_tokens": 0, "gen_ai.client.inference.usage.output_tokens": 2}


async def _stop(opened: ChatStream[Any]) -> None:
    await anext(opened)
    await opened.stop()


async def _leave(opened: ChatStream[Any]) -> None:
    async with opened:
        await anext(opened)


async def _cancel(opened: ChatStream[Any]) -> None:
    await anext(opened)
    task = asyncio.create_task(opened.until_done())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("how", [_stop, _leave, _cancel])
async def test_what_the_caller_ends_is_no_error(how: Any, server: RawServer, recorded: Recorded) -> None:
    server.answer(*OPEN)
    async with client_with(server, recorded) as client:
        await how(client.chat_completion("Hi"))
        assert recorded.span.status.status_code is StatusCode.UNSET
    assert recorded.attributes["chatapi.completeness"] == "stopped"
    assert "error.type" not in recorded.attributes


SECRET = "a secret of a person"


@pytest.mark.parametrize(
    ("answer", "kind", "description", "options"),
    [
        (body(json.dumps({"message": SECRET}), 401), "AuthenticationError", "status 401", {}),
        (body(json.dumps({"message": f"Bearer t0ken {SECRET}"}), 503), "InternalServerError", "status 503", {}),
        (stream(chunk("a"), event({"message": SECRET}, "error")), "ServerStreamError", "after 1 chunks", {}),
        (stream(event(f'{{"{SECRET}')), "StreamDecodeError", "after 0 chunks", {}),
        (body(SECRET, content_type="text/html"), "UnexpectedContentTypeError", "after 0 chunks", {}),
        (stream(SECRET.encode(), CLOSE), "StreamTruncatedError", "after 0 chunks", {}),
        (OPEN, "APITimeoutError", "idle: more than 0.01 s", {"timeout": Timeouts(idle=0.01)}),
        (OPEN, "KeyError", None, {"token": lambda: {}[SECRET]}),
    ],
)
async def test_an_error_has_its_class_and_nothing_that_was_said(
    answer: tuple[AnyStep, ...],
    kind: str,
    description: str | None,
    options: Any,
    server: RawServer,
    recorded: Recorded,
) -> None:
    server.answer(*answer)
    async with client_with(server, recorded, **options) as client:
        with pytest.raises((ChatAPIError, KeyError)):
            await client.chat_completion("Hi").until_done()
    assert (recorded.span.status.status_code, recorded.span.status.description) == (StatusCode.ERROR, description)
    assert recorded.attributes["error.type"] == kind
    shown = recorded.span.to_json()
    assert SECRET not in shown
    assert "t0ken" not in shown


# ── its parent and its children ──────────────────────────────────────────────────────────────────────────────────────


def _first_of_tee(source: ChatStream[Any]) -> Any:
    return tee(source, 1)[0]


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("wrap", [aiter, paced, heartbeat, relay_sse, _first_of_tee])
def test_its_parent_is_what_is_current_when_it_is_first_read(
    wrap: Callable[[Any], Any], backend: str, server: RawServer, recorded: Recorded
) -> None:
    tracer = recorded.tracers.get_tracer("tests")
    server.answer(*ANSWER)

    async def main() -> None:
        async with client_with(server, recorded) as client:
            with tracer.start_as_current_span("made"):
                items = wrap(client.chat_completion("Hi"))
            with tracer.start_as_current_span("read") as parent:
                async for _ in items:
                    assert trace.get_current_span() is parent

    anyio.run(main, backend=backend)
    spans = {span.name: span for span in recorded.spans}
    assert spans["chat"].parent == spans["read"].context
    assert spans["chat"].context.trace_id == spans["read"].context.trace_id


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_is_current_while_the_request_is_sent_and_no_longer(
    backend: str, server: RawServer, recorded: Recorded
) -> None:
    seen: list[trace.Span] = []
    server.answer(*body('{"message": "slow down"}', 429, retry_after="0"))
    server.answer(*ANSWER)

    async def note(_: object) -> None:
        seen.append(trace.get_current_span())

    async def main() -> None:
        outside = trace.get_current_span()
        hooks: Any = {"request": [note], "response": [note]}
        async with httpx.AsyncClient(event_hooks=hooks) as http:
            client = client_with(server, recorded, http_client=http)
            async with client.chat_completion("Hi") as opened:
                assert trace.get_current_span() is outside
                await opened.until_done()
            assert trace.get_current_span() is outside

    anyio.run(main, backend=backend)
    assert [span.get_span_context() for span in seen] == [recorded.span.context] * 4
    assert recorded.attributes["chatapi.attempts"] == 2


@pytest.mark.parametrize("options", [{}, {"tracer_provider": NoOpTracerProvider()}])
async def test_an_abandoned_request_leaves_no_context_and_no_complaint(
    options: Any, server: RawServer, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(HOLD)
    outside = get_current()
    async with client_with(server, recorded, telemetry=recorded.telemetry(**options)) as client:
        for where in (contextvars.copy_context(), contextvars.copy_context()):
            read = client.chat_completion("Hi").__anext__()
            where.run(read.send, None)
            assert where.run(get_current) is not outside
            assert get_current() is outside
        where.run(read.close)
        assert where.run(get_current) is outside
        read = client.chat_completion("Hi").__anext__()
        contextvars.copy_context().run(read.send, None)
        read.close()  # in another context, as the garbage collector may
        assert get_current() is outside
    del read
    assert len(recorded.spans) == (0 if options else 3)
    assert caplog.records == []


async def test_the_request_is_read_once_for_the_whole_stream(
    server: RawServer, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    whole = ChatCompletionRequest.model_validate_json
    monkeypatch.setattr(ChatCompletionRequest, "model_validate_json", lambda body: read.append(body) or whole(body))
    server.answer(*ANSWER)
    async with client_with(server, recorded, on_end=lambda end: read.append(end.request.model)) as client:
        await client.chat_completion("Hi", model="small").until_done()
    assert read == [server.requests[0].body, "small"]


async def test_content_that_cannot_be_written_costs_no_more_than_itself(
    server: RawServer, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapi_async.otel.content", lambda _: 1 / 0)
    server.answer(*stream(chunk("Hel"), CLOSE))
    async with client_with(server, recorded, telemetry=recorded.telemetry(capture_content=True)) as client:
        with pytest.raises(ChatAPIError):
            await client.chat_completion("Hi").until_done()
    assert recorded.attributes["error.type"] == "StreamTruncatedError"
    assert recorded.span.status.status_code is StatusCode.ERROR
    assert recorded.points()["gen_ai.client.inference.duration"][0].count == 1


# ── content ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def get_weather(city: str) -> None:
    """Tells the weather."""


CALL = MessageToolCall.model_validate(
    {"id": "call_1", "function": {"name": "get_weather", "arguments": '{"city": "仙台"}'}}
)
TALK = [
    Message.system("Be brief."),
    Message.user([{"type": "text", "text": "Weather?"}, {"type": "image_url", "image_url": {"url": "https://a/b"}}]),  # type: ignore[list-item]
    Message.assistant(tool_calls=[CALL]),
    Message.tool("rain", tool_call_id="call_1"),
]
CALLING = {"index": 0, "id": "call_2", "function": {"name": "get_weather", "arguments": '{"city": '}}
THINKING = event({"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "Hm. "}}]})
TOOL_CALL = event({"choices": [{"index": 0, "delta": {"tool_calls": [CALLING]}, "finish_reason": "length"}]})


async def _talk(server: RawServer, recorded: Recorded, **options: Any) -> dict[str, Any]:
    server.answer(*stream(THINKING, chunk("雨"), TOOL_CALL, DONE))
    async with client_with(server, recorded, telemetry=recorded.telemetry(**options)) as client:
        await client.chat_completion(TALK, tools=[Tool.from_function(get_weather)]).until_done()
    return recorded.attributes


async def test_content_is_recorded_where_it_is_asked_for(server: RawServer, recorded: Recorded) -> None:
    attributes = await _talk(server, recorded, capture_content=True)
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "Weather?"},
                {"type": "image_url", "image_url": {"url": "https://a/b"}},
            ],
        },
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "call_1", "name": "get_weather", "arguments": {"city": "仙台"}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "rain"}]},
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm. "},
                {"type": "text", "content": "雨"},
                {"type": "tool_call", "id": "call_2", "name": "get_weather", "arguments": '{"city": '},
            ],
        }
    ]
    (tool,) = json.loads(attributes["gen_ai.tool.definitions"])
    assert (tool["type"], tool["name"], tool["description"]) == ("function", "get_weather", "Tells the weather.")
    assert tool["parameters"]["required"] == ["city"]
    assert "仙台" in attributes["gen_ai.input.messages"]


@pytest.mark.parametrize(
    ("value", "given", "recorded_content"),
    [
        (None, None, False),
        ("", None, False),
        ("NO_CONTENT", None, False),
        ("EVENT_ONLY", None, False),
        ("SPAN_ONLY", None, True),
        ("span_and_event", None, True),
        ("SPAN_ONLY", False, False),
        ("NO_CONTENT", True, True),
    ],
)
async def test_whether_content_is_recorded(
    value: str | None,
    given: bool | None,
    recorded_content: bool,
    server: RawServer,
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if value is not None:
        monkeypatch.setenv(CAPTURE, value)
    attributes = await _talk(server, recorded, capture_content=given)
    found = {name for name in attributes if name.endswith((".messages", ".definitions"))}
    expected = {"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions"}
    assert found == (expected if recorded_content else set())
    assert ("雨" in recorded.span.to_json(indent=None).encode().decode("unicode_escape")) == recorded_content
    assert caplog.text == ""


def test_a_value_that_means_nothing_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CAPTURE, "true")
    assert not OpenTelemetry()._capture_content
    assert f"{CAPTURE}='true' is none of NO_CONTENT, EVENT_ONLY, SPAN_ONLY, SPAN_AND_EVENT" in caplog.text


def test_a_word_does_not_turn_content_on() -> None:
    with pytest.raises(ConfigurationError, match="capture_content='False' must be True, False or None"):
        OpenTelemetry(capture_content="False")  # type: ignore[arg-type]


async def test_an_answer_without_choices_has_no_messages(server: RawServer, recorded: Recorded) -> None:
    server.answer(*stream(DONE))
    async with client_with(server, recorded, telemetry=recorded.telemetry(capture_content=True)) as client:
        with pytest.raises(ChatAPIError):
            await client.chat_completion("Hi").until_done()
    assert "gen_ai.input.messages" in recorded.attributes
    assert "gen_ai.output.messages" not in recorded.attributes


def content_of(*messages: Message) -> str:
    """The messages of a request, as a span has them."""
    body = ChatCompletionRequest(messages=list(messages)).to_body()
    call = stream_call("http://localhost", {"x-operator-id": "tn_1"}, body, None)
    end = stream_end(
        call,
        completeness="complete",
        error=None,
        stats=StreamStats(None, 0, 0, 0, 0.0),
        status_code=None,
        request_id=None,
        attempts=1,
        accumulator=MessageAccumulator(),
    )
    written = content(end)["gen_ai.input.messages"]
    assert isinstance(written, str)
    return written


OBJECTS = st.dictionaries(st.text(), st.none() | st.text(st.characters()), max_size=2).map(json.dumps)


@given(st.text(), st.text() | OBJECTS)
def test_any_content_can_be_exported(text: str, arguments: str) -> None:
    call = MessageToolCall.model_validate({"id": text, "function": {"name": text, "arguments": arguments}})
    messages = [Message.assistant(text, tool_calls=[call], reasoning=text), Message.tool(text, tool_call_id=text)]
    written = content_of(*messages)
    written.encode("utf-8")
    assistant, tool = json.loads(written)
    assert "".join(part["content"] for part in assistant["parts"] if part["type"] == "text") == text
    assert tool["parts"] == [{"type": "tool_call_response", "id": text, "response": text}]


@pytest.mark.parametrize("arguments", ['{"half": "\\ud83d"}', "[" * 100_000, '"\\ud83d"', "[1]"])
def test_odd_arguments_can_be_exported(arguments: str) -> None:
    call = MessageToolCall.model_validate({"function": {"name": "f", "arguments": arguments}})
    message = Message.assistant(tool_calls=[call])
    written = content_of(message)
    written.encode("utf-8")
    ((call_part,),) = [each["parts"] for each in json.loads(written)]
    assert call_part["arguments"] == (json.loads(arguments) if arguments[0] == "{" else arguments)


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_metrics_of_a_stream(server: RawServer, recorded: Recorded) -> None:
    server.answer(*ANSWER)
    async with client_with(server, recorded) as client:
        await client.chat_completion("Hi", model="small").until_done()
    points = recorded.points()
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "chatapi",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "openai:gpt-4o-2024",
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    counted = {name: points.pop(f"gen_ai.client.inference.usage.{name}") for name in (
        "input_tokens", "output_tokens", "cache_read.input_tokens", "cache_write.input_tokens",
        "reasoning.output_tokens",
    )}  # fmt: skip
    assert [point.value for (point,) in counted.values()] == [30, 20, 7, 5, 9]
    for (point,) in counted.values():
        assert dict(point.attributes) == {**common, "gen_ai.token.modality": "unknown"}
    assert {name.removeprefix("gen_ai.client.inference."): point.sum for name, (point,) in points.items()} == {
        "operation.input_tokens": 30,
        "operation.output_tokens": 20,
        "time_to_first_chunk": pytest.approx(recorded.attributes["gen_ai.response.time_to_first_chunk"]),
        "duration": pytest.approx(points["gen_ai.client.inference.duration"][0].sum),
    }
    for (point,) in points.values():
        assert dict(point.attributes) == common
    (duration,) = points["gen_ai.client.inference.duration"]
    assert duration.explicit_bounds[0] == 0.01
    assert duration.explicit_bounds[-1] == pytest.approx(81.92)
    span = recorded.span
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < duration.sum <= (span.end_time - span.start_time) / 1e9
    (tokens,) = points["gen_ai.client.inference.operation.input_tokens"]
    assert (tokens.explicit_bounds[:3], tokens.explicit_bounds[-1]) == ((1, 4, 16), 67108864)


async def test_the_metrics_of_an_error(server: RawServer, recorded: Recorded) -> None:
    server.answer(*body('{"message": "no"}', 401))
    async with client_with(server, recorded) as client:
        with pytest.raises(ChatAPIError):
            await client.chat_completion("Hi").until_done()
    points = recorded.points()
    (duration,) = points["gen_ai.client.inference.duration"]
    assert duration.attributes["error.type"] == "AuthenticationError"
    assert "gen_ai.client.inference.time_to_first_chunk" not in points
    for name in ("input_tokens", "output_tokens"):
        (used,), (one,) = (points[f"gen_ai.client.inference.{kind}.{name}"] for kind in ("usage", "operation"))
        assert (used.value, one.sum, one.count) == (0, 0, 1)
        assert "error.type" not in used.attributes
        assert one.attributes["error.type"] == "AuthenticationError"


# ── many, and none ───────────────────────────────────────────────────────────────────────────────────────────────────


async def leave_somehow(
    client: AsyncChatClient, kept: list[ChatStream[Any]], number: int, chance: random.Random
) -> None:
    opened = client.chat_completion(f"no. {number}")
    for _ in range(chance.randrange(4)):
        with suppress(StopAsyncIteration):
            await anext(opened)
    await opened
    match chance.randrange(7):
        case 0:
            await opened.stop()
        case 1:
            await opened.aclose()
        case 2:
            kept.append(opened)
        case 3:
            with anyio.move_on_after(chance.choice((0, 0.001, 0.003))):
                await opened.until_done()
        case 4:
            with anyio.move_on_after(chance.choice((0.003, 0.01))):
                async for _ in heartbeat(opened):
                    pass
        case 5:
            with anyio.move_on_after(0.5):
                await opened.until_done()
        case _:
            cycle: list[Any] = [opened]
            cycle.append(cycle)


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")  # trio warns of what is forgotten
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thousand_streams_that_are_left_in_all_ways_have_a_thousand_spans(backend: str, recorded: Recorded) -> None:
    ends: list[StreamEnd] = []
    kept: list[ChatStream[Any]] = []
    chance = random.Random(11)
    telemetry = recorded.telemetry(capture_content=True)

    async def main() -> None:
        clients = [client_of(server, telemetry=telemetry, on_end=ends.append) for _ in range(25)]
        limiter = anyio.CapacityLimiter(100)

        async def one(number: int) -> None:
            async with limiter:
                await leave_somehow(clients[number % 25], kept, number, chance)

        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(one, number)

    with CrowdServer(AtRandom(11)) as server:
        anyio.run(main, backend=backend)
        gc.collect()
    assert kept
    asked = Counter(str((span.attributes or {})["gen_ai.input.messages"]) for span in recorded.spans)
    assert Counter(asked.values()) == {1: 1000}
    assert len(ends) == 1000
    assert sum(point.count for point in recorded.points()["gen_ai.client.inference.duration"]) == 1000


async def test_what_is_not_sampled_is_counted_all_the_same(server: RawServer, recorded: Recorded) -> None:
    recorded.tracers.sampler = ALWAYS_OFF
    server.answer(*ANSWER)
    async with client_with(server, recorded, telemetry=recorded.telemetry(capture_content=True)) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    assert recorded.spans == ()
    assert recorded.points()["gen_ai.client.inference.duration"][0].count == 1


async def test_without_an_sdk_nothing_is_recorded_and_all_works(server: RawServer) -> None:
    server.answer(*ANSWER)
    telemetry = OpenTelemetry(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    async with client_of(server, telemetry=telemetry) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"


async def test_an_exporter_that_fails_ends_no_stream(server: RawServer, recorded: Recorded, caplog: Any) -> None:
    class Failing(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise ZeroDivisionError

    recorded.tracers.add_span_processor(Failing(InMemorySpanExporter()))
    server.answer(*ANSWER)
    async with client_with(server, recorded) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    assert [record.levelno for record in caplog.records if record.name == "chatapi_async"] == [logging.ERROR]


async def test_a_span_is_ended_though_its_metrics_fail(
    server: RawServer, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapi_async.otel.of_metrics", lambda _: 1 / 0)
    server.answer(*ANSWER)
    async with client_with(server, recorded) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    assert recorded.attributes["chatapi.completeness"] == "complete"


def test_the_global_providers_may_be_set_later(server: RawServer) -> None:
    server.answer(*ANSWER)
    program = f"""
import asyncio
from chatapi_async import AsyncChatClient
from chatapi_async.otel import OpenTelemetry
client = AsyncChatClient({server.url!r}, operator_id="tn_1", token="t", telemetry=OpenTelemetry())
from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
asyncio.run(client.chat_completion("Hi", model="small").until_done())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["name"] == "chat small"


def test_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; import chatapi_async.otel"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: chatapi_async.otel needs opentelemetry-api; pip install 'chatapi-async[otel]'" in done.stderr


async def test_a_span_that_is_forgotten_is_ended_by_the_loop(server: RawServer, recorded: Recorded) -> None:
    server.answer(*OPEN)
    async for _ in client_with(server, recorded).chat_completion("Hi"):
        break
    await wait_for(lambda: len(recorded.spans) == 1, "the span")
    assert recorded.attributes["chatapi.completeness"] == "stopped"
