"""``demo``, ``send`` and ``chat``: an answer as it arrives."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chatapi_async import AsyncChatClient, ChatAPIError, ChatCompletionResponse, ChatStream, Message
from chatapi_async.types import BaseChunk, MessagesOrRequest

from . import DONE, FAILED, AddCommand, UsageError, add_server_options, complain, positive

if TYPE_CHECKING:
    from chatapi_async.emulator import RunningEmulator


def add_to(add: AddCommand) -> None:
    """Add the commands."""
    demo = add("demo", _demo, "Start a local server, and stream an answer from it through the real client.")
    demo.add_argument("prompt", nargs="?", default="What can you tell me about streams of tokens?")
    demo.add_argument("--tokens-per-second", type=positive, default=25.0, metavar="N", help="pace (default: 25)")

    send = add("send", _send, "Send a prompt to the configured server, and print the answer as it arrives.")
    send.add_argument("prompt", help="the prompt; - reads standard input")
    form = send.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print each chunk as JSON, one a line")
    form.add_argument("--final", action="store_true", help="print the whole completion as JSON when it has ended")

    chat = add("chat", _chat, "Talk with the configured server, turn by turn. Ctrl-C stops an answer, Ctrl-D leaves.")
    for talk in (send, chat):
        add_server_options(talk)
        talk.add_argument("--system", metavar="TEXT", help="how the model should answer")


def _demo(options: argparse.Namespace) -> int:
    from chatapi_async.emulator import Emulator, serve_in_thread

    with serve_in_thread(Emulator(tokens_per_second=options.tokens_per_second)) as running:
        print(f"local server  {running.base_url}", file=sys.stderr, flush=True)
        return asyncio.run(_demonstrate(running, options.prompt))


async def _demonstrate(running: RunningEmulator, prompt: str) -> int:
    import httpx

    # A proxy that the environment names cannot reach this machine's loopback.
    async with (
        httpx.AsyncClient(trust_env=False) as http_client,
        AsyncChatClient(running.base_url, operator_id="tn_demo", token="demo", http_client=http_client) as client,
        client.chat_completion(prompt) as stream,
    ):
        await _print_text(stream)
        completion = await stream.get_final_completion()
        first, duration = stream.stats.time_to_first_chunk or 0.0, stream.stats.duration
    usage = completion.usage
    tokens = (usage and usage.completion_tokens) or 0
    print(f"\nfinish reason {completion.choices[0].finish_reason}")
    if usage is not None:
        counts = f"{usage.prompt_tokens} prompt + {tokens} completion = {usage.total_tokens} tokens"
        print(f"usage         {counts}")
    print(f"first token   {first:.3f} s")
    print(f"speed         {tokens / max(duration - first, 1e-9):.1f} tokens/s")
    return DONE


def _send(options: argparse.Namespace) -> int:
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    if not prompt.strip():
        raise UsageError("the prompt is empty")
    return asyncio.run(_send_prompt(options, _opening(options, prompt)))


async def _send_prompt(options: argparse.Namespace, messages: Sequence[Message]) -> int:
    async with _client(options) as client, _ask(client, options, messages) as stream:
        try:
            if options.json:
                async for chunk in stream:
                    print(chunk.model_dump_json(exclude_unset=True), flush=True)
            elif options.final:
                await stream.until_done()
            else:
                await _print_text(stream)
        finally:
            if options.final and stream.status_code == 200:
                print(stream.snapshot.model_dump_json(exclude_unset=True, indent=2), flush=True)
    return DONE


def _chat(options: argparse.Namespace) -> int:
    interactive = sys.stdin.isatty()
    history = _opening(options, None)
    with asyncio.Runner() as runner:
        client = _client(options)
        try:
            while (prompt := _read_turn(interactive)) is not None:
                history.append(Message.user(prompt))
                stream = _ask(client, options, history)
                try:
                    runner.run(_print_text(stream))
                except KeyboardInterrupt:
                    print("\n[stopped]", file=sys.stderr)
                except ChatAPIError as error:
                    complain(error, FAILED)
                _remember(history, stream.snapshot, in_room=options.room is not None)
        finally:
            runner.run(client.aclose())
    return DONE


def _remember(history: list[Message], completion: ChatCompletionResponse, *, in_room: bool) -> None:
    """Make ``history`` what the next turn sends before its prompt: all that was said, but nothing to a chatroom, which
    keeps it itself; and not a prompt that got no answer."""
    if in_room:
        history.clear()
    elif completion.text:
        history.append(Message.assistant(completion.text))
    else:
        history.pop()


def _read_turn(interactive: bool) -> str | None:
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return None
        if line.strip():
            return line


def _client(options: argparse.Namespace) -> AsyncChatClient:
    return AsyncChatClient(options.base_url, operator_id=options.operator_id)


def _opening(options: argparse.Namespace, prompt: str | None) -> list[Message]:
    messages = [Message.system(options.system)] if options.system else []
    return messages if prompt is None else [*messages, Message.user(prompt)]


def _ask(client: AsyncChatClient, options: argparse.Namespace, messages: MessagesOrRequest) -> ChatStream[BaseChunk]:
    if options.room is None:
        return client.chat_completion(messages, model=options.model)
    return client.chat_completion_on_chatroom(options.room, messages, model=options.model)


async def _print_text(stream: ChatStream[BaseChunk]) -> None:
    """Print an answer as it arrives, and end the line, whatever ends the answer."""
    try:
        async for text in stream.text_stream:
            print(text, end="", flush=True)
        completion = await stream.get_final_completion()
    finally:
        print(flush=True)
    if message := completion.message:
        for call in message.tool_calls or ():
            print(f"{call.function.name}({call.function.arguments})", flush=True)
    if completion.choices and completion.choices[0].finish_reason == "length":
        print("[cut off at the token limit]", file=sys.stderr)
