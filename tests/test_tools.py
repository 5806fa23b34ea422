"""Tools made of functions and models, and answers read back into models."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from chatapi_async import ChatCompletionResponse, FunctionCall, Message, MessageToolCall, Tool
from chatapi_async.errors import AnswerParseError


class Place(BaseModel):
    """Looks a place up.

    Nothing else.
    """

    name: str
    zoom: int = 3


class Undescribed(BaseModel):
    name: str


def weather(location: str, days: int = 1) -> str:
    """Tell the weather.

    Whatever it is.
    """
    return f"{location} {days}"


async def weather_soon(location: str) -> str:
    """Tell the weather."""
    return location


def described(
    city: Annotated[str, Field(description="Name of the city", max_length=40)],
    unit: Literal["celsius", "fahrenheit"] = "celsius",
    *,
    note: str | None = None,
    place: Place,
) -> None:
    """Do it."""


def bare(anything, other=2):
    """Do it."""


def nothing() -> None:
    """Do it."""


def parameters(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters.model_dump()


class Station:
    def measure(self, depth: float) -> float:
        """Measure."""
        return depth

    def __call__(self, depth: float) -> float:
        """Measure."""
        return depth


@pytest.mark.parametrize(
    ("function", "properties", "required"),
    [
        (
            weather,
            {
                "location": {"title": "Location", "type": "string"},
                "days": {"title": "Days", "type": "integer", "default": 1},
            },
            ["location"],
        ),
        (weather_soon, {"location": {"title": "Location", "type": "string"}}, ["location"]),
        (
            described,
            {
                "city": {"title": "City", "type": "string", "description": "Name of the city", "maxLength": 40},
                "unit": {
                    "title": "Unit",
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "default": "celsius",
                },
                "note": {"title": "Note", "anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "place": {"$ref": "#/$defs/Place"},
            },
            ["city", "place"],
        ),
        (bare, {"anything": {"title": "Anything"}, "other": {"title": "Other", "default": 2}}, ["anything"]),
        (nothing, {}, []),
        (Station().measure, {"depth": {"title": "Depth", "type": "number"}}, ["depth"]),
    ],
)
def test_a_tools_parameters_are_the_functions(function: Any, properties: dict[str, Any], required: list[str]) -> None:
    schema = parameters(Tool.from_function(function))
    assert (schema["type"], schema["properties"], schema["required"]) == ("object", properties, required)


def test_a_model_among_the_parameters_brings_its_definition() -> None:
    definitions = parameters(Tool.from_function(described))["$defs"]
    assert definitions["Place"]["properties"]["zoom"]["default"] == 3


def documented(city: str, unit: Annotated[str, Field(description="As written")], *, day: Place, note: str = "") -> None:
    """Tell the weather.

    Args:
        city (str): Name: of the city,
            on two lines.
        unit: not this
        day: A place.
        nobody: no such argument
        note:
        no argument at all
            that goes on

    Returns:
        note: none
    """


def test_arguments_are_described_by_the_docstring_where_no_annotation_does() -> None:
    properties = parameters(Tool.from_function(documented))["properties"]
    assert {name: schema.get("description") for name, schema in properties.items()} == {
        "city": "Name: of the city, on two lines.",
        "unit": "As written",
        "day": "A place.",
        "note": None,
    }


def test_a_tool_is_named_and_described_by_its_function() -> None:
    function = Tool.from_function(weather).function
    assert (function.name, function.description) == ("weather", "Tell the weather.\n\nWhatever it is.")
    assert "title" not in parameters(Tool.from_function(weather))


def test_a_tool_is_named_and_described_by_its_model() -> None:
    tool = Tool.from_model(Place)
    assert (tool.function.name, tool.function.description) == ("Place", "Looks a place up.\n\nNothing else.")
    assert parameters(tool) == {
        "type": "object",
        "properties": {
            "name": {"title": "Name", "type": "string"},
            "zoom": {"title": "Zoom", "type": "integer", "default": 3},
        },
        "required": ["name"],
    }


@pytest.mark.parametrize(
    "tool",
    [
        Tool.from_function(lambda: None, name="n", description="d", strict=True),
        Tool.from_model(Undescribed, name="n", description="d", strict=True),
    ],
)
def test_name_description_and_strict_can_be_given(tool: Tool) -> None:
    function = tool.model_dump(exclude_unset=True)["function"]
    assert (function["name"], function["description"], function["strict"]) == ("n", "d", True)


@pytest.mark.parametrize("tool", [Tool.from_function(nothing), Tool.from_model(Place)])
def test_strict_is_not_sent_unless_it_is_given(tool: Tool) -> None:
    assert set(tool.model_dump(exclude_unset=True)["function"]) == {"name", "description", "parameters"}


def test_a_tool_without_a_description_is_refused() -> None:
    with pytest.raises(ValueError, match="Undescribed has no docstring"):
        Tool.from_model(Undescribed)
    with pytest.raises(ValueError, match="no docstring"):
        Tool.from_function(lambda: None)


def variadic(*words: str) -> None:
    """Do it."""


def open_ended(**options: str) -> None:
    """Do it."""


def positional(word: str, /) -> None:
    """Do it."""


@pytest.mark.parametrize(("function", "named"), [(variadic, "*words"), (open_ended, "**options"), (positional, "word")])
def test_a_parameter_that_a_schema_cannot_name_is_refused(function: Any, named: str) -> None:
    with pytest.raises(ValueError, match="has no name that a model could give") as caught:
        Tool.from_function(function)
    assert f"takes {named}" in str(caught.value)


def awkward(schema: str, copy: bool, _raw: bool, model_config: str, model_dump: str, json: str = "") -> None:
    """Do it."""


def test_a_parameter_may_have_any_name() -> None:
    schema = parameters(Tool.from_function(awkward))
    assert list(schema["properties"]) == ["schema", "copy", "_raw", "model_config", "model_dump", "json"]
    assert schema["required"] == ["schema", "copy", "_raw", "model_config", "model_dump"]


@pytest.mark.parametrize("function", [functools.partial(weather, days=2), Station()])
def test_a_callable_without_a_name_is_a_tool_once_it_is_given_one(function: Any) -> None:
    assert Tool.from_function(function, name="n", description="d").function.name == "n"


@pytest.mark.parametrize("function", [functools.partial(weather, days=2), Station()])
def test_a_callable_without_a_name_needs_one(function: Any) -> None:
    with pytest.raises(ValueError, match="no name of its own; give one"):
        Tool.from_function(function, description="d")


# ── reading answers back ─────────────────────────────────────────────────────────────────────────────────────────────


def call(arguments: str) -> MessageToolCall:
    return MessageToolCall(id="call_1", function=FunctionCall(name="Place", arguments=arguments))


def answer(message: Message) -> ChatCompletionResponse:
    return ChatCompletionResponse.model_validate({"choices": [{"message": message.model_dump()}]})


@pytest.mark.parametrize(
    "message",
    [
        Message.assistant('{"name": "Sendai"}'),
        Message.assistant(tool_calls=[call('{"name": "Sendai"}'), call("{}")]),
        Message.assistant("", tool_calls=[call('{"name": "Sendai"}')]),
        Message.assistant('{"name": "Sendai"}', tool_calls=[call("{}")]),
    ],
)
def test_parse_reads_the_text_or_else_the_first_calls_arguments(message: Message) -> None:
    assert answer(message).parse(Place) == Place(name="Sendai", zoom=3)


def test_a_call_parses_its_arguments() -> None:
    assert call('{"name": "Sendai", "zoom": 9}').parse(Place) == Place(name="Sendai", zoom=9)


@pytest.mark.parametrize("text", ["", "no JSON", '{"name": "Sendai"', '{"zoom": 1}', "[]", '"\\ud83d"', "[" * 1000])
def test_an_answer_that_does_not_fit_raises_one_error(text: str) -> None:
    for parse in (answer(Message.assistant(text)).parse, call(text).parse):
        with pytest.raises(AnswerParseError) as caught:
            parse(Place)
        assert caught.value.text == text
        assert isinstance(caught.value.__cause__, ValidationError)


def test_a_completion_without_choices_does_not_fit() -> None:
    with pytest.raises(AnswerParseError, match="There is no text"):
        ChatCompletionResponse().parse(Place)
