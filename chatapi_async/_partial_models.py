"""Instances of a pydantic model made of JSON that may not be written to its end yet.

An object that may not be whole (nothing follows it) is made by ``model_construct``, field by field: each field whose
value validates by itself is there, models and lists within it are treated alike, everything else is the field's
default, or None. So the validators of that object's own class do not run; those of objects that something follows do.
Whatever they raise means that the object is made field by field too; whatever a default factory or ``model_post_init``
raises, that it is not there yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, PydanticUserError, RootModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from ._json import is_array, is_object

ABSENT: Final[Any] = object()
"""What stands for a value that is not there."""

Written = Literal["whole", "open", "unfinished"]
"""How far a value is written: to its end; perhaps not to its end; not to its end, and it ends within a string."""

_LISTS: Mapping[Any, type[Any]] = {list: list, Sequence: list, tuple: tuple, set: set, frozenset: frozenset}


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
            return ABSENT if root is ABSENT else self._construct(root)
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
        return self._construct(_fields_set=names, **values)

    def _construct(self, *args: Any, **values: Any) -> Any:
        try:
            return self._model.model_construct(*args, **values)
        except Exception:
            return ABSENT


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
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=config)
        except PydanticUserError:
            self._adapter = TypeAdapter(annotation)  # it has a configuration of its own

    def read(self, value: Any, written: Written, *, choosing: bool = False) -> Any:
        """Return the value as far as it is valid; ``ABSENT`` where nothing of it is."""
        has_parts = is_object(value) or is_array(value)
        if written == "whole" or not (has_parts or self._is_model):
            valid = self._validated(value)
            if written == "unfinished":
                return valid if type(valid) is str else ABSENT
            if valid is not ABSENT:
                return valid
        if has_parts or self._is_model:
            return self._read_parts(value, written, choosing)
        return ABSENT

    def _read_parts(self, value: Any, written: Written, choosing: bool) -> Any:
        if self._is_model:
            return reader_of(self._type).read(value, written, choosing=choosing)
        if self._origin in (Union, UnionType):
            several = choosing or sum(part._is_model or part._origin in (Union, UnionType) for part in self._parts) > 1
            found = (part.read(value, written, choosing=several) for part in self._parts)
            return next((each for each in found if each is not ABSENT), ABSENT)
        if is_array(value) and self._origin in _LISTS and len(self._parts) == 1:
            read = self._parts[0].read
            end = len(value) - 1
            items = (read(item, written if place == end else "whole") for place, item in enumerate(value))
            return self._made(_LISTS[self._origin], [item for item in items if item is not ABSENT])
        if is_object(value) and self._origin in (dict, Mapping) and len(self._parts) == 2:
            names, values = self._parts
            last = next(reversed(value), None)
            pairs = (
                (names.read(key, "whole"), values.read(item, written if key == last else "whole"))
                for key, item in value.items()
            )
            return self._made(dict, [pair for pair in pairs if not any(each is ABSENT for each in pair)])
        if self._type is Any or self._type is object:
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

    def _validated(self, value: Any) -> Any:
        try:
            # As JSON, as the whole answer will be: a strict model reads other things from Python's own types.
            return self._adapter.validate_json(to_json(value))
        except Exception:
            return ABSENT  # whatever a validator says of half an answer

    def _made(self, kind: type[Any], items: list[Any]) -> Any:
        try:
            return kind(items)
        except TypeError:
            return ABSENT  # what is in it cannot be in a set


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
