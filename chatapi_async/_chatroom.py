"""``Chatroom``: what ``AsyncChatClient.chatroom`` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Unpack

from ._configuration import chatroom_segment
from ._stream import ChatStream
from ._timeouts import Timeouts
from .types import ChatCompletionFields, ChatCompletionWithChatroomStreamResponse, MessagesOrRequest

if TYPE_CHECKING:
    from ._client import AsyncChatClient


class Chatroom:
    """A chatroom of one client: its id, bound."""

    def __init__(self, client: AsyncChatClient, chatroom_id: str) -> None:
        chatroom_segment(chatroom_id)
        self._client = client
        self.id = chatroom_id
        """The chatroom's id."""

    def chat_completion(
        self,
        messages_or_request: MessagesOrRequest,
        *,
        operator_id: str | None = None,
        authorization: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = None,
        **fields: Unpack[ChatCompletionFields],
    ) -> ChatStream[ChatCompletionWithChatroomStreamResponse]:
        """Answer in this chatroom; see :meth:`AsyncChatClient.chat_completion_on_chatroom`."""
        return self._client.chat_completion_on_chatroom(
            self.id,
            messages_or_request,
            operator_id=operator_id,
            authorization=authorization,
            extra_headers=extra_headers,
            timeout=timeout,
            **fields,
        )

    def __reduce__(self) -> str:
        raise TypeError("a Chatroom cannot be pickled or copied; hand on its id")

    def __repr__(self) -> str:
        return f"<Chatroom {self.id!r} of {self._client!r}>"
