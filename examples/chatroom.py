"""Talk in a chatroom: the server keeps the conversation, so each turn sends its new message alone.

Run it against a local server that it starts itself::

    python examples/chatroom.py
"""

import asyncio

from chatapi_async import AsyncChatClient, NotFoundError
from chatapi_async.emulator import Emulator, serve


async def main() -> None:
    async with (
        serve(Emulator(chatrooms=["ch_demo"])) as server,
        AsyncChatClient(server.base_url, operator_id="tn_local", token="any") as client,
    ):
        room = client.chatroom("ch_demo")
        for prompt in ("My favourite river is the Elbe.", "What did I say?"):
            print(f"> {prompt}")
            async for chunk in room.chat_completion(prompt):
                print(chunk.text, end="", flush=True)
            print()

        try:
            await client.chatroom("ch_elsewhere").chat_completion("Hello?").get_final_text()
        except NotFoundError as error:
            print(f"> Hello?\n{error}")


if __name__ == "__main__":
    asyncio.run(main())
