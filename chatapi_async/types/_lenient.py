"""How received models read what the wire sends: unknown fields are kept, null stands for absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Received(BaseModel):
    """Base of every model that the server sends: unknown fields are kept and serialised again."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    @classmethod
    def merged(cls, extra: Mapping[str, Any], **fields: Any) -> Self:
        """Make an instance of values that are valid already, without validating them again.

        Args:
            extra: unknown fields, whatever their names; a name that ``fields`` has too is left out.
            fields: the declared fields.
        """
        instance = cls.model_construct(**fields)
        unknown = {name: value for name, value in extra.items() if name not in cls.model_fields}
        cast("dict[str, Any]", instance.model_extra).update(unknown)
        return instance


@dataclass(frozen=True)
class NullMeans:
    """Annotation: read JSON ``null`` as ``default()``, so that the field's type need not admit ``None``.

    It is resolved in pydantic's compiled core; a ``BeforeValidator`` would call into Python for every chunk.
    """

    default: Callable[[], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        null = core_schema.no_info_after_validator_function(lambda _: self.default(), core_schema.none_schema())
        return core_schema.union_schema([handler(source), null], mode="left_to_right")
