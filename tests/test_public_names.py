"""What is public is exported, sorted, importable and documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import chatapi_async
from chatapi_async import types

pytestmark = pytest.mark.smoke


def public_modules() -> Iterator[ModuleType]:
    yield chatapi_async
    for module in pkgutil.iter_modules(chatapi_async.__path__):
        if not module.name.startswith("_"):
            yield importlib.import_module(f"chatapi_async.{module.name}")


def public_names(module: ModuleType) -> set[str]:
    """The names in a module's namespace that are no submodules and no private ones."""
    return {name for name, value in members(module) if not name.startswith("_") and not isinstance(value, ModuleType)}


def members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The names of a module, those that it loads when they are asked for too."""
    return ((name, getattr(module, name)) for name in sorted({*vars(module), *dir(module)}))


def own_members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class itself defines."""
    for name, value in vars(cls).items():
        if name.startswith("_") or name in dir(BaseModel):  # what overrides a hook of pydantic is no method to call
            continue
        if isinstance(value, classmethod | staticmethod | property) or inspect.isfunction(value):
            yield f"{cls.__name__}.{name}", value


def documentable() -> dict[str, Any]:
    """Every public class and function of every public module, and the methods and properties of the classes."""
    found: dict[str, Any] = {}
    for module in public_modules():
        found[module.__name__] = module
        for name, value in members(module):
            at_home = getattr(value, "__module__", "").startswith("chatapi_async")
            public = not name.startswith("_") and name in getattr(module, "__all__", (name,))
            if public and at_home and (inspect.isclass(value) or inspect.isfunction(value)):
                found[name] = value
                found.update(own_members(value) if inspect.isclass(value) else ())
    return found


DOCUMENTABLE = documentable()


def test_what_is_exported_is_what_is_public() -> None:
    assert set(chatapi_async.__all__) == public_names(chatapi_async) | {"__version__"}


def test_the_types_that_are_exported_are_those_that_are_public() -> None:
    assert set(types.__all__) == public_names(types)


@pytest.mark.parametrize("module", [chatapi_async, types], ids=lambda module: module.__name__)
def test_names_are_sorted_and_each_stands_once(module: ModuleType) -> None:
    assert module.__all__ == sorted(set(module.__all__))


@pytest.mark.parametrize("name", chatapi_async.__all__)
def test_every_name_can_be_imported(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(f"from chatapi_async import {name}", namespace)  # noqa: S102

    assert namespace[name] is getattr(chatapi_async, name)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'chatapi_async' has no attribute 'AsyncChatCleint'"):
        chatapi_async.AsyncChatCleint  # type: ignore[attr-defined] # noqa: B018


def test_importing_the_package_imports_nothing_until_a_name_is_used() -> None:
    program = "import chatapi_async, sys; print(*sys.modules); chatapi_async.ChatAPIError; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = (set(line.split()) for line in result.stdout.splitlines())

    assert before.isdisjoint({"httpx", "pydantic", "anyio", "asyncio"})
    assert "chatapi_async.errors" in after
    assert "httpx" not in after


@pytest.mark.parametrize("name", DOCUMENTABLE)
def test_every_public_class_function_and_method_has_a_docstring(name: str) -> None:
    documentation = DOCUMENTABLE[name].__doc__

    assert documentation
    assert documentation != BaseModel.__doc__
    assert not documentation.startswith(f"{name}(")  # what a dataclass without a docstring gets


def test_no_type_of_the_http_layer_is_public() -> None:
    modules = {name: getattr(getattr(chatapi_async, name), "__module__", "") for name in chatapi_async.__all__}

    assert {name for name, module in modules.items() if module.startswith("httpx")} == set()
