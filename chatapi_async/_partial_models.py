"""Instances of a pydantic model made of JSON that may not be written to its end yet.

An object that may not be whole (nothing follows it) is made by ``model_construct``, field by field: each field whose
value validates by itself is there, models and lists within it are treated alike, everything else is the field's
default, or None. A text is there while it grows, even where it is too short or too long; a ``Literal`` is not. Where
several models may be meant, the value is not there until one of them has more of its keys than every other one.
So the validators of that object's own class do not run; those of objects that something follows do.
Whatever they raise means that the object is made field by field too; whatever a default factory or ``model_post_init``
raises, that it is not there yet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    RootModel,
    Tag,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from ._json import is_array, is_object

ABSENT: Final[Any] = object()
"""What stands for a value that is not there."""

Written = Literal["whole", "open", "unfinished"]
"""How far a value is written: to its end; perhaps not to its end; not to its end, and it ends within a string."""

_LISTS: Mapping[Any, type[Any]] = {list: list, Sequence: list, tuple: tuple, set: set, frozenset: frozenset}
_MISFITS = {"string_too_short", "string_too_long", "string_pattern_mismatch"}
"""Errors of pydantic about a text that may fit once it has grown, or did before it grew."""
_PARAMETERS = {"cls", "_fields_set"}
"""Names that ``model_construct`` has for itself."""


class ModelReader:
    """Makes instances of one model."""

    def __init__(self, model: type[BaseModel]) -> None:
        model.model_rebuild()
        self._model = model
        self._fields = [_FieldReader(name, field, model.model_config) for name, field in model.model_fields.items()]

    def read(self, value: Any, written: Written, *, choosing: bool = False) -> Any:
        """Return an instance; with ``choosing``, only if the value is of this model rather than of another one."""
        if issubclass(self._model, RootModel):
            root = self._fields[0].reader.read(value, written, choosing=choosing)
            return ABSENT if root is ABSENT else self._construct({"root"}, {"root": root})
        if not is_object(value):
            return ABSENT
        values: dict[str, Any] = {}
        names: set[str] = set()
        used = set(self._model.model_fields)
        last = next(reversed(value), None)
        for field in self._fields:
            key, given = field.find(value)
            read = ABSENT
            if key is not None:
                used.add(key)
                state = written if key == last else "whole"
                read = field.reader.read(given, state)
                if choosing and read is ABSENT and state != "unfinished":
                    return ABSENT
            if read is not ABSENT:
                values[field.key] = read
                names.add(field.name)
            elif choosing and field.reader.is_literal:
                return ABSENT
            elif field.required:
                values[field.key] = None
        if self._model.model_config.get("extra") == "allow":
            values.update({key: item for key, item in value.items() if key not in used})
            names.update(key for key in value if key not in used)
        return ABSENT if choosing and not names & set(self._model.model_fields) else self._construct(names, values)

    def _construct(self, names: set[str], values: dict[str, Any]) -> Any:
        passed = {key: value for key, value in values.items() if key not in _PARAMETERS}
        try:
            made = self._model.model_construct(_fields_set=names, **passed)
        except Exception:
            return ABSENT
        fields = {field.key: field.name for field in self._fields}
        for key in _PARAMETERS & values.keys():
            held = cast("dict[str, Any]", made.__dict__ if key in fields else made.__pydantic_extra__)
            held[fields.get(key, key)] = values[key]
        return made


@lru_cache(maxsize=256)
def reader_of(model: type[BaseModel]) -> ModelReader:
    return ModelReader(model)


class _FieldReader:
    """Finds and reads one field of a model."""

    def __init__(self, name: str, field: FieldInfo, config: ConfigDict) -> None:
        alias = field.validation_alias
        self.name = name
        self.key = alias if isinstance(alias, str) else name
        """By which ``model_construct`` takes it."""
        self.required = field.is_required()
        self._paths: list[list[str | int]] = []
        if alias is not None and config.get("validate_by_alias", True):
            self._paths += _paths(alias)
        if not self._paths or config.get("populate_by_name") or config.get("validate_by_name"):
            self._paths.append([name])
        constraints = list(field.metadata)
        if field.discriminator is not None:
            constraints.append(Field(discriminator=field.discriminator))
        annotation: Any = field.annotation
        for constraint in constraints:
            annotation = Annotated[annotation, constraint]
        self.reader = _ValueReader(annotation, config)

    def find(self, data: dict[str, Any]) -> tuple[str | None, Any]:
        """Return the value, and the key under which it is; None where it is not there."""
        for path in self._paths:
            value: Any = data
            for step in path:
                value = _step(value, step)
            if value is not ABSENT:
                return str(path[0]), value
        return None, None


def _step(value: Any, step: str | int) -> Any:
    if is_object(value) and isinstance(step, str):
        return value.get(step, ABSENT)
    if is_array(value) and isinstance(step, int) and -len(value) <= step < len(value):
        return value[step]
    return ABSENT


def _paths(alias: str | AliasPath | AliasChoices) -> list[list[str | int]]:
    if isinstance(alias, str):
        return [[alias]]
    return alias.convert_to_aliases() if isinstance(alias, AliasChoices) else [alias.convert_to_aliases()]


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _ValueReader:
    """Makes values of one annotation."""

    def __init__(self, annotation: Any, config: ConfigDict) -> None:
        self._config = config
        self._type = _bare(annotation)
        origin: Any = get_origin(self._type) or self._type
        self._is_model = isinstance(origin, type) and issubclass(origin, BaseModel)
        self._origin: Any = cast(Any, origin)
        self.is_literal = self._origin is Literal
        self._is_union = self._origin in (Union, UnionType)
        self._is_anything = self._type is Any or self._type is object
        self._adapter = _adapter(annotation, config)

    def read(self, value: Any, written: Written, *, choosing: bool = False) -> Any:
        """Return the value as far as it is valid; ``ABSENT`` where nothing of it is."""
        if self._adapter is None:
            return ABSENT
        has_parts = is_object(value) or is_array(value)
        if written == "whole" or not (has_parts or self._is_model):
            valid = self._validated(value)
            if written == "unfinished":
                return valid if self._may_grow and type(valid) is str else ABSENT
            if valid is not ABSENT:
                return valid
        if has_parts or self._is_model:
            return self._read_parts(value, written, choosing)
        return ABSENT

    def _read_parts(self, value: Any, written: Written, choosing: bool) -> Any:
        if self._is_model:
            return reader_of(self._type).read(value, written, choosing=choosing)
        if self._is_union:
            if any(
                isinstance(each, Tag) for part in get_args(self._type) for each in getattr(part, "__metadata__", ())
            ):
                return ABSENT  # a function tells which part it is, and may need the whole value
            several = choosing or sum(part._may_be_object for part in self._parts) > 1
            found = [part.read(value, written, choosing=several) for part in self._parts]
            return _fullest([each for each in found if each is not ABSENT])
        if is_array(value) and self._origin in _LISTS and len(self._parts) == 1:
            read = self._parts[0].read
            end = len(value) - 1
            items = (read(item, written if place == end else "whole") for place, item in enumerate(value))
            return self._made(_LISTS[self._origin], [item for item in items if item is not ABSENT])
        if choosing and (self._origin in (dict, Mapping) or self._is_anything):
            return ABSENT  # its keys do not tell it from a model
        if is_object(value) and self._origin in (dict, Mapping) and len(self._parts) == 2:
            names, values = self._parts
            last = next(reversed(value), None)
            pairs = (
                (names.read(key, "whole"), values.read(item, written if key == last else "whole"))
                for key, item in value.items()
            )
            return self._made(dict, [pair for pair in pairs if not any(each is ABSENT for each in pair)])
        if self._is_anything:
            return value
        return self._validated(_without_last(value) if written == "unfinished" else value)

    @cached_property
    def _parts(self) -> list[_ValueReader]:
        # Made when they are needed, since a model may contain itself.
        arguments: tuple[Any, ...] = get_args(self._type)
        if self._origin in _LISTS:
            arguments = tuple(each for each in arguments if each is not Ellipsis) or (Any,)
        elif self._type is dict:
            arguments = (Any, Any)
        return [_ValueReader(each, self._config) for each in arguments if each is not type(None)]

    @cached_property
    def _may_grow(self) -> bool:
        """Whether it may be a text, of which a part is one too; a part of a ``Literal`` may be another one."""
        return (
            self._type is str or self._is_anything or (self._is_union and any(part._may_grow for part in self._parts))
        )

    @property
    def _may_be_object(self) -> bool:
        return self._is_model or self._is_union or self._is_anything or self._origin in (dict, Mapping)

    def _validated(self, value: Any) -> Any:
        try:
            # As JSON, as the whole answer will be: a strict model reads other things from Python's own types.
            return ABSENT if self._adapter is None else self._adapter.validate_json(to_json(value))
        except ValidationError as error:
            shown = isinstance(value, str) and any(problem["type"] in _MISFITS for problem in error.errors())
            return value if shown else ABSENT
        except Exception:
            return ABSENT  # whatever a validator says of half an answer

    def _made(self, kind: type[Any], items: list[Any]) -> Any:
        try:
            return kind(items)
        except TypeError:
            return ABSENT  # what is in it cannot be in a set


def _adapter(annotation: Any, config: ConfigDict) -> TypeAdapter[Any] | None:
    for given in (config, None):  # none, where it has a configuration of its own
        with suppress(PydanticUserError):
            return TypeAdapter(annotation, config=given)
    return None  # it means something only within its model, such as typing.Self


def _fullest(found: list[Any]) -> Any:
    """Return the one in which most was found; ``ABSENT`` where that is not one alone."""
    most = max(map(_keys_found, found), default=0)
    fullest = found if len(found) == 1 else [each for each in found if _keys_found(each) == most]
    return fullest[0] if len(fullest) == 1 else ABSENT


def _keys_found(value: Any) -> int:
    if isinstance(value, RootModel):
        return _keys_found(cast(Any, value).root)
    if isinstance(value, BaseModel):
        return len(value.model_fields_set & type(value).model_fields.keys())
    if isinstance(value, list | tuple | set | frozenset):
        return sum(map(_keys_found, cast("Collection[Any]", value)))
    return 1


def _bare(annotation: Any) -> Any:
    """Return the annotation without its constraints and the names that were given to it."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__") and get_origin(annotation) is None:
            annotation = annotation.__value__
        else:
            return annotation


def _without_last(value: Any) -> Any:
    """Return parsed JSON without its last leaf."""
    if is_object(value) and value:
        *others, (key, last) = value.items()
        return dict(others) if isinstance(last, str) else {**dict(others), key: _without_last(last)}
    if is_array(value) and value:
        return value[:-1] if isinstance(value[-1], str) else [*value[:-1], _without_last(value[-1])]
    return value
