"""Let the model call a function: stream its call, run it, send back what it returned, stream the answer.

Run it against a local server that it starts itself::

    python examples/tools.py "What is the weather in Sendai?"
"""

import asyncio
import sys

from pydantic import BaseModel

from chatapi_async import AsyncChatClient, Message, Tool
from chatapi_async.emulator import serve


class GetWeather(BaseModel):
    """Get the current weather at a location."""

    location: str

    def run(self) -> str:
        return f"18 degrees and light rain in {self.location}"


async def main() -> None:
    conversation = [Message.user(" ".join(sys.argv[1:]) or "What is the weather in Sendai?")]
    tool = Tool.from_model(GetWeather)
    async with serve() as server, AsyncChatClient(server.base_url, operator_id="tn_local", token="any") as client:
        async with client.chat_completion(conversation, tools=[tool], tool_choice="any") as stream:
            async for event in stream.events():
                if event.type == "tool_calls.function.arguments.delta":
                    print(event.delta, end="", flush=True)
            message = await stream.get_final_message()
        conversation.append(message)

        for call in message.tool_calls or []:
            print(f"  <- arguments of {call.function.name}, call {call.id}")
            result = call.parse(GetWeather).run()
            conversation.append(Message.tool(result, tool_call_id=call.id))

        async for chunk in client.chat_completion(conversation, tools=[tool]):
            print(chunk.text, end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main())
