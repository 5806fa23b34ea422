"""Answers that are JSON: whole as an instance of a model, and as growing snapshots while they are written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import anyio
import pytest
from pydantic import BaseModel, RootModel, ValidationError

from chatapi_async import (
    AsyncChatClient,
    ChatCompletionResponse,
    ChatStream,
    ConfigurationError,
    Message,
    ServerStreamError,
    StreamClosedError,
    StreamTruncatedError,
    _iterators,
    _partial,
)
from chatapi_async.errors import AnswerParseError
from tests.raw_server import DONE, HOLD, RawServer, chunk, client_of, event, stream


class Place(BaseModel):
    name: str
    zoom: int = 3


PIECES = ['{"na', 'me": "Sen', 'dai", ', '"zoom": 1', "2}"]
GROWN = [{}, {"name": "Sen"}, {"name": "Sendai"}, {"name": "Sendai", "zoom": 12}]
PLACE = Place(name="Sendai", zoom=12)


def answer(*pieces: str, finish: str = "stop") -> tuple[Any, ...]:
    return stream(*map(chunk, pieces), chunk("", finish), DONE)


def call(arguments: str, **fields: Any) -> bytes:
    fragment = {"index": 0, "function": {"arguments": arguments, **fields}}
    return event({"choices": [{"index": 0, "delta": {"tool_calls": [fragment]}}]})


@pytest.fixture
def place(server: RawServer, client: AsyncChatClient) -> ChatStream[Any]:
    """A stream that will write a place in five pieces."""
    server.answer(*answer(*PIECES))
    return client.chat_completion("Where?")


async def collected(objects: AsyncIterator[Any]) -> tuple[list[Any], Exception | None]:
    """What an iterator gives, and what it raises."""
    found: list[Any] = []
    try:
        async for each in objects:
            found.append(each)
    except Exception as error:
        return found, error
    return found, None


# ── the whole answer ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_final_answer_is_an_instance_of_the_model(place: ChatStream[Any]) -> None:
    assert await place.get_final_parsed(Place) == PLACE
    assert await place.get_final_parsed(Place) == PLACE


async def test_the_final_answer_of_a_tool_call_is_its_arguments(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(call('{"name":', name="look"), call('"Sendai"}'), chunk("", "tool_calls"), DONE))
    assert await client.chat_completion("Where?").get_final_parsed(Place) == Place(name="Sendai")


async def test_an_answer_that_does_not_fit_says_what_and_why(server: RawServer, client: AsyncChatClient) -> None:
    text = '{"zoom": "' + "far " * 100
    server.answer(*stream(chunk(text, "length"), DONE, x_request_id="req_1"))
    with pytest.raises(AnswerParseError) as caught:
        await client.chat_completion("Where?").get_final_parsed(Place)
    error = caught.value
    assert (error.text, error.request_id, error.retryable) == (text, "req_1", False)
    assert error.partial is not None
    assert (error.partial.text, error.partial.completeness) == (text, "complete")
    assert isinstance(error.__cause__, ValidationError)
    message = str(error)
    assert message.startswith("cannot make a Place of the answer: Invalid JSON: EOF while parsing a string")
    assert "cut at max_completion_tokens (finish_reason 'length')" in message
    assert 'The text (410 characters): {"zoom": "far far' in message
    assert len(message) < 600


async def test_a_failure_of_the_stream_is_raised_as_it_is(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk('{"name": "Sendai"}')))
    with pytest.raises(StreamTruncatedError):
        await client.chat_completion("Where?").get_final_parsed(Place)


def completion(text: str, completeness: str = "complete", **fields: Any) -> ChatCompletionResponse:
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    return ChatCompletionResponse.model_validate(
        {"choices": [{"message": message, **fields}], "completeness": completeness}
    )


@pytest.mark.parametrize(
    ("unfit", "said"),
    [
        (completion("{}", "stopped"), "It was stopped before its end"),
        (completion("{}", "truncated"), "its end has not come"),
        (completion("{}", "failed"), "an error ended it"),
        (completion("{}", finish_reason="content_filter"), "A filter ended it"),
        (completion("", message={"refusal": "I will not."}), "The model refused: I will not; cannot make a Place of"),
        (completion("\n```json\n{}\n```"), "It is in a Markdown code fence: ask for bare JSON"),
        (completion("Sure! {}"), "It begins with prose: ask for bare JSON"),
        (completion("  {\n  }"), "The text (7 characters): { }"),
        (completion('{"name": 1, "zoom": "x"}'), "name: Input should be a valid string; zoom: Input should be"),
        (
            completion("", message={"tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}),
            "cannot make a Place of the arguments of 'look': name: Field required",
        ),
    ],
)
def test_the_message_says_why_it_may_be(unfit: ChatCompletionResponse, said: str) -> None:
    with pytest.raises(AnswerParseError) as caught:
        unfit.parse(Place)
    assert said in str(caught.value)
    assert caught.value.partial is unfit


@pytest.mark.parametrize("text", ["", "{", "[1]", "-1", "null", '"no', "\ufeff{}", '{"zoom": "```"}'])
def test_the_message_says_nothing_of_a_beginning_that_is_json(text: str) -> None:
    with pytest.raises(AnswerParseError) as caught:
        completion(text).parse(Place)
    assert "ask for bare JSON" not in str(caught.value)


@pytest.mark.parametrize("kind", [list[Place], dict, dict[str, Any], Place | None, "Place", PLACE, None])
async def test_what_is_no_model_is_refused_before_anything_is_read(kind: Any, place: ChatStream[Any]) -> None:
    message = Message.assistant(tool_calls=[{"function": {"name": "look", "arguments": "{}"}}])  # type: ignore[list-item]
    assert message.tool_calls is not None
    for parse in (completion("{}").parse, message.tool_calls[0].parse):
        with pytest.raises(ConfigurationError, match=r"pass a RootModel, such as RootModel\[list\[Place\]\]"):
            parse(kind)
    with pytest.raises(ConfigurationError, match=r"get_final_parsed\(\) takes a pydantic model, not "):
        await place.get_final_parsed(kind)
    assert place.status_code is None


def test_a_root_model_reads_what_is_no_object() -> None:
    assert completion('[{"name": "Sendai"}]').parse(RootModel[list[Place]]).root == [Place(name="Sendai")]


def test_a_message_is_of_a_bounded_length_and_counts_what_it_leaves_out() -> None:
    class Row(BaseModel):
        number: int

    class Table(BaseModel):
        rows: dict[str, Row]

    text = json.dumps({"rows": {f"{number}{'x' * 500}": {"number": "no"} for number in range(50)}})
    with pytest.raises(AnswerParseError, match=r"\(and 47 more\)") as caught:
        completion(text, "stopped", finish_reason="length", message={"refusal": "no" * 500}).parse(Table)
    assert len(str(caught.value)) < 1024


def test_a_tool_call_that_does_not_fit_has_no_completion() -> None:
    unfit = Message.assistant(tool_calls=[{"function": {"name": "look", "arguments": "["}}])  # type: ignore[list-item]
    assert unfit.tool_calls is not None
    with pytest.raises(AnswerParseError, match="of the arguments of 'look'") as caught:
        unfit.tool_calls[0].parse(Place)
    assert (caught.value.text, caught.value.partial) == ("[", None)


@pytest.mark.parametrize("way", ["final", "snapshots"])
async def test_a_token_in_an_answer_that_does_not_fit_is_not_shown(way: str, server: RawServer) -> None:
    server.answer(*answer('{"token": "Bearer hush-7c1e"}'))
    async with client_of(server, token="hush-7c1e") as client:
        reading = client.chat_completion("Where?")
        if way == "final":
            with pytest.raises(AnswerParseError) as caught:
                await reading.get_final_parsed(Place)
            error: Exception | None = caught.value
        else:
            _, error = await collected(reading.partial_objects(Place))
    assert isinstance(error, AnswerParseError)
    assert "hush" not in f"{error} {error.text} {error.args} {error.__cause__} {error.__context__}"
    assert "[token]" in str(error)


# ── snapshots ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_snapshots_grow_with_each_chunk(place: ChatStream[Any]) -> None:
    assert [each async for each in place.partial_objects(dict, every=0)] == GROWN


async def test_snapshots_of_a_model_are_instances_of_it(place: ChatStream[Any]) -> None:
    found = [each async for each in place.partial_objects(Place, every=0)]
    assert {type(each) for each in found} == {Place}
    assert [(each.name, each.zoom) for each in found] == [(None, 3), ("Sen", 3), ("Sendai", 3), ("Sendai", 12)]
    assert found[-1] == PLACE


async def test_snapshots_of_tool_arguments(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*map(call, PIECES), chunk("", "tool_calls"), DONE))
    assert [each async for each in client.chat_completion("Where?").partial_objects(dict, every=0)] == GROWN


async def test_snapshots_are_those_of_the_first_choice(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk('{"a": "no"', index=1), chunk('{"a": 1}'), chunk("}", index=1), DONE))
    assert [each async for each in client.chat_completion("Where?", n=2).partial_objects(dict, every=0)] == [{"a": 1}]


async def test_what_was_read_otherwise_is_in_the_snapshots_too(place: ChatStream[Any]) -> None:
    assert (await anext(place)).text == PIECES[0]
    objects = place.partial_objects(dict, every=0)
    assert await anext(objects) == {}
    assert (await anext(place)).text == PIECES[1]
    assert await anext(place.text_stream) == PIECES[2]
    assert await anext(objects) == GROWN[2]
    assert await anext(objects) == GROWN[3]
    with pytest.raises(StopAsyncIteration):
        await anext(objects)
    assert [each async for each in place.partial_objects(Place)] == [PLACE]


class Counted:
    """Counts how often a text is parsed, by a clock that stands until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.cost = 0.0
        self.texts: list[str] = []
        parse = _partial.parse_partial

        def counting(text: str) -> Any:
            self.texts.append(text)
            self.now += self.cost
            return parse(text)

        monkeypatch.setattr(_partial, "parse_partial", counting)
        monkeypatch.setattr(_iterators, "monotonic", lambda: self.now)


async def test_however_many_chunks_come_one_snapshot_is_parsed_in_an_interval(
    server: RawServer, client: AsyncChatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    gate = server.gate()
    noise = [chunk(reasoning_content="hm") for _ in range(5)]
    pieces = [chunk("x") for _ in range(200)]
    server.answer(*stream(*noise, chunk('{"a": "'), *pieces, gate, *pieces, chunk('"}', "stop"), DONE))
    stream_ = client.chat_completion("Where?")
    objects = stream_.partial_objects(dict, every=0.5)
    found = [await anext(objects)]
    async for each in stream_:
        if each.text:
            break
    await gate.reached()
    counted.now += 0.6
    gate.open()
    found += [each async for each in objects]
    assert [len(each["a"]) for each in found] == [0, 2, 400]
    assert [len(text) for text in counted.texts] == [7, 9]


async def test_a_snapshot_that_takes_long_is_followed_by_a_longer_pause(
    server: RawServer, client: AsyncChatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    counted.cost = 1.0
    server.answer(*answer(*PIECES))
    objects = client.chat_completion("Where?").partial_objects(dict, every=0.5)
    found = [await anext(objects)]
    counted.now += 3.9
    counted.cost = 0.0
    found += [each async for each in objects]
    assert found == [GROWN[0], GROWN[-1]]


async def test_without_an_interval_each_chunk_that_changes_it_is_parsed_once(
    place: ChatStream[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    async for _ in place.partial_objects(dict, every=0):
        pass
    assert counted.texts == ["".join(PIECES[:end]) for end in range(1, 6)]


@pytest.mark.parametrize("every", [0, 1000])
async def test_an_answer_that_does_not_fit_is_an_error_after_the_snapshots(
    every: float, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*answer('{"zoom": 1, ', '"x": ', "2}"))
    objects = client.chat_completion("Where?").partial_objects(Place, every=every)
    found, error = await collected(objects)
    assert [(each.name, each.zoom) for each in found] == [(None, 1)]
    assert isinstance(error, AnswerParseError)
    assert error.text == '{"zoom": 1, "x": 2}'
    assert isinstance(error.__cause__, ValidationError)
    assert error.__cause__.__context__ is None
    with pytest.raises(StopAsyncIteration):
        await anext(objects)


@pytest.mark.parametrize("text", ["Sure!", " ", "[1, 2]", "12"])
async def test_an_answer_that_is_no_object_gives_nothing_but_an_error(
    text: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*answer(*text))
    found, error = await collected(client.chat_completion("Where?").partial_objects(dict, every=0))
    assert found == []
    assert isinstance(error, AnswerParseError)


@pytest.mark.parametrize(
    ("end", "kind"), [((), StreamTruncatedError), ((event("overloaded", "error"),), ServerStreamError)]
)
async def test_a_failure_of_the_stream_comes_after_what_had_arrived(
    end: Any, kind: type[Exception], server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(*map(chunk, PIECES[:3]), *end))
    objects = client.chat_completion("Where?").partial_objects(dict, every=1000)
    found, error = await collected(objects)
    assert found == [GROWN[0], GROWN[2]]
    assert isinstance(error, kind)
    with pytest.raises(kind):
        await anext(objects)


async def test_a_stream_that_is_stopped_does_not_fit(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk('{"name": "Sen'), HOLD))
    stream_ = client.chat_completion("Where?")
    objects = stream_.partial_objects(Place)
    assert (await anext(objects)).name == "Sen"
    await stream_.stop()
    with pytest.raises(AnswerParseError, match="stopped before its end"):
        await anext(objects)
    with pytest.raises(AnswerParseError, match="stopped before its end"):
        await stream_.get_final_parsed(Place)


def read_on_trio_and_asyncio(backend: str, server: RawServer, kind: Any) -> list[Any]:
    async def read() -> list[Any]:
        async with client_of(server) as client:
            return [each async for each in client.chat_completion("Where?").partial_objects(kind, every=0)]

    return anyio.run(read, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_snapshots_come_on_every_event_loop(backend: str, server: RawServer) -> None:
    server.answer(*answer(*PIECES))
    assert read_on_trio_and_asyncio(backend, server, dict) == GROWN


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_read_closes_the_stream(backend: str, server: RawServer) -> None:
    server.answer(*stream(chunk('{"name": "Sen'), HOLD))

    async def read() -> None:
        async with client_of(server) as client:
            objects = client.chat_completion("Where?").partial_objects(Place)
            await anext(objects)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anext, objects)
                    await anyio.sleep(0.01)
                    scope.cancel()
            await server.hung_up()
            with pytest.raises(StreamClosedError):
                await anext(objects)

    anyio.run(read, backend=backend)


@pytest.mark.parametrize(
    "view", [lambda stream_: stream_.text_stream, lambda stream_: stream_.events(), lambda s: s.partial_objects(dict)]
)
async def test_an_iterator_that_is_closed_closes_the_stream(
    view: Any, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk('{"a": "'), HOLD))
    stream_ = client.chat_completion("Where?")
    async with aclosing(view(stream_)) as objects:
        await anext(objects)
    await server.hung_up()
    assert stream_.snapshot.completeness == "stopped"
    with pytest.raises(StreamClosedError):
        await anext(stream_)


@pytest.mark.parametrize(
    ("model", "every", "said"),
    [
        (list, 1, "takes a pydantic model or dict"),
        (PLACE, 1, "takes a pydantic model or dict"),
        (Place, -1, "every=-1 is no time"),
        (dict, float("nan"), "every=nan is no time"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_at_once(
    model: Any, every: float, said: str, client: AsyncChatClient
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        client.chat_completion("Where?").partial_objects(model, every)


async def test_a_dict_may_say_what_is_in_it(place: ChatStream[Any]) -> None:
    kind = cast(Any, dict[str, Any])
    assert [each async for each in place.partial_objects(kind)][-1] == GROWN[-1]
