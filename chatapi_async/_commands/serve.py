"""``serve``: the local server, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

import anyio

from . import DONE, WRONG_USAGE, AddCommand, UsageError, complain, positive

if TYPE_CHECKING:
    from chatapi_async.emulator import RunningEmulator, Upstream


def add_to(add: AddCommand) -> None:
    """Add the command."""
    serve = add("serve", _serve, "Run the local server, with its built-in model, until Ctrl-C.")
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to bind, 0 for any free one (default: 8000)")
    serve.add_argument("--token", help="accept only this access token (default: any)")
    serve.add_argument("--tokens-per-second", type=positive, default=40.0, metavar="N", help="pace (default: 40)")
    serve.add_argument(
        "--chatroom", action="append", default=[], metavar="ID", help="a chatroom that exists; repeatable"
    )
    serve.add_argument("--create-chatrooms", action="store_true", help="make a chatroom where it is first spoken to")
    serve.add_argument(
        "--replies", metavar="FILE", help="answer as this TOML or JSON file says; its edits count at once"
    )
    serve.add_argument("--replies-schema", action="store_true", help="print the JSON Schema of such a file, and end")
    serve.add_argument(
        "--upstream",
        metavar="URL",
        help="let an OpenAI-compatible server answer, such as http://localhost:11434/v1 for Ollama",
    )
    serve.add_argument(
        "--upstream-key",
        metavar="KEY",
        help="its API key; other users of this machine can see it here, so better in CHATAPI_UPSTREAM_KEY",
    )
    serve.add_argument(
        "--upstream-model", metavar="NAME", help="the model to ask it for in the place of every other that is asked for"
    )
    serve.add_argument("--list-faults", action="store_true", help="list how it can be made to go wrong, and end")


def _serve(options: argparse.Namespace) -> int:
    from chatapi_async.emulator import FAULTS, Emulator, ReplyFileError, replies_schema, run

    if options.list_faults:
        print(*FAULTS.values(), sep="\n")
        print("\nask for the model fault/NAME, or send the header x-fault: NAME", file=sys.stderr)
        return DONE
    if options.replies_schema:
        print(json.dumps(replies_schema(), indent=2, ensure_ascii=False))
        return DONE
    upstream = _upstream(options)
    emulator = Emulator(
        token=options.token,
        tokens_per_second=options.tokens_per_second,
        chatrooms=options.chatroom,
        create_chatrooms=options.create_chatrooms,
        upstream=upstream,
    )
    if options.replies is not None:
        try:
            emulator.load_replies(options.replies)
        except OSError as error:
            raise UsageError(f"{options.replies} cannot be read: {error.strerror}") from error
        except ReplyFileError as error:
            for problem in error.problems:
                complain(UsageError(f"{error.name}: {problem}"), WRONG_USAGE)
            return WRONG_USAGE
        _print_log()
    if upstream is not None:
        _say_whereto(upstream)
    run(emulator, host=options.host, port=options.port, on_start=_say_where)
    return DONE


def _print_log() -> None:
    """Print what the emulator logs: that a file was read again, or why it was not."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("chatapi: %(message)s"))
    logger = logging.getLogger("chatapi_async.emulator")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _upstream(options: argparse.Namespace) -> Upstream | None:
    from chatapi_async.emulator import Upstream

    if options.upstream is None:
        if options.upstream_key is not None or options.upstream_model is not None:
            raise UsageError("--upstream-key and --upstream-model say how to ask an upstream; give --upstream too")
        return None
    key = options.upstream_key or os.environ.get("CHATAPI_UPSTREAM_KEY") or None
    try:
        return Upstream(options.upstream, key=key, model=options.upstream_model)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _say_whereto(upstream: Upstream) -> None:
    """Say which models the upstream has, or why it does not tell; it may be started later."""
    from chatapi_async.emulator._relay import describe

    print(f"relaying to {upstream.base_url}: {anyio.run(describe, upstream)}", file=sys.stderr)


def _say_where(running: RunningEmulator) -> None:
    print(f"serving on {running.base_url}; Ctrl-C ends it", file=sys.stderr)
    print(
        f"  export CHATAPI_BASE_URL={running.base_url} CHATAPI_OPERATOR_ID=tn_local CHATAPI_TOKEN=any", file=sys.stderr
    )
