"""Snapshots of a JSON text that is being written: what is in them, and when there is a new one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NewType, Optional, Self, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
    field_validator,
    model_validator,
)

from chatapi_async import ChatCompletionResponse
from chatapi_async._partial import Snapshots
from chatapi_async.errors import AnswerParseError

T = TypeVar("T")


def completion(text: str, **fields: Any) -> ChatCompletionResponse:
    choice = {"message": {"role": "assistant", "content": text}}
    return ChatCompletionResponse.model_validate({"choices": [choice], **fields})


def seen(text: str, model: type[T]) -> T | None:
    """The snapshot of a text that is not at its end."""
    return Snapshots(model).so_far(completion(text))


def every_snapshot(text: str, model: type[T]) -> list[T]:
    """The snapshots of a text that comes character by character."""
    snapshots = Snapshots(model)
    found = [snapshots.so_far(completion(text[:end])) for end in range(1, len(text) + 1)]
    found.append(snapshots.last(completion(text)))
    return [snapshot for snapshot in found if snapshot is not None]


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \n", None),
        ("Sure! {", None),
        ("[1", None),
        ("12", None),
        ('"{', None),
        ("[" * 1000, None),
        ('{"a":' * 1000, None),
        ("{", {}),
        ('{"na', {}),
        ('{"name": "Sen', {"name": "Sen"}),
        ('{"name": "room 1', {"name": "room 1"}),
        ('{"days": 1', {}),
        ('{"days": 1.5e1', {}),
        ('{"days": 1,', {"days": 1}),
        ('{"days": 1, "b2', {"days": 1}),
        ('{"days": [1, 2', {"days": [1]}),
        ('{"open": tru', {}),
        ('{"open": true', {"open": True}),
    ],
)
def test_what_is_whole_and_the_string_that_grows_are_in_an_object(text: str, expected: Any) -> None:
    assert seen(text, dict) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=5), st.booleans(), st.integers(0, 2), st.data())
def test_however_it_is_cut_an_object_only_grows_to_what_it_is(
    value: dict[str, Any], ascii_only: bool, indent: int, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent or None)
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    snapshots: Snapshots[dict[str, Any]] = Snapshots(dict)
    found = [snapshots.so_far(completion(text[:end])) for end in ends]
    found.append(snapshots.last(completion(text)))
    given_ = [snapshot for snapshot in found if snapshot is not None]
    assert given_[-1] == json.loads(text)
    for before, after in itertools.pairwise(given_):
        assert set(before) <= set(after)
        assert json.dumps(before) != json.dumps(after)


# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_two_in_succession_are_equal() -> None:
    assert every_snapshot('{"a": 12, "b": "x"}  ', dict) == [{}, {"a": 12}, {"a": 12, "b": ""}, {"a": 12, "b": "x"}]


@pytest.mark.parametrize("text", ["", "no", '{"a": 1', "[1]", "1"])
@pytest.mark.parametrize("model", [dict, RootModel[dict[str, int]]])
def test_what_is_no_object_at_the_end_is_an_error(text: str, model: type[Any]) -> None:
    with pytest.raises(AnswerParseError) as caught:
        Snapshots(model).last(completion(text))
    assert caught.value.text == text


def test_only_the_first_choice_is_read() -> None:
    second = {"index": 1, "message": {"content": '{"a": "no"}', "role": "assistant"}}
    assert Snapshots(dict).so_far(ChatCompletionResponse.model_validate({"choices": [second]})) is None
    assert Snapshots(dict).so_far(ChatCompletionResponse()) is None


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Color(Enum):
    RED = "red"


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    name: str
    lives: int = 9


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


class Node(BaseModel):
    name: str
    parent: Optional[Node] = None  # noqa: UP045 - the other way to write it
    children: list[Node] = []


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    day: date
    size: tuple[int, ...]
    other: list[bytes]
    count: int | None = None


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    first: int | None = Field(default=None, alias="second")
    second: int | None = Field(default=None, validation_alias="first")
    chosen: int | None = Field(default=None, validation_alias=AliasChoices("x", AliasPath("y", 1)))


class Box(BaseModel, Generic[T]):
    item: T
    label: str = "none"


@dataclass
class Shape:
    day: datetime


Name = NewType("Name", str)


class Everything(BaseModel):
    text: Annotated[str, Field(min_length=3, max_length=5)]
    letters: Annotated[str, Field(pattern="^[a-z]+$")] | None
    day: date
    moment: datetime
    color: Color
    pet: Dog | Cat
    tagged: Annotated[Dog | Cat, Field(discriminator="kind")]
    nodes: list[Node] | None
    names: dict[str, Name]
    words: set[str]
    sizes: Sequence[float] = (1.0,)
    mapping: Mapping[int, list[UUID]]
    anything: Any
    bare: dict
    pair: tuple[int, str]
    shape: Shape
    made: list[int] = Field(default_factory=lambda: [7])


def field(text: str, name: str) -> Any:
    snapshot = seen('{"' + name + '": ' + text, Everything)
    assert type(snapshot) is Everything
    return getattr(snapshot, name)


DOG = Dog(kind="dog", name="Rex")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("text", '"ab', "ab"),
        ("text", '"abcdef', "abcdef"),
        ("text", '"abcdef", ', "abcdef"),
        ("letters", '"ab 1', "ab 1"),
        ("day", '"2026-11-2', None),
        ("day", '"2026-11-23"', date(2026, 11, 23)),
        ("day", '"no day", "x": 1', None),
        ("moment", '"2026', None),
        ("color", '"red', None),
        ("color", '"red"', Color.RED),
        ("nodes", "null", None),
        ("nodes", "[", []),
        ("nodes", '[{"name": "a"}, {"na', [Node(name="a"), Node.model_construct(name=None)]),
        ("nodes", '[{"name": "a"}, 5, ', [Node(name="a")]),
        ("nodes", '[{"name": "a", "children": [{"name": "b', [Node(name="a", children=[Node(name="b")])]),
        ("nodes", '[{"name": "a", "parent": {"name": "b', [Node(name="a", parent=Node(name="b"))]),
        ("names", '{"a": "b", "c": "d', {"a": "b", "c": "d"}),
        ("names", '{"a": 5, "c": "d', {"c": "d"}),
        ("words", '["a", "b', {"a", "b"}),
        ("sizes", "[1, 2", [1.0]),
        ("sizes", "[1, 2]", [1.0, 2.0]),
        ("mapping", '{"1": ["3f0e1a5e-0000-4000-8000-00000000000', {1: []}),
        ("anything", '{"a": ["b', {"a": ["b"]}),
        ("bare", '{"a": "b', {"a": "b"}),
        ("pair", '[1, "a', None),
        ("pair", '[1, "a"]', (1, "a")),
        ("shape", '{"day": "2026', None),
        ("shape", '{"day": "2026-11-23T00:00:00"', Shape(datetime(2026, 11, 23))),  # noqa: DTZ001
        ("pet", '{"name": "Rex', None),
        ("pet", '{"kind": "do', None),
        ("pet", '{"name": "Rex", "kind": "dog"', DOG),
        ("pet", '{"kind": "dog", "name": "Rex', DOG),
        ("pet", '{"kind": "cat", "lives": "many", "name": "Rex', None),
        ("tagged", '{"kind": "cat", "name": "T', Cat(name="T")),
        ("tagged", '{"kind": "cow", "name": "T', None),
        ("made", "", [7]),
    ],
)
def test_a_field_has_its_type_as_soon_as_it_is_written(name: str, text: str, expected: Any) -> None:
    found = field(text, name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("name", Everything.model_fields)
def test_a_field_that_is_not_written_yet_is_its_default_or_none(name: str) -> None:
    snapshot = seen("{", Everything)
    assert getattr(snapshot, name) == {"sizes": (1.0,), "made": [7]}.get(name)
    assert snapshot is not None
    assert snapshot.model_fields_set == set()


def test_what_is_written_is_known() -> None:
    snapshot = seen('{"text": "abc", "color": "re', Everything)
    assert snapshot is not None
    assert snapshot.model_fields_set == {"text"}


def test_a_field_that_is_found_by_its_aliases_is_that_field() -> None:
    snapshot = seen('{"second": 1, "first": 2, "y": [0, 3], ', Aliased)
    assert snapshot is not None
    assert (snapshot.first, snapshot.second, snapshot.chosen) == (1, 2, 3)
    assert seen('{"chosen": 3, ', Aliased) == Aliased(chosen=3)
    assert seen('{"x": 3, "y": 1}', Aliased) == Aliased(x=3)


def test_unknown_fields_are_kept_where_the_model_keeps_them() -> None:
    snapshot = seen('{"name": "a", "more": {"b": "c', Extra)
    assert snapshot == Extra(name="a", more={"b": "c"})
    assert seen('{"kind": "dog", "name": "Rex", "more": 1}', Dog) == DOG


def test_a_strict_model_reads_what_json_has_for_its_types() -> None:
    snapshot = seen('{"day": "2026-11-23", "size": [1, 2], "other": ["a"], "count": "5", ', Strict)
    assert snapshot == Strict(day=date(2026, 11, 23), size=(1, 2), other=[b"a"])


def test_a_generic_model_has_the_types_that_it_was_given() -> None:
    snapshot = seen('{"item": {"kind": "dog", "name": "Rex', Box[Dog])
    assert snapshot is not None
    assert (snapshot.item, snapshot.label) == (DOG, "none")


class Image(BaseModel):
    url: str
    alt: str = ""


class Words(BaseModel):
    text: str


class Quote(Words):
    by: str


class Cats(BaseModel):
    kind: Literal["cats"]
    name: str


Answer = Literal["no", "not sure"]
BySize = Annotated[
    Annotated[Image, Tag("image")] | Annotated[Words, Tag("words")],
    Discriminator(lambda value: "image" if len(value) > 1 else "words"),
]


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (Answer, '"not sure"', [None, "not sure"]),
        (Answer | None, '"not sure"', [None, "not sure"]),
        (list[Answer], '["not sure"]', [None, [], ["not sure"]]),
        (Answer | str, '"not"', [None, "", "n", "no", "not"]),
        (str, r'"a\u00e9b"', [None, "", "a", "aé", "aéb"]),
        (str, r'"\ud83d\ude00\\u"', [None, "", "😀", "😀\\", "😀\\u"]),
        (dict[str, str], r'{"a": "b\nc"}', [None, {}, {"a": ""}, {"a": "b"}, {"a": "b\n"}, {"a": "b\nc"}]),
        (Image | Words, '{"text": "a"}', [None, Words(text=""), Words(text="a")]),
        (list[Image] | list[Words], '[{"text": ""}]', [None, [Words(text="")]]),
        (list[int] | list[str], '["a"]', [None, [""], ["a"]]),
        (RootModel[Image] | RootModel[Words], '{"text": ""}', [None, RootModel[Words](Words(text=""))]),
        (Words | Quote, '{"text": "a", "by": ""}', [None, Quote(text="a", by="")]),
        (Words | Quote, '{"text": "a"}', [None, Words(text="a")]),
        (Words | dict[str, Any], '{"a": 1}', [None, {"a": 1}]),
        (Words | Any, '{"a": 1}', [None, {"a": 1}]),
        (Cat | Cats, '{"kind": "cats", "name": ""}', [None, Cats(kind="cats", name="")]),
        (BySize, '{"url": "", "alt": "a"}', [None, Image(url="", alt="a")]),
    ],
)
def test_nothing_is_shown_that_may_become_something_else(annotation: Any, text: str, expected: list[Any]) -> None:
    items = [each.item for each in every_snapshot('{"item": ' + text + "}", Box[annotation])]
    assert [item for item, _ in itertools.groupby(items)] == expected
    assert [type(item) for item in items if item] == [type(item) for item in expected if item]


class Reserved(BaseModel):
    model_config = ConfigDict(extra="allow")

    one: str = Field(alias="self")
    two: str = Field(alias="_fields_set")
    cls: str


@pytest.mark.parametrize("model", [Reserved, Extra])
def test_the_names_of_an_object_may_be_any(model: type[BaseModel]) -> None:
    text = '{"self": "a", "_fields_set": "b", "cls": "c", "values": "d", "name": "e"}'
    snapshot = seen(text[:-1] + ', "', model)
    assert snapshot == model.model_validate_json(text)
    assert seen('{"self": "a', model) is not None


class Linked(BaseModel):
    name: str
    following: Self | None = None
    others: list[Self] = []


def test_what_only_the_whole_model_can_read_is_there_at_the_end() -> None:
    text = '{"name": "a", "following": {"name": "b"}, "others": [{"name": "c"}]}'
    assert every_snapshot(text, Linked)[-2:] == [Linked(name="a"), Linked.model_validate_json(text)]


def test_a_root_model_is_what_its_root_is() -> None:
    assert seen('[{"kind": "dog", "name": "Rex', RootModel[list[Dog]]) == RootModel[list[Dog]]([DOG])
    assert seen('{"item": "gro', Box[RootModel[str]]) == Box(item=RootModel[str]("gro"))
    assert seen("{", RootModel[list[Dog]]) is None


# ── validators ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Picky(BaseModel):
    """Its validators know whole values alone."""

    name: str
    size: int | None = None

    @field_validator("name")
    @classmethod
    def _upper(cls, name: str) -> str:
        return name.upper()

    @model_validator(mode="after")
    def _halved(self) -> Picky:
        if self.size is None:
            raise KeyError("size")
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picky) and self.size / 2 == other.size / 2  # type: ignore[operator]

    __hash__ = None  # type: ignore[assignment]


class Initialised(BaseModel):
    name: str
    size: int

    def model_post_init(self, context: Any, /) -> None:
        self.name.upper()


class Nest(BaseModel):
    items: list[Picky | None]
    then: str = ""


def test_a_models_own_validators_judge_only_what_is_whole() -> None:
    names = [each.name for each in every_snapshot('{"name": "ab", "size": 2}', Picky)]
    assert names == [None, "", "a", "ab", "ab", "AB"]


def test_what_a_validator_raises_about_a_part_means_that_it_is_not_whole() -> None:
    snapshot = seen('{"items": [{"name": "a"}, {"name": "b", "size": 1}], "then": "x', Nest)
    assert snapshot is not None
    assert [each.name for each in snapshot.items if each] == ["a", "B"]


def test_an_object_that_cannot_be_made_yet_is_not_there_yet() -> None:
    assert seen('{"size": 1, ', Initialised) is None
    assert seen('{"size": 1, "name": "', Initialised) == Initialised(size=1, name="")


def test_what_is_nested_deeply_does_no_harm() -> None:
    text = '{"name": "a", "children": [' * 90
    assert isinstance(seen(text, Node), Node | None)


def test_the_last_one_is_validated() -> None:
    last = every_snapshot('{"kind": "dog", "name": "Rex", "more": 1}', Dog)[-1]
    assert last == DOG
    with pytest.raises(AnswerParseError, match="cannot make a Dog of the answer: name: Field required"):
        every_snapshot('{"kind": "dog"}', Dog)
