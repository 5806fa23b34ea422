"""What is measured: the whole of it, and the short form that only shows that it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .clients import CLIENTS
from .wire import Delivery

BLOCKS, SINGLE, PACED, ONE_READ = "64 KiB reads", "a read a chunk", "paced tokens", "a socket read a chunk"
"""The ways of delivery, as the tables name them."""


@dataclass(frozen=True)
class Scenario:
    """Some streams at once, sent in one way."""

    delivery: str
    """One of the four above."""
    streams: int
    chunks: int
    """Of each stream."""
    rounds: int
    """In how many turns each client is measured, in a new process each time."""
    interval: float = 0.0
    """Seconds between two chunks of a paced stream."""
    seconds: float = 0.0
    """How long it is repeated within one process."""
    every_client: bool = False
    """Whether all are measured, and not only those that are measured with many streams."""

    @property
    def name(self) -> str:
        return f"{self.delivery}, {self.streams:,} stream{'s' if self.streams > 1 else ''}"

    @property
    def clients(self) -> Sequence[str]:
        """The names of those that are measured in it."""
        return [name for name, client in CLIENTS.items() if self.every_client or client.crowds]

    @property
    def job(self) -> dict[str, object]:
        """The job of ``measure``, less the address and the client."""
        sent: dict[str, Delivery] = {BLOCKS: "blocks", SINGLE: "single", PACED: "paced", ONE_READ: "single"}
        return {
            "delivery": sent[self.delivery],
            "streams": self.streams,
            "chunks": self.chunks,
            "interval": self.interval,
            "one_read": self.delivery == ONE_READ,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Growth:
    """How much of the rest is measured."""

    short: int
    long: int
    """Chunks of the streams that are compared."""
    fragments: int
    """Fragments, of four bytes each, of the longest tool call."""
    linear_rounds: int
    held: int
    """Streams that are open and idle."""
    few: int
    many: int
    """Short streams after which memory is compared."""
    import_rounds: int


FULL = (
    Scenario(BLOCKS, 1, 20_000, 3, seconds=0.6, every_client=True),
    Scenario(SINGLE, 1, 20_000, 3, seconds=0.6, every_client=True),
    Scenario(PACED, 20, 200, 3, interval=0.02, every_client=True),
    Scenario(ONE_READ, 1, 10_000, 2),
    Scenario(BLOCKS, 200, 500, 1),
    Scenario(SINGLE, 200, 500, 1),
    Scenario(PACED, 200, 40, 1, interval=0.2),
    Scenario(BLOCKS, 1_000, 50, 1),
    Scenario(SINGLE, 1_000, 50, 1),
    Scenario(PACED, 1_000, 16, 1, interval=0.75),
)

FULL_GROWTH = Growth(2_000, 200_000, 2_500_000, 2, 1_000, 10_000, 100_000, 10)

SHORT = (
    Scenario(PACED, 10, 20, 1, interval=0.01, every_client=True),
    Scenario(BLOCKS, 1, 100, 1),
    Scenario(SINGLE, 200, 10, 1),
    Scenario(ONE_READ, 1, 100, 1),
)

SHORT_GROWTH = Growth(100, 1_000, 1_000, 1, 20, 20, 60, 1)
