"""The commands of ``chatapi``: a module for each kind, which adds its own to the command line by ``add_to``.

What they have in common is here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Protocol

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """The command cannot be carried out as it was typed."""


class AddCommand(Protocol):
    """Adds a command, and returns its parser."""

    def __call__(self, name: str, command: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        """Add a command.

        Args:
            name: what is typed after ``chatapi``.
            command: carries it out, and returns the exit code.
            about: what it is for, in a sentence.
        """
        ...


def positive(text: str) -> float:
    """Read an option that is a number greater than 0."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return number


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which server is asked, and for what."""
    parser.add_argument("--base-url", metavar="URL", help="the server (default: $CHATAPI_BASE_URL)")
    parser.add_argument("--operator-id", metavar="ID", help="the operator (default: $CHATAPI_OPERATOR_ID)")
    parser.add_argument("--room", metavar="ID", help="a chatroom, which keeps the conversation on the server")
    parser.add_argument("--model", metavar="NAME", help="such as anthropic/claude-sonnet-4-5, large or small")


def complain(error: Exception, code: int) -> int:
    """Print an error as one line on standard error, and return ``code``."""
    print(f"chatapi: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code
