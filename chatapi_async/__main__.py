"""The command line: ``chatapi``, or ``python -m chatapi_async``.

``demo`` streams an answer from a local server that it starts itself; ``send`` and ``chat`` talk to a configured server;
``doctor`` says what is wrong with one; ``serve`` runs the local server; ``replay`` shows a recorded exchange. Exit
codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from . import ChatAPIError, ConfigurationError, __version__
from ._commands import FAILED, INTERRUPTED, WRONG_USAGE, UsageError, complain, doctor, replay, serve, talk


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
    except (ConfigurationError, UsageError) as error:
        return complain(error, WRONG_USAGE)
    except (ChatAPIError, ImportError, OSError) as error:
        return complain(error, FAILED)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatapi",
        description="Stream chat completions.",
        epilog="send, chat and doctor read CHATAPI_BASE_URL, CHATAPI_OPERATOR_ID and CHATAPI_TOKEN in the environment, "
        "and CHATAPI_RECORD, a directory to which they record what is sent and what comes.",
    )
    parser.add_argument("--version", action="version", version=f"chatapi-async {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=about, description=about)
        subparser.set_defaults(command=command)
        return subparser

    talk.add_to(add)
    doctor.add_to(add)
    serve.add_to(add)
    replay.add_to(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
