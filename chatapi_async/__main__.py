"""The command line: ``chatapi``, or ``python -m chatapi_async``.

``demo`` streams an answer from a local server that it starts itself; ``send`` and ``chat`` talk to a configured server;
``serve`` runs the local server. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import (
    AsyncChatClient,
    ChatAPIError,
    ChatCompletionResponse,
    ChatStream,
    ConfigurationError,
    Message,
    __version__,
)
from .types import BaseChunk, MessagesOrRequest

if TYPE_CHECKING:
    from .emulator import RunningEmulator

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class _UsageError(Exception):
    """The command cannot be carried out as it was typed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command, and return its exit code.

    Args:
        arguments: the words after ``chatapi``; those of the process by default.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to stop
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain about that once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ConfigurationError, _UsageError) as error:
        return _complain(error, WRONG_USAGE)
    except (ChatAPIError, ImportError, OSError) as error:
        return _complain(error, FAILED)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatapi",
        description="Stream chat completions.",
        epilog="send and chat read CHATAPI_BASE_URL, CHATAPI_OPERATOR_ID and CHATAPI_TOKEN from the environment.",
    )
    parser.add_argument("--version", action="version", version=f"chatapi-async {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=about, description=about)
        subparser.set_defaults(command=command)
        return subparser

    demo = add("demo", _demo, "Start a local server, and stream an answer from it through the real client.")
    demo.add_argument("prompt", nargs="?", default="What can you tell me about streams of tokens?")
    demo.add_argument("--tokens-per-second", type=_positive, default=25.0, metavar="N", help="pace (default: 25)")

    send = add("send", _send, "Send a prompt to the configured server, and print the answer as it arrives.")
    send.add_argument("prompt", help="the prompt; - reads standard input")
    form = send.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print each chunk as JSON, one a line")
    form.add_argument("--final", action="store_true", help="print the whole completion as JSON when it has ended")

    chat = add("chat", _chat, "Talk with the configured server, turn by turn. Ctrl-C stops an answer, Ctrl-D leaves.")
    for talk in (send, chat):
        talk.add_argument("--base-url", metavar="URL", help="the server (default: $CHATAPI_BASE_URL)")
        talk.add_argument("--operator-id", metavar="ID", help="the operator (default: $CHATAPI_OPERATOR_ID)")
        talk.add_argument("--room", metavar="ID", help="a chatroom, which keeps the conversation on the server")
        talk.add_argument("--model", metavar="NAME", help="such as anthropic/claude-sonnet-4-5, large or small")
        talk.add_argument("--system", metavar="TEXT", help="how the model should answer")

    serve = add("serve", _serve, "Run the local server, with its built-in model, until Ctrl-C.")
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to bind, 0 for any free one (default: 8000)")
    serve.add_argument("--token", help="accept only this access token (default: any)")
    serve.add_argument("--tokens-per-second", type=_positive, default=40.0, metavar="N", help="pace (default: 40)")
    serve.add_argument(
        "--chatroom", action="append", default=[], metavar="ID", help="a chatroom that exists; repeatable"
    )
    serve.add_argument("--create-chatrooms", action="store_true", help="make a chatroom where it is first spoken to")
    serve.add_argument("--list-faults", action="store_true", help="list how it can be made to go wrong, and end")
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .emulator import Emulator, serve_in_thread

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
        raise _UsageError("the prompt is empty")
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
                    _complain(error, FAILED)
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


def _serve(options: argparse.Namespace) -> int:
    from .emulator import FAULTS, Emulator, run

    if options.list_faults:
        print(*FAULTS.values(), sep="\n")
        print("\nask for the model fault/NAME, or send the header x-fault: NAME", file=sys.stderr)
        return DONE
    emulator = Emulator(
        token=options.token,
        tokens_per_second=options.tokens_per_second,
        chatrooms=options.chatroom,
        create_chatrooms=options.create_chatrooms,
    )
    run(emulator, host=options.host, port=options.port, on_start=_say_where)
    return DONE


def _say_where(running: RunningEmulator) -> None:
    print(f"serving on {running.base_url}; Ctrl-C ends it", file=sys.stderr)
    print(
        f"  export CHATAPI_BASE_URL={running.base_url} CHATAPI_OPERATOR_ID=tn_local CHATAPI_TOKEN=any", file=sys.stderr
    )


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


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return number


def _complain(error: Exception, code: int) -> int:
    print(f"chatapi: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
