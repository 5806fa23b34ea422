"""Which module imports which: read from the sources, and held to a table."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import chatapi_async

PACKAGE = Path(chatapi_async.__file__).parent
TYPES = {"types", "types.events"}

# An arrow goes from a module to what it may import, and to nothing else.
ARROWS: dict[str, set[str]] = {
    # Pure: no I/O, no clock, no randomness, no logging.
    "_version": set(),
    "_json": set(),
    "errors": set(),
    "types": {f"types.{name}" for name in ("chunk", "events", "message", "request", "response", "tools")},
    "types._lenient": set(),
    "types.tools": set(),
    "types._parsing": {"errors"},
    "types.message": {"types._lenient", "types._parsing"},
    "types.response": {"errors", "types._lenient", "types._parsing", "types.message"},
    "types.chunk": {"types._lenient", "types.message", "types.response"},
    "types.events": {"types.chunk", "types.response"},
    "types.request": {"types.message", "types.tools"},
    "_surrogates": {"_json"},
    "_failures": {"_json", "_surrogates", "errors"},
    "_retry": {"errors"},
    "_secrets": {"_json", "errors"},
    "_timeouts": {"errors"},
    "_configuration": {"errors", "types"},
    "_inflate": set(),
    "_sse": {"errors"},
    "_decode": {"_failures", "_json", "_surrogates", "errors", "types"},
    "_tool_calls": TYPES,
    "_accumulate": {"_json", "_tool_calls", "errors", "types.message"} | TYPES,
    "_body_decoder": {"_decode", "_failures", "_inflate", "_sse", "errors", "types"},
    "_ends": {"_accumulate", "_failures", "errors", "types"},
    "_decode_stream": {"_accumulate", "_body_decoder", "_decode", "_ends", "errors", "types"},
    "_recording": {
        *("_accumulate", "_body_decoder", "_decode_stream", "_failures", "_json", "errors", "types"),
    },
    "_recording_lines": {"_json", "_recording", "errors"},
    "_partial_models": {"_json"},
    "_partial": {"_json", "_partial_models", "types", "types.response"},
    "_splitting": {"errors"},
    "_sentences": {"_splitting"},
    # The shell: it reads, waits, closes, and logs.
    "_closing": set(),
    "_connecting": {"_closing"},
    "_response": {"_closing", "_connecting", "_failures", "_inflate"},
    "_http": {"_closing", "_connecting", "_failures", "_response", "_timeouts", "_version", "errors"},
    "_fast_socket": set(),
    "fast": {"_fast_socket", "_http"},
    "_patience": {"_closing", "_failures", "_timeouts", "errors"},
    "_body": {"_body_decoder", "_decode", "_patience", "_response", "types"},
    "_reader": {
        *("_accumulate", "_body", "_decode", "_ends", "_failures", "_patience", "_response", "_timeouts"),
        *("errors", "types"),
    },
    "_iterators": {"_reader", "errors", "types", "types.response"},
    "_stream": {"_accumulate", "_failures", "_iterators", "_partial", "_reader", "errors", "types", "types.response"},
    "_background_task": {"_closing", "_failures", "errors"},
    "_background_reader": {"_background_task", "_closing", "_failures"},
    "_background": {"_background_reader", "_background_task", "_failures", "errors"},
    "_tee": {"_background", "_background_reader", "errors"},
    "pacing": {"_background", "_background_reader", "_sentences", "_splitting", "_tee", "errors"} | TYPES,
    "relay": {"_background", "_background_reader", "errors", "types"},
    "_observation": {"_accumulate", "_reader", "errors", "types"},
    "_observed_reader": {"_body", "_closing", "_failures", "_observation", "_reader", "errors", "types"},
    "_otel_attributes": {"_json", "_observation", "errors", "types"},
    "otel": {"_observation", "_otel_attributes", "_version", "errors"},
    "recording": {"_recording", "_recording_lines"},
    "_recorder": {
        *("_http", "_recording", "_recording_lines", "_response", "_secrets", "_timeouts", "_version"),
        *("errors", "types"),
    },
    "_attempts": {
        *("_body", "_body_decoder", "_configuration", "_failures", "_http", "_patience", "_response", "_retry"),
        *("_secrets", "_timeouts", "errors"),
    },
    "_chatroom": {"_configuration", "_stream", "_timeouts", "types"},
    "_client": {
        *(
            "_attempts",
            "_chatroom",
            "_body_decoder",
            "_configuration",
            "_failures",
            "_http",
            "_observation",
            "_observed_reader",
        ),
        *("_reader", "_recorder", "_retry", "_secrets", "_stream", "_timeouts", "errors", "types"),
    },
    # Above the library, for the command line alone.
    "_doctor._findings": set(),
    "_doctor._oddities": {"_json"},
    "_doctor._settings": {"_doctor._findings", "_doctor._oddities", "_configuration", "_secrets", "errors"},
    "_doctor._network": {"_doctor._findings", "_doctor._oddities"},
    "_doctor._refusals": {"_doctor._findings", "_doctor._oddities", "_failures", "errors"},
    "_doctor._answers": {"_doctor._findings", "_failures", "errors"},
    "_doctor._probes": {"_doctor._network"},
    "_doctor._asking": {"_doctor._answers", "_stream", "types"},
    "_doctor._examination": {
        *("_doctor._answers", "_doctor._asking", "_doctor._findings", "_doctor._network", "_doctor._probes"),
        *("_doctor._refusals", "_doctor._settings", "_client", "_connecting", "_http", "_stream", "_timeouts"),
        *("errors", "types"),
    },
    "_doctor": {"_doctor._examination", "_doctor._findings", "_doctor._settings"},
}
SHELL = {
    "_closing",
    "_connecting",
    "_response",
    "_http",
    "_fast_socket",
    "fast",
    "_patience",
    "_body",
    "_reader",
    "_iterators",
    "_stream",
    "_observation",
    "_observed_reader",
    "_otel_attributes",
    "otel",
    "_attempts",
    "_chatroom",
    "_client",
    "_background_task",
    "_background_reader",
    "_background",
    "_tee",
    "pacing",
    "relay",
    "_doctor",
    "_doctor._asking",
    "_doctor._examination",
    "_doctor._probes",
    "recording",
    "_recorder",
}
PURE = set(ARROWS) - SHELL

# What type checkers alone follow.
ARROWS_OF_TYPE_CHECKING = {
    "errors": {"types"},
    "_chatroom": {"_client"},
    "_client": {"httpx", "_observation", "_observed_reader", "_recorder", "_recording"},
    "_iterators": {"_partial", "_stream"},
}

LIBRARIES = {
    "httpx_sse": {"_sse"},
    "httpx": {"_sse", "_http", "_response", "_connecting", "fast", "_doctor._asking", "_doctor._examination"},
    "httpcore": {"_fast_socket"},
    "anyio": SHELL
    - {"_iterators", "_reader", "_stream", "_chatroom", "_client", "_tee", "relay", "recording", "_recorder", "_doctor"}
    - {"_observation", "_otel_attributes", "otel"},
    "trio": {"_background_task", "_observed_reader"},
    "opentelemetry": {"otel"},
    "pydantic": {name for name in ARROWS if name.startswith("types.")} - {"types.events"}
    | {"_accumulate", "_configuration", "_decode", "_partial", "_partial_models", "_recording", "_recording_lines"},
    "pydantic_core": {"types._lenient", "_partial", "_partial_models"},
}
IMPURE = {
    *("anyio", "asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "secrets"),
    *("select", "selectors", "signal", "socket", "ssl", "subprocess", "sys", "threading", "time", "trio", "warnings"),
}
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today"}


class Import(NamedTuple):
    target: str
    ours: bool
    for_type_checking: bool


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import of a module, wherever it stands in it; ``package`` is the module's, relative to the library's."""
    tree = ast.parse(source)
    guarded = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for child in block.body
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [_absolute(node, alias.name, package) for alias in node.names]
        else:
            continue
        for name in names:
            ours = name == "chatapi_async" or name.startswith("chatapi_async.")
            target = name.removeprefix("chatapi_async").lstrip(".") if ours else name.partition(".")[0]
            yield Import(target, ours, node in guarded)


def _absolute(node: ast.ImportFrom, name: str, package: str) -> str:
    base = ["chatapi_async", *(package.split(".") if package else [])]
    base = base[: len(base) + 1 - node.level] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [name])])


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).parent.parts)


def read(path: Path) -> list[Import]:
    return list(imports_of(path.read_text(encoding="utf-8"), package_of(path)))


SOURCES = {
    name_of(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if name_of(path) not in ("__init__", "__main__")
    and not name_of(path).startswith(("emulator", "testing", "_commands", "_pytest_plugin"))
}
IMPORTS = {name: read(path) for name, path in SOURCES.items()}


def importers_of(library: str, *, for_type_checking: bool = False) -> set[str]:
    wanted = Import(library, ours=False, for_type_checking=for_type_checking)
    return {name for name, imports in IMPORTS.items() if wanted in imports}


def test_every_module_stands_in_the_table() -> None:
    assert set(SOURCES) == set(ARROWS)


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_imports_what_the_table_allows_and_no_more(name: str) -> None:
    found = {each.target for each in IMPORTS[name] if each.ours and not each.for_type_checking}
    assert found == ARROWS[name]


def test_imports_for_type_checkers_alone_are_few() -> None:
    found = {
        name: {each.target for each in imports if each.for_type_checking}
        for name, imports in IMPORTS.items()
        if any(each.for_type_checking for each in imports)
    }
    assert found == ARROWS_OF_TYPE_CHECKING


def test_the_table_has_no_cycle() -> None:
    assert len(list(TopologicalSorter(ARROWS).static_order())) == len(ARROWS)


def test_the_plugin_knows_only_what_is_for_tests() -> None:
    imports = [each for each in read(PACKAGE / "_pytest_plugin.py") if not each.for_type_checking]
    assert {each.target for each in imports if each.ours} == {"testing"}
    assert {each.target for each in imports if not each.ours} - sys.stdlib_module_names == {"pytest"}


def test_nothing_but_the_plugin_imports_what_is_for_tests() -> None:
    own = PACKAGE / "testing"
    importers = {
        name_of(path)
        for path in PACKAGE.rglob("*.py")
        if own not in path.parents and any(each.ours and each.target.startswith("testing") for each in read(path))
    }
    assert importers == {"_pytest_plugin"}
    assert not any(
        each.ours and each.target == "_pytest_plugin" for path in PACKAGE.rglob("*.py") for each in read(path)
    )


def test_nothing_but_the_command_line_imports_the_commands() -> None:
    own = PACKAGE / "_commands"
    importers = {
        name_of(path)
        for path in PACKAGE.rglob("*.py")
        if own not in path.parents and any(each.ours and each.target.startswith("_commands") for each in read(path))
    }
    assert importers == {"__main__"}


def test_what_is_for_tests_knows_of_the_library_only_the_emulator_the_types_and_recordings() -> None:
    imports = [each for path in (PACKAGE / "testing").glob("*.py") for each in read(path) if each.ours]
    assert {each.target for each in imports if not each.target.startswith("testing")} == {
        *("emulator", "types", "recording"),
    }


def test_no_pure_module_imports_the_shell() -> None:
    assert {name: ARROWS[name] & SHELL for name in PURE if ARROWS[name] & SHELL} == {}


def test_the_types_import_nothing_of_ours_but_one_another_and_the_errors() -> None:
    for name in SOURCES:
        if name.startswith("types"):
            assert {target for target in ARROWS[name] if not target.startswith("types.")} <= {"errors"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_to_few_modules(library: str) -> None:
    assert importers_of(library) == LIBRARIES[library]


def test_no_other_library_is_imported() -> None:
    outside = {each.target for imports in IMPORTS.values() for each in imports if not each.ours}
    assert outside - sys.stdlib_module_names == set(LIBRARIES)


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_does_no_io_and_asks_no_clock_and_no_chance(name: str) -> None:
    assert {each.target for each in IMPORTS[name]} & IMPURE == set()
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {getattr(function, "id", getattr(function, "attr", "")) for function in called}
    assert names & IMPURE_CALLS == set()


def test_the_emulator_knows_of_the_library_only_the_types_and_recordings() -> None:
    found = {
        path.stem: {each.target for each in read(path) if each.ours and not each.target.startswith("emulator")}
        for path in (PACKAGE / "emulator").glob("*.py")
    }
    # What another server answers is merged for a chatroom's memory as the library merges it.
    assert found.pop("_merging") == {"_accumulate", "_body_decoder", "_decode", "_ends", "errors", "types"}
    assert found.pop("_replayed") == {"_inflate", "recording"}
    assert set().union(*found.values()) == {"types", "recording"}


def test_one_module_of_the_emulator_speaks_http_to_others() -> None:
    importers = {
        path.stem: {each.target for each in read(path) if not each.ours} for path in (PACKAGE / "emulator").glob("*.py")
    }
    # The other asks httpx only what an address is.
    assert {name for name, libraries in importers.items() if "httpx" in libraries} == {"_relay", "_upstream"}
    pure = importers["_upstream"] | importers["_translation"] | importers["_merging"]
    assert pure & (IMPURE | {"starlette"}) == set()


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from .errors import A, B", "", {("errors", True, False)}),
        ("from . import errors, types", "", {("errors", True, False), ("types", True, False)}),
        ("from .types.events import A", "", {("types.events", True, False)}),
        ("from ._lenient import A", "types", {("types._lenient", True, False)}),
        ("from ..errors import A", "types", {("errors", True, False)}),
        ("from .. import errors", "types", {("errors", True, False)}),
        ("import chatapi_async.emulator", "", {("emulator", True, False)}),
        ("from chatapi_async.types import A", "emulator", {("types", True, False)}),
        ("from chatapi_async import A", "emulator", {("", True, False)}),
        ("import anyio.lowlevel, re", "", {("anyio", False, False), ("re", False, False)}),
        ("def f():\n    import time", "", {("time", False, False)}),
        (
            "if TYPE_CHECKING:\n    import httpx\nelse:\n    import re",
            "",
            {("httpx", False, True), ("re", False, False)},
        ),
    ],
)
def test_the_reader_of_imports_sees_every_form(source: str, package: str, expected: set[Import]) -> None:
    assert set(imports_of(source, package)) == expected
