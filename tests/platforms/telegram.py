"""A stand-in for Telegram's Bot API: the methods that a bot of texts calls, with the limits of the real one.

What it enforces, and where that is from:

- A text has 1 to 4096 characters (Bot API reference, ``sendMessage``, ``editMessageText``), counted as UTF-16 code
  units, as the offsets of its entities are (reference, ``MessageEntity``). White space around it is cut off first: a
  text of nothing else is refused as empty, and one that differs in nothing else as "not modified", which is what TDLib,
  the library under the Bot API, does.
- One message a second in a chat, and 20 a minute in a group (Bots FAQ, "My bot is hitting limits, how do I avoid
  this?"). Sending and editing share these limits (TDLib's author, in tdlib/td, issues 2592 and 3034). The FAQ allows
  "short bursts" that go over the first limit, without a number; there are none here, so this is the stricter one.
- What is refused for that has status 429 and ``parameters.retry_after``, a whole number of seconds (reference,
  ``ResponseParameters``). How much longer Telegram makes a bot wait that goes on all the same is not known, and is not
  done here.
- ``sendChatAction`` is not limited, and lasts five seconds (reference).

Texts are plain: a ``parse_mode`` is refused, and only ``bot_command`` entities are found, in what users write.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.platforms.limits import RateLimit
from tests.platforms.serving import serving

TOKEN = "123456:a-token-of-the-stand-in"
LONGEST_TEXT = 4096
_LONGEST_WAIT = 20.0
_BOT = {"id": 123456, "is_bot": True, "first_name": "Test bot", "username": "test_bot"}


@dataclass(frozen=True)
class Call:
    """A request that the bot made, and how it was answered."""

    time: float
    """Seconds since the stand-in was made."""
    kind: str
    """The method, such as ``"sendMessage"``."""
    status: int
    text: str = ""
    chat: int = 0


@dataclass
class ShownMessage:
    """A message of the bot, as its chat showed it from time to time."""

    chat: int
    states: list[tuple[float, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.states[-1][1]


class _RefusedError(Exception):
    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        self.status = status
        self.body = {"ok": False, "error_code": status, "description": description}
        if parameters:
            self.body["parameters"] = parameters


class Telegram:
    """The stand-in. Chats with a negative id are groups, as in Telegram.

    Args:
        second: how long Telegram's second is, for limits; ``retry_after`` is in true seconds, since bots wait those.
    """

    def __init__(self, *, second: float = 1.0) -> None:
        self.second = second
        self.url = ""
        self.calls: list[Call] = []
        self.messages: dict[tuple[int, int], ShownMessage] = {}
        self._begin = time.monotonic()
        self._in_chat = RateLimit(1, second)
        self._in_group = RateLimit(20, 60 * second)
        self._refusals: dict[int, int] = {}
        self._updates: list[dict[str, Any]] = []
        self._chats: set[int] = set()
        self._number = 0
        self._closing = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Self, None]:
        """Serve the stand-in at ``url``."""
        app = Starlette(routes=[Route("/bot{token}/{method}", self._answer, methods=["GET", "POST"])])
        async with serving(app, lifespan="off") as self.url:
            try:
                yield self
            finally:
                self._closing = True
                await self._change()

    # ── the side of people ───────────────────────────────────────────────────────────────────────────────────────────

    async def say(self, text: str, chat: int = 1) -> None:
        """Write to the bot."""
        self._chats.add(chat)
        message = self._message(chat, self._next_number(), text)
        message["from"] = {"id": abs(chat), "is_bot": False, "first_name": "Ada"}
        if command := re.match(r"/\w+", text):
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": command.end()}]
        self._updates.append({"update_id": self._next_number(), "message": message})
        await self._change()

    def refuse_next(self, retry_after: int, chat: int = 1) -> None:
        """Refuse the next message or edit in a chat, though it is within the limits."""
        self._refusals[chat] = retry_after

    def texts(self, chat: int = 1) -> list[str]:
        """The bot's messages in a chat, as they are shown now."""
        return [message.text for message in self.messages.values() if message.chat == chat]

    def statuses(self, status: int) -> list[Call]:
        """The calls that were answered with this status."""
        return [call for call in self.calls if call.status == status]

    def now(self) -> float:
        """Seconds since the stand-in was made."""
        return time.monotonic() - self._begin

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so after a call of the bot."""
        async with asyncio.timeout(_LONGEST_WAIT), self._changed:
            await self._changed.wait_for(condition)

    # ── the side of the bot ──────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, request: Request) -> JSONResponse:
        method = request.path_params["method"]
        given = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        chat, text = int(given.get("chat_id", 0)), given.get("text", "").strip()
        try:
            _check_token(request.path_params["token"])
            answer = {"ok": True, "result": await self._call(method.lower(), given, chat, text)}
        except _RefusedError as error:
            self.calls.append(Call(self.now(), method, error.status, text, chat))
            await self._change()
            return JSONResponse(error.body, error.status)
        self.calls.append(Call(self.now(), method, 200, text, chat))
        await self._change()
        return JSONResponse(answer)

    async def _call(self, method: str, given: dict[str, str], chat: int, text: str) -> object:
        match method:
            case "getme":
                return _BOT
            case "getupdates":
                return await self._get_updates(int(given.get("offset", 0)), float(given.get("timeout", 0)))
            case "sendchataction":
                return True
            case "sendmessage":
                self._check(given, chat, text)
                self._count(chat)
                number = self._next_number()
                self.messages[chat, number] = ShownMessage(chat, [(self.now(), text)])
                return {**self._message(chat, number, text), "from": _BOT}
            case "editmessagetext":
                number = int(given.get("message_id", 0))
                if (chat, number) not in self.messages:
                    raise _RefusedError(400, "Bad Request: message to edit not found")
                self._check(given, chat, text)
                message = self.messages[chat, number]
                if text == message.text:
                    raise _RefusedError(
                        400,
                        "Bad Request: message is not modified: specified new message content and reply markup "
                        "are exactly the same as a current content and reply markup of the message",
                    )
                self._count(chat)
                message.states.append((self.now(), text))
                return {**self._message(chat, number, text), "from": _BOT, "edit_date": int(time.time())}
        raise _RefusedError(404, "Not Found: method not found")

    async def _get_updates(self, offset: int, longest: float) -> list[dict[str, Any]]:
        self._updates = [update for update in self._updates if update["update_id"] >= offset]
        try:
            async with asyncio.timeout(longest), self._changed:
                await self._changed.wait_for(lambda: self._updates or self._closing)
        except TimeoutError:
            pass
        return self._updates

    def _check(self, given: dict[str, str], chat: int, text: str) -> None:
        if chat not in self._chats:
            raise _RefusedError(400, "Bad Request: chat not found")
        if given.get("parse_mode"):
            raise _RefusedError(400, "Bad Request: unsupported parse_mode")
        for entity in json.loads(given.get("entities", "[]")):
            if not 0 <= entity["offset"] <= entity["offset"] + entity["length"] <= _utf16_units(text):
                raise _RefusedError(400, "Bad Request: entity beginning at UTF-16 offset is out of the text")
        if not text:
            raise _RefusedError(400, "Bad Request: message text is empty")
        if _utf16_units(text) > LONGEST_TEXT:
            raise _RefusedError(400, "Bad Request: message is too long")

    def _count(self, chat: int) -> None:
        """Count a message or an edit, or refuse it."""
        limits = [self._in_chat, self._in_group] if chat < 0 else [self._in_chat]
        now = self.now()
        wait = max(0.0 if limit.remaining(chat, now) else limit.reset_after(chat, now) for limit in limits)
        retry_after = self._refusals.pop(chat, math.ceil(wait))
        if retry_after:
            raise _RefusedError(429, f"Too Many Requests: retry after {retry_after}", retry_after=retry_after)
        for limit in limits:
            limit.take(chat, now)

    def _message(self, chat: int, number: int, text: str) -> dict[str, Any]:
        kind = {"type": "group", "title": "A group"} if chat < 0 else {"type": "private", "first_name": "Ada"}
        return {"message_id": number, "date": int(time.time()), "chat": {"id": chat, **kind}, "text": text}

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def _change(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _check_token(token: str) -> None:
    if token != TOKEN:
        raise _RefusedError(401, "Unauthorized")


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
