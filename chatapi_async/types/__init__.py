"""Pydantic models of the contract: what is sent, what is received, and what is made of it.

- ``message``, ``tools``, ``request``: what a caller writes;
- ``chunk``, ``response``: what the server sends, and the completion that a stream is merged into;
- ``events``: the typed events between.
"""

from .chunk import (
    BaseChunk,
    ChatCompletionChunkResponse,
    ChatCompletionWithChatroomStreamResponse,
    ChunkChoice,
    DeltaMessage,
    StreamFunctionCall,
    StreamToolCall,
)
from .events import (
    AnyEvent,
    ChunkEvent,
    ChunkT,
    ContentDeltaEvent,
    ContentDoneEvent,
    FinishEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    HeartbeatEvent,
    UnknownEvent,
    UsageEvent,
)
from .message import ContentPart, FunctionCall, Message, MessageToolCall, ModelT
from .request import ChatCompletionFields, ChatCompletionRequest, MemorySettings, MessagesOrRequest, ResponseFormat
from .response import ChatCompletionResponse, Choice, Completeness, ErrorResponse, Usage
from .tools import Function, Tool, ToolSchema

__all__ = [
    "AnyEvent",
    "BaseChunk",
    "ChatCompletionChunkResponse",
    "ChatCompletionFields",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatCompletionWithChatroomStreamResponse",
    "Choice",
    "ChunkChoice",
    "ChunkEvent",
    "ChunkT",
    "Completeness",
    "ContentDeltaEvent",
    "ContentDoneEvent",
    "ContentPart",
    "DeltaMessage",
    "ErrorResponse",
    "FinishEvent",
    "Function",
    "FunctionCall",
    "FunctionToolCallArgumentsDeltaEvent",
    "FunctionToolCallArgumentsDoneEvent",
    "HeartbeatEvent",
    "MemorySettings",
    "Message",
    "MessageToolCall",
    "MessagesOrRequest",
    "ModelT",
    "ResponseFormat",
    "StreamFunctionCall",
    "StreamToolCall",
    "Tool",
    "ToolSchema",
    "UnknownEvent",
    "Usage",
    "UsageEvent",
]
