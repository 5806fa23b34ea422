"""The tree of errors is what its drawing says; every error crosses process boundaries whole."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import pytest

import chatapi_async
from chatapi_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ChatAPIError,
    ChatCompletionResponse,
    ConfigurationError,
    EmptyStreamError,
    EventTooLargeError,
    ServerStreamError,
    StreamClosedError,
    StreamDecodeError,
    StreamError,
    StreamTruncatedError,
    UnexpectedContentTypeError,
    errors,
)
from chatapi_async._failures import status_error
from chatapi_async._response import Headers
from chatapi_async.errors import AnswerParseError, RecordingError

DRAWN_LINE = re.compile(r"(?P<branches>(?:│   |    )*(?:[├└]── )?)(?P<name>\w+Error)(?: \(also (?P<also>\w+)\))?")


def drawn_tree() -> dict[str, tuple[str, ...]]:
    """The drawing in the module's docstring: each error's name, with the names of its bases."""
    tree: dict[str, tuple[str, ...]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").partition("::\n\n")[2].splitlines():
        drawn = DRAWN_LINE.match(line.removeprefix("    "))
        if drawn is None:
            break
        depth = len(drawn["branches"]) // 4
        path[depth:] = [drawn["name"]]
        parent = path[depth - 1] if depth else "Exception"
        tree[drawn["name"]] = (parent, drawn["also"]) if drawn["also"] else (parent,)
    return tree


def error_classes() -> list[type[ChatAPIError]]:
    return [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ChatAPIError)]


def drawn_statuses() -> list[tuple[str, int]]:
    return [(name, int(code)) for name, code in re.findall(r"── (\w+Error) +(\d{3})\b", errors.__doc__ or "")]


STATUS_CLASSES = [error_class for error_class in error_classes() if issubclass(error_class, APIStatusError)]


def partial_completion() -> ChatCompletionResponse:
    return ChatCompletionResponse.model_validate(
        {"id": "1", "choices": [{"message": {"role": "assistant", "content": "Hi", "x": 1}}], "completeness": "failed"}
    )


def of_an_answer(error: AnswerParseError) -> ChatAPIError:
    """The error as a completion raises it."""
    error.partial = partial_completion()
    return error


def in_a_stream(error: StreamError | APITimeoutError) -> ChatAPIError:
    """The error as a stream raises it."""
    error.request_id = "r1"
    error.partial = partial_completion()
    error.chunks_received = 3
    return error


def full_errors() -> list[ChatAPIError]:
    """One of each class, with every attribute set."""
    return [
        ChatAPIError("m", request_id="r1", retryable=True, processed="no"),
        ConfigurationError("m"),
        APIConnectionError("m", request_id="r1", retryable=True, processed="no"),
        in_a_stream(APITimeoutError("m", phase="idle", limit=1.5, retryable=True, processed="no")),
        *(
            error_class(
                "d",
                status_code=429,
                message="m",
                code="c",
                body={"message": "m"},
                headers=Headers({"Retry-After": "5"}),
                retry_after=5.0,
                request_id="r1",
                retryable=True,
                processed="no",
            )
            for error_class in STATUS_CLASSES
        ),
        of_an_answer(AnswerParseError("m", text="{")),
        RecordingError("m", line=3),
        in_a_stream(StreamError("m")),
        in_a_stream(ServerStreamError("d", message="m", code=7, type="t", payload={"error": "m"})),
        in_a_stream(StreamTruncatedError("m")),
        in_a_stream(StreamDecodeError("m", event="{")),
        in_a_stream(EventTooLargeError(10)),
        in_a_stream(UnexpectedContentTypeError("m", content_type="text/html", body="<html>")),
        in_a_stream(EmptyStreamError()),
        in_a_stream(StreamClosedError("m")),
    ]


def plain_errors() -> list[ChatAPIError]:
    """One of each class, with nothing but what must be given."""
    return [
        ChatAPIError("m"),
        APIConnectionError("m"),
        APITimeoutError("m", phase="total", limit=1),
        APIStatusError("d", status_code=500, message="m"),
        AnswerParseError("m", text="{"),
        StreamError("m"),
        ServerStreamError("d", message="m"),
    ]


EVERY_ERROR = [*full_errors(), *plain_errors()]

COPIES: dict[str, Callable[[ChatAPIError], ChatAPIError]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


# ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tree_is_as_drawn() -> None:
    assert drawn_tree() == {
        error_class.__name__: tuple(base.__name__ for base in error_class.__bases__) for error_class in error_classes()
    }


def test_every_error_is_exported() -> None:
    assert {name for name in chatapi_async.__all__ if name.endswith("Error")} == set(drawn_tree())


def test_the_drawn_statuses_are_those_of_their_classes() -> None:
    assert len(drawn_statuses()) == 9
    for name, status_code in drawn_statuses():
        error = status_error(where="", status_code=status_code, headers={}, body=b"", now=0, request_id=None)
        assert type(error).__name__ == name


@pytest.mark.parametrize("error_class", error_classes(), ids=lambda error_class: error_class.__name__)
def test_every_class_says_what_it_means(error_class: type[ChatAPIError]) -> None:
    assert error_class.__doc__


@pytest.mark.parametrize(
    "error",
    [ConfigurationError("m"), AnswerParseError("m", text="{"), RecordingError("m", line=1)],
    ids=["call", "answer", "file"],
)
def test_an_error_that_a_value_caused_is_a_value_error_too(error: ChatAPIError) -> None:
    with pytest.raises(ValueError, match=r"^m$"):
        raise error


# ── what every error has ─────────────────────────────────────────────────────────────────────────────────────────────


def test_one_of_each_class_is_looked_at() -> None:
    assert {type(error) for error in full_errors()} == set(error_classes())


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_has_a_message_and_says_whether_to_retry(error: ChatAPIError) -> None:
    assert str(error)
    assert isinstance(error.retryable, bool)
    assert error.processed in ("no", "unknown")
    assert error.request_id in (None, "r1")


@pytest.mark.parametrize("error", plain_errors(), ids=lambda error: type(error).__name__)
def test_unless_told_otherwise_the_request_may_have_been_processed(error: ChatAPIError) -> None:
    assert (error.processed, error.retryable, error.request_id) == ("unknown", False, None)


def test_a_configuration_error_cost_nothing_and_is_not_cured_by_trying_again() -> None:
    error = ConfigurationError("m")

    assert (error.processed, error.retryable, error.request_id) == ("no", False, None)


@pytest.mark.parametrize(
    "error", [StreamError("m"), APITimeoutError("m", phase="idle", limit=1)], ids=["stream", "time"]
)
def test_before_a_stream_raises_it_an_error_has_no_part_of_an_answer(error: StreamError | APITimeoutError) -> None:
    assert (error.partial, error.chunks_received) == (None, 0)


def test_what_a_server_did_not_say_is_none() -> None:
    status = APIStatusError("d", status_code=500, message="")
    stream = ServerStreamError("d", message="")

    assert (status.code, status.body, dict(status.headers), status.retry_after) == (None, None, {}, None)
    assert (stream.code, stream.type, stream.payload) == (None, None, None)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            EventTooLargeError(10),
            "an event is larger than max_event_bytes=10; raise the limit if such events are expected",
        ),
        (
            EmptyStreamError(),
            "the stream ended without an answer in it: the server failed, though it did not say so",
        ),
    ],
)
def test_errors_that_word_themselves(error: StreamError, text: str) -> None:
    assert str(error) == text


# ── copies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_survives_being_copied(error: ChatAPIError, copied: Callable[[ChatAPIError], ChatAPIError]) -> None:
    twin = copied(error)

    assert type(twin) is type(error)
    assert (str(twin), twin.args) == (str(error), error.args)
    assert vars(twin) == vars(error)


def test_a_copy_is_independent_of_its_original() -> None:
    error = StreamClosedError("m")
    twin = copy.copy(error)
    twin.request_id = "r2"
    twin.add_note("seen")

    assert error.request_id is None
    assert "__notes__" not in vars(error)


def test_notes_survive_pickling() -> None:
    error = StreamClosedError("m")
    error.add_note("seen")

    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen"]  # noqa: S301
