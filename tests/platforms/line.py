"""A stand-in for LINE's Messaging API: what a bot of texts calls, and the webhook that calls the bot.

What it enforces, and where that is from (all of it from developers.line.biz):

- A request has 1 to 5 messages, and a text message 1 to 5000 characters (Messaging API reference, "Send push message",
  "Text message"), counted as UTF-16 code units ("Character counting in a text").
- A reply token is good for one reply, and for about a minute (reference, "Send reply message"); a push with the
  ``X-Line-Retry-Key`` of one that was accepted is answered with 409 ("Retrying a failed API request").
- 2,000 requests a second for each endpoint of a channel, 100 for the loading animation; more are answered with 429,
  without a word of when to come back (reference, "Rate limits").
- The loading animation takes a user's id, and 5 to 60 seconds in steps of five; the next message ends it ("Display a
  loading animation").
- A webhook call is signed with the channel's secret in ``X-Line-Signature`` ("Verifying signatures"), and wants a 200
  soon; work that takes longer is to be done afterwards ("Receiving messages").
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.platforms.limits import RateLimit
from tests.platforms.serving import serving

CHANNEL_SECRET = "the-secret-of-the-stand-in"
ACCESS_TOKEN = "an-access-token-of-the-stand-in"
LONGEST_TEXT = 5000
MOST_MESSAGES = 5
_LONGEST_WAIT = 20.0


@dataclass(frozen=True)
class Call:
    """A request that the bot made, and how it was answered."""

    time: float
    """Seconds since the stand-in was made."""
    kind: str
    """``"reply"``, ``"push"`` or ``"loading"``."""
    status: int
    texts: tuple[str, ...] = ()
    user: str = ""


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, *details: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"message": message}
        if details:
            self.body["details"] = [{"message": detail} for detail in details]


class Line:
    """The stand-in.

    Args:
        pushes: how many pushes are allowed.
        loadings: how many loading animations are allowed.
        reply_token_seconds: how long a reply token is good.
    """

    def __init__(
        self,
        *,
        pushes: RateLimit | None = None,
        loadings: RateLimit | None = None,
        reply_token_seconds: float = 60.0,
    ) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self.shown: defaultdict[str, list[str]] = defaultdict(list)
        """What each user sees of the bot."""
        self._limits = {
            "reply": RateLimit(2000, 1.0),
            "push": pushes or RateLimit(2000, 1.0),
            "loading": loadings or RateLimit(100, 1.0),
        }
        self._reply_token_seconds = reply_token_seconds
        self._reply_tokens: dict[str, tuple[str, float]] = {}
        self._retry_keys: set[str] = set()
        self._begin = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Self, None]:
        """Serve the stand-in at ``url``."""
        routes = [
            Route("/v2/bot/message/reply", self._endpoint("reply", self._reply), methods=["POST"]),
            Route("/v2/bot/message/push", self._endpoint("push", self._push), methods=["POST"]),
            Route("/v2/bot/chat/loading/start", self._endpoint("loading", self._load), methods=["POST"]),
        ]
        async with (
            serving(Starlette(routes=routes), lifespan="off") as self.url,
            httpx.AsyncClient(verify=False) as self._client,  # noqa: S501 - it is quicker, and speaks plain HTTP alone
        ):
            yield self

    # ── the side of people ───────────────────────────────────────────────────────────────────────────────────────────

    async def say(self, webhook: str, text: str, user: str = "U1", *, secret: str = CHANNEL_SECRET) -> httpx.Response:
        """Write to the bot whose webhook this is; returns how it answered the call."""
        token = uuid.uuid4().hex
        self._reply_tokens[token] = (user, self.now() + self._reply_token_seconds)
        event = {
            "type": "message",
            "message": {"type": "text", "id": "1", "quoteToken": "q", "text": text},
            "webhookEventId": uuid.uuid4().hex,
            "deliveryContext": {"isRedelivery": False},
            "timestamp": int(time.time() * 1000),
            "source": {"type": "user", "userId": user},
            "replyToken": token,
            "mode": "active",
        }
        body = json.dumps({"destination": "U0", "events": [event]}, ensure_ascii=False).encode()
        digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
        headers = {"content-type": "application/json", "x-line-signature": base64.b64encode(digest).decode()}
        return await self._client.post(webhook, content=body, headers=headers)

    def of(self, kind: str, status: int = 200) -> list[Call]:
        """The calls of one kind that were answered with this status."""
        return [call for call in self.calls if (call.kind, call.status) == (kind, status)]

    def now(self) -> float:
        """Seconds since the stand-in was made."""
        return time.monotonic() - self._begin

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        with anyio.fail_after(_LONGEST_WAIT):
            while not condition():  # noqa: ASYNC110 - what is waited for may be the bot's, not the stand-in's
                await anyio.sleep(0.005)

    # ── the side of the bot ──────────────────────────────────────────────────────────────────────────────────────────

    def _endpoint(self, kind: str, accept: Callable[[Request, dict[str, Any]], str]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> JSONResponse:
            given = json.loads(await request.body())
            texts = tuple(message.get("text", "") for message in given.get("messages", ()))
            user, status, body = "", 202 if kind == "loading" else 200, {}
            try:
                self._admit(kind, request)
                user = accept(request, given)
                if texts:
                    self.shown[user].extend(texts)
                    body = {"sentMessages": [{"id": uuid.uuid4().hex, "quoteToken": "q"} for _ in texts]}
            except _RefusedError as error:
                status, body = error.status, error.body
            self.calls.append(Call(self.now(), kind, status, texts, user))
            return JSONResponse(body, status)

        return answer

    def _admit(self, kind: str, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {ACCESS_TOKEN}":
            raise _RefusedError(401, "Authentication failed. Confirm that the access token in the header is valid.")
        if self._limits[kind].take(kind, self.now()):
            raise _RefusedError(429, "The API rate limit has been exceeded. Try again later.")

    def _reply(self, request: Request, given: dict[str, Any]) -> str:
        _check_messages(given)
        user, expires = self._reply_tokens.pop(given["replyToken"], ("", 0.0))
        if self.now() > expires:
            raise _RefusedError(400, "Invalid reply token")
        return user

    def _push(self, request: Request, given: dict[str, Any]) -> str:
        _check_messages(given)
        user = _check_user(given.get("to"))
        if (key := request.headers.get("x-line-retry-key")) is not None:
            uuid.UUID(key)
            if key in self._retry_keys:
                raise _RefusedError(409, "The retry key is already accepted")
            self._retry_keys.add(key)
        return user

    def _load(self, request: Request, given: dict[str, Any]) -> str:
        if given.get("loadingSeconds", 20) not in range(5, 61, 5):
            raise _RefusedError(400, "The value for the 'loadingSeconds' parameter is invalid.")
        return _check_user(given.get("chatId"))


def _check_user(user: object) -> str:
    if not isinstance(user, str) or not user.startswith("U"):
        raise _RefusedError(400, "The property, 'to', in the request body is invalid (line: -, column: -)")
    return user


def _check_messages(given: dict[str, Any]) -> None:
    messages = given.get("messages", ())
    if not 1 <= len(messages) <= MOST_MESSAGES:
        raise _RefusedError(400, "The request body has 1 error(s)", "messages: Size must be between 1 and 5")
    for number, message in enumerate(messages):
        if message.get("type") != "text":
            raise _RefusedError(400, "A message of a kind that the stand-in does not know")
        text = message.get("text", "")
        if not text.strip():
            raise _RefusedError(400, "The request body has 1 error(s)", f"messages[{number}].text: May not be empty")
        if len(text.encode("utf-16-le", "surrogatepass")) // 2 > LONGEST_TEXT:
            detail = f"messages[{number}].text: Length must be between 0 and 5000"
            raise _RefusedError(400, "The request body has 1 error(s)", detail)
