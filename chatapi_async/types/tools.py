"""Tools: the functions that a model may ask the caller to run."""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Callable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, create_model

_ARGUMENTS = re.compile(r"^(?:Args|Arguments|Parameters):[ \t]*\n(?P<lines>(?:[ \t]+\S.*\n?|[ \t]*\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"\*{0,2}(?P<name>\w+)[ \t]*(?:\(.*?\))?:[ \t]*(?P<text>.*)")


class ToolSchema(BaseModel):
    """JSON Schema of a function's arguments. The contract requires all three keys; others are kept and sent."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(default="object")
    """JSON Schema type of the arguments: ``"object"``."""

    properties: dict[str, Any] = Field(default_factory=dict)
    """Schema of each argument by its name."""

    required: list[str] = Field(default_factory=list)
    """Names of the arguments that must be given; may be empty."""

    def model_post_init(self, context: Any, /) -> None:
        # The contract requires these keys, so they are sent whether or not the caller gave them.
        self.model_fields_set.update(("type", "properties", "required"))


class Function(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(extra="allow")

    name: str
    """Name by which the model calls it."""

    description: str
    """What the function does: the model decides by this text whether to call it."""

    parameters: ToolSchema
    """Schema of the arguments."""

    strict: bool | None = None
    """Whether the provider must hold the model to the schema; not sent where it is not set."""


class Tool(BaseModel):
    """An entry of the request's ``tools``."""

    model_config = ConfigDict(extra="allow")

    type: str = "function"
    """Kind of the tool: ``"function"``."""

    function: Function
    """The function."""

    def model_post_init(self, context: Any, /) -> None:
        self.model_fields_set.add("type")

    @classmethod
    def from_model(
        cls,
        model: builtins.type[BaseModel],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> Self:
        """Make a tool whose arguments are the fields of a pydantic model.

        Args:
            model: its JSON Schema becomes ``parameters``; ``MessageToolCall.parse(model)`` reads the arguments back.
            name: the function's name; the model's class name by default.
            description: what it does; the model's docstring by default.
            strict: sent as it is, if given.

        Raises:
            ValueError: neither ``description`` nor the docstring says what the tool does.
        """
        schema = model.model_json_schema()
        about = description or inspect.cleandoc(model.__doc__ or "")
        return cls._from_schema(schema, name or model.__name__, about, strict)

    @classmethod
    def from_function(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> Self:
        """Make a tool from a function's signature, annotations and docstring.

        Args:
            function: sync or async; its parameters become the arguments, those without a default are required. An
                argument is described by ``Annotated[..., Field(description=...)]``, or else in the ``Args:`` section of
                the docstring, as here.
            name: the function's own name by default; needed for a callable that has none.
            description: the docstring by default.
            strict: sent as it is, if given.

        Raises:
            ValueError: neither ``description`` nor the docstring says what the tool does, it has no name, or it takes
                ``*args``, ``**kwargs`` or positional-only parameters, which a schema cannot name.
        """
        name = name or getattr(function, "__name__", None)
        if name is None:
            raise ValueError(f"{function!r} has no name of its own; give one")
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ValueError(
                    f"{name}() takes {parameter}, which has no name that a model could give; "
                    "pass a function whose parameters can all be named"
                )
            annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
            default = ... if parameter.default is parameter.empty else parameter.default
            # A field of a model cannot have every name that a parameter can; an alias can.
            fields[f"parameter_{len(fields)}"] = (annotation, Field(default, alias=parameter.name))
        schema = create_model(name, **fields).model_json_schema()
        docstring = inspect.cleandoc(function.__doc__ or "")
        for argument, text in _described_arguments(docstring).items():
            if text and argument in schema.get("properties", {}):
                schema["properties"][argument].setdefault("description", text)
        about = description or docstring
        return cls._from_schema(schema, name, about, strict)

    @classmethod
    def _from_schema(cls, schema: dict[str, Any], name: str, description: str, strict: bool | None) -> Self:
        if not description:
            raise ValueError(f"{name} has no docstring; give a description, since the model chooses a tool by it")
        parameters = {key: value for key, value in schema.items() if key not in ("title", "description")}
        fields: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
        if strict is not None:
            fields["strict"] = strict
        return cls(function=Function.model_validate(fields))


def _described_arguments(docstring: str) -> dict[str, str]:
    """Read the ``Args:`` section of a docstring that is free of indentation."""
    described: dict[str, str] = {}
    section = _ARGUMENTS.search(docstring)
    lines = inspect.cleandoc("\n" + section["lines"]).splitlines() if section else []
    name = ""
    for line in lines:
        if argument := _ARGUMENT.fullmatch(line):
            name = argument["name"]
            described[name] = argument["text"]
        elif not line or line[0].isspace():
            described[name] = f"{described.get(name, '')} {line.strip()}".strip()
        else:
            name = ""  # no argument begins here, so what follows is of none
    return described
