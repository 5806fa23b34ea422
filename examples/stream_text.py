"""Stream an answer's text as it arrives.

Run it against a local server that it starts itself::

    python examples/stream_text.py "Why is the sky blue?"

or against a real one, with CHATAPI_BASE_URL, CHATAPI_OPERATOR_ID and CHATAPI_TOKEN set.
"""

import asyncio
import os
import sys

from chatapi_async import AsyncChatClient
from chatapi_async.emulator import serve


async def answer(client: AsyncChatClient, prompt: str) -> None:
    async with client.chat_completion(prompt) as stream:
        async for text in stream.text_stream:
            print(text, end="", flush=True)
        completion = await stream.get_final_completion()
    tokens = completion.usage and completion.usage.total_tokens
    print(f"\n({completion.choices[0].finish_reason}, {tokens} tokens)")


async def main() -> None:
    prompt = " ".join(sys.argv[1:]) or "Why is the sky blue?"
    if "CHATAPI_BASE_URL" in os.environ:
        async with AsyncChatClient() as client:
            await answer(client, prompt)
    else:
        async with serve() as server, AsyncChatClient(server.base_url, operator_id="tn_local", token="any") as client:
            await answer(client, prompt)


if __name__ == "__main__":
    asyncio.run(main())
