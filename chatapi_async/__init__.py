"""Stream chat completions from asyncio and trio: typed chunks, merged answers, nothing lost, nothing paid twice."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._accumulate import MessageAccumulator, aggregate
    from ._chatroom import Chatroom
    from ._client import AsyncChatClient
    from ._decode_stream import decode_stream
    from ._observation import StreamCall, StreamEnd
    from ._reader import StreamStats
    from ._retry import RetryPolicy
    from ._stream import ChatStream
    from ._tee import Branch, tee
    from ._timeouts import Timeouts
    from .errors import (
        AnswerParseError,
        APIConnectionError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ChatAPIError,
        ConfigurationError,
        ConflictError,
        EmptyStreamError,
        EventTooLargeError,
        InternalServerError,
        NotFoundError,
        PaymentRequiredError,
        PermissionDeniedError,
        RateLimitError,
        RecordingError,
        ServerStreamError,
        StreamClosedError,
        StreamDecodeError,
        StreamError,
        StreamTruncatedError,
        UnexpectedContentTypeError,
        UnprocessableEntityError,
    )
    from .fast import FastHTTPClient
    from .types import (
        ChatCompletionChunkResponse,
        ChatCompletionFields,
        ChatCompletionRequest,
        ChatCompletionResponse,
        ChatCompletionWithChatroomStreamResponse,
        Choice,
        ChunkChoice,
        ChunkEvent,
        Completeness,
        ContentDeltaEvent,
        ContentDoneEvent,
        ContentPart,
        DeltaMessage,
        ErrorResponse,
        FinishEvent,
        Function,
        FunctionCall,
        FunctionToolCallArgumentsDeltaEvent,
        FunctionToolCallArgumentsDoneEvent,
        HeartbeatEvent,
        MemorySettings,
        Message,
        MessageToolCall,
        ResponseFormat,
        StreamToolCall,
        Tool,
        ToolSchema,
        UnknownEvent,
        Usage,
        UsageEvent,
    )

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AnswerParseError",
    "AsyncChatClient",
    "AuthenticationError",
    "BadRequestError",
    "Branch",
    "ChatAPIError",
    "ChatCompletionChunkResponse",
    "ChatCompletionFields",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatCompletionWithChatroomStreamResponse",
    "ChatStream",
    "Chatroom",
    "Choice",
    "ChunkChoice",
    "ChunkEvent",
    "Completeness",
    "ConfigurationError",
    "ConflictError",
    "ContentDeltaEvent",
    "ContentDoneEvent",
    "ContentPart",
    "DeltaMessage",
    "EmptyStreamError",
    "ErrorResponse",
    "EventTooLargeError",
    "FastHTTPClient",
    "FinishEvent",
    "Function",
    "FunctionCall",
    "FunctionToolCallArgumentsDeltaEvent",
    "FunctionToolCallArgumentsDoneEvent",
    "HeartbeatEvent",
    "InternalServerError",
    "MemorySettings",
    "Message",
    "MessageAccumulator",
    "MessageToolCall",
    "NotFoundError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "RateLimitError",
    "RecordingError",
    "ResponseFormat",
    "RetryPolicy",
    "ServerStreamError",
    "StreamCall",
    "StreamClosedError",
    "StreamDecodeError",
    "StreamEnd",
    "StreamError",
    "StreamStats",
    "StreamToolCall",
    "StreamTruncatedError",
    "Timeouts",
    "Tool",
    "ToolSchema",
    "UnexpectedContentTypeError",
    "UnknownEvent",
    "UnprocessableEntityError",
    "Usage",
    "UsageEvent",
    "__version__",
    "aggregate",
    "decode_stream",
    "tee",
]

# A module is imported when one of its names is first used, so that nobody waits for what they do not use.
_HOMES = {
    "AsyncChatClient": "_client",
    "Branch": "_tee",
    "ChatStream": "_stream",
    "Chatroom": "_chatroom",
    "FastHTTPClient": "fast",
    "MessageAccumulator": "_accumulate",
    "RetryPolicy": "_retry",
    "StreamCall": "_observation",
    "StreamEnd": "_observation",
    "StreamStats": "_reader",
    "Timeouts": "_timeouts",
    "aggregate": "_accumulate",
    "decode_stream": "_decode_stream",
    "tee": "_tee",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name) or ("errors" if name.endswith("Error") else "types")
    value: object = getattr(_import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]


del TYPE_CHECKING
