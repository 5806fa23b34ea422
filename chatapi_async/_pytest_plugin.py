"""The pytest plugin. Every start of pytest loads it, so it imports nothing of this library until a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import ChatServer


@pytest.fixture
def chatapi_server(monkeypatch: pytest.MonkeyPatch) -> Generator[ChatServer, None, None]:
    """A running server of the service on a free port, as a ``chatapi_async.testing.ChatServer``."""
    from .testing import serve_chat

    with serve_chat() as server:
        # A proxy that the environment names cannot reach this machine's loopback.
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1"))))
        yield server
