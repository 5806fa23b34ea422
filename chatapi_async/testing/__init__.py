"""For the tests of programs that use this library: a server that answers and fails as told, and builders without one.

The pytest fixture ``chatapi_server`` is there once this is installed::

    async def test_a_cut(chatapi_server):
        chatapi_server.fault("truncate", after=2)
        async with AsyncChatClient(chatapi_server.base_url, operator_id="tn_1", token="any") as client:
            with pytest.raises(StreamTruncatedError):
                await client.chat_completion("Hello").get_final_text()

It needs the extra ``testing``: ``pip install 'chatapi-async[testing]'``.
"""

from ._builders import StreamItem, chunk, completion, error, event_stream, tool_call
from ._respx import route_chat
from ._server import ChatServer, fault, serve_chat

__all__ = [
    "ChatServer",
    "StreamItem",
    "chunk",
    "completion",
    "error",
    "event_stream",
    "fault",
    "route_chat",
    "serve_chat",
    "tool_call",
]
