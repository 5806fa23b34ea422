"""A stand-in of Discord on loopback: as much of its HTTP API and gateway as a bot needs to log in, be asked and answer.

It enforces what Discord enforces on messages:

- A message has 1 to 2000 characters ("Create Message" in Discord's documentation, https://docs.discord.com/developers),
  counted in code points (Discord's own answer in github.com/discord/discord-api-docs/issues/1315). Otherwise 400 with
  code 50035, or 50006 for an empty one.
- 5 messages or edits in 5 seconds and channel. Discord documents no numbers but how it tells of them ("Rate Limits" in
  the same documentation): ``X-RateLimit-*`` on the answers, and a 429 with ``Retry-After``. 5 in 5 seconds is what bots
  observe (issues/2761 there). Discord names one bucket for messages and for edits, though it counts each by itself
  (issues/8073 there); here they are counted together, which is what the documentation says of a bucket, and stricter.
- Some limits are not told before they are broken: the limit of all who write in a channel (code 20028; issues/5312 and
  pull/8290 there), where the documentation's own example still shows 9 remaining requests. ``announced`` says another
  limit in the headers than the one that is enforced; the 429 then has the scope ``shared``.
- Without the privileged intent, a bot sees the text of no message but those that mention it or are sent to it alone.

Not limited here: the typing indicator, and the 50 requests a second of a whole bot. The gateway sends plain JSON,
which discord.py takes as well as compressed, and resumes no session.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import WSMsgType, web

from tests.platforms.limits import RateLimit

TOKEN = "the-token-of-the-bot"
BOT, PERSON, GUILD, PRIVATE = "1000", "2000", "3000", "4000"
"""Ids: the bot, who writes to it, the server with the channels, and the channel of the two alone."""
MENTION = f"<@{BOT}>"

_LONGEST = 2000
_MESSAGE_CONTENT = 1 << 15
_DISPATCH, _HEARTBEAT, _IDENTIFY, _HELLO, _HEARTBEAT_ACK = 0, 1, 2, 10, 11
_HEARTBEAT_MILLISECONDS = 41250
_CREATED = "2026-01-01T00:00:00+00:00"

Kind = Literal["send", "edit", "typing"]


@dataclass(frozen=True)
class Call:
    """A request of the bot, as it was answered."""

    time: float
    """Seconds since the stand-in was started."""
    kind: Kind
    channel: str
    status: int
    content: str = ""


@dataclass
class Shown:
    """A message of the bot, and all that it ever said."""

    id: str
    channel: str
    states: list[str] = field(default_factory=list)
    notified_everyone: bool = False
    """Whether it ever said @everyone in a way that rings at everyone's."""

    @property
    def text(self) -> str:
        return self.states[-1]


class Discord:
    """The stand-in. It is served at ``base_url`` inside ``async with``.

    Args:
        limit: how many messages and edits a channel takes; 5 in 5 seconds by default.
        announced: what the headers say of it; the truth by default.
    """

    def __init__(self, limit: RateLimit | None = None, announced: RateLimit | None = None) -> None:
        self.base_url = ""
        """What ``discord.http.Route.BASE`` is to be."""
        self.gateway_url = ""
        """What ``discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY`` is to be, as a ``yarl.URL``; discord.py asks for
        the address of the gateway only where it has several shards."""
        self.calls: list[Call] = []
        """Every message, edit and typing indicator that was asked for, refused ones too."""
        self.online = asyncio.Event()
        """Set once a bot has logged in."""
        self._limit = limit or RateLimit(5, 5.0)
        self._announced = announced or self._limit
        self._shown: dict[str, Shown] = {}
        self._gateways: dict[web.WebSocketResponse, int] = {}
        self._ids = count(1_300_000_000_000_000_000)
        self._sequence = count(1)
        self._started = time.monotonic()
        self._runner = web.AppRunner(self._application(), shutdown_timeout=1.0)

    # ── what a person sees and does ──────────────────────────────────────────────────────────────────────────────────

    def shown(self, channel: str) -> list[Shown]:
        """The bot's messages in a channel."""
        return [message for message in self._shown.values() if message.channel == channel]

    def texts(self, channel: str) -> list[str]:
        """What the bot's messages in a channel say now."""
        return [message.text for message in self.shown(channel)]

    def count(self, status: int) -> int:
        """How many requests were answered with that status."""
        return sum(call.status == status for call in self.calls)

    def now(self) -> float:
        """Seconds since the stand-in was started."""
        return time.monotonic() - self._started

    async def say(self, text: str, channel: str) -> None:
        """Write as a person."""
        author = {"id": PERSON, "username": "person", "discriminator": "0", "avatar": None}
        await self._publish("MESSAGE_CREATE", _message(str(next(self._ids)), channel, text, author))

    def delete(self, message: Shown) -> None:
        """Delete a message of the bot, without telling it."""
        del self._shown[message.id]

    # ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/api/v10"
        self.gateway_url = f"ws://{host}:{port}/"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for gateway in list(self._gateways):
            await gateway.close()
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_authorized])
        application.add_routes(
            [
                web.get("/api/v10/users/@me", self._me),
                web.get("/api/v10/oauth2/applications/@me", self._this_application),
                web.get("/api/v10/gateway/bot", self._gateway_address),
                web.get("/api/v10/channels/{channel}", self._channel),
                web.post("/api/v10/channels/{channel}/typing", self._typing),
                web.post("/api/v10/channels/{channel}/messages", self._send),
                web.patch("/api/v10/channels/{channel}/messages/{message}", self._edit),
                web.get("/", self._gateway),
            ]
        )
        return application

    async def _me(self, _: web.Request) -> web.Response:
        return _json(_BOT)

    async def _this_application(self, _: web.Request) -> web.Response:
        return _json(
            {"id": BOT, "name": "bot", "description": "", "bot_public": True, "verify_key": "", "flags": 0}
            | {"bot_require_code_grant": False, "icon": None, "owner": _BOT, "team": None, "rpc_origins": []}
        )

    async def _gateway_address(self, _: web.Request) -> web.Response:
        starts = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}
        return _json({"url": self.gateway_url, "shards": 1, "session_start_limit": starts})

    async def _channel(self, request: web.Request) -> web.Response:
        return _json(_channel(request.match_info["channel"]))

    async def _typing(self, request: web.Request) -> web.Response:
        self.calls.append(Call(self.now(), "typing", request.match_info["channel"], 204))
        return web.Response(status=204)

    async def _send(self, request: web.Request) -> web.Response:
        return await self._write("send", request, Shown(str(next(self._ids)), request.match_info["channel"]))

    async def _edit(self, request: web.Request) -> web.Response:
        channel, message = request.match_info["channel"], self._shown.get(request.match_info["message"])
        if message is not None:
            return await self._write("edit", request, message)
        self.calls.append(Call(self.now(), "edit", channel, 404))
        return _refused(404, 10008, "Unknown Message")

    async def _write(self, kind: Kind, request: web.Request, message: Shown) -> web.Response:
        """Let the bot write what the request says into the message, if the limits allow it."""
        payload = await request.json()
        content = payload["content"]
        now = self.now()
        wait = self._limit.take(message.channel, now)
        if self._announced is not self._limit:
            self._announced.take(message.channel, now)
        if wait:
            answer = self._too_many(wait)
        elif not content.strip():
            answer = _refused(400, 50006, "Cannot send an empty message")
        elif len(content) > _LONGEST:
            problem = {"code": "BASE_TYPE_MAX_LENGTH", "message": f"Must be {_LONGEST} or fewer in length."}
            answer = _refused(400, 50035, "Invalid Form Body", {"content": {"_errors": [problem]}})
        else:
            message.states.append(content)
            allowed = payload.get("allowed_mentions", {"parse": ["everyone"]})
            message.notified_everyone |= "@everyone" in content and "everyone" in allowed.get("parse", [])
            self._shown[message.id] = message
            edited = _CREATED if kind == "edit" else None
            described = _message(message.id, message.channel, content, _BOT) | {"edited_timestamp": edited}
            await self._publish("MESSAGE_UPDATE" if edited else "MESSAGE_CREATE", described)
            answer = _json(described)
        answer.headers.update(self._headers(message.channel, now))
        self.calls.append(Call(now, kind, message.channel, answer.status, content))
        return answer

    def _headers(self, channel: str, now: float) -> dict[str, str]:
        reset_after = _rounded_up(self._announced.reset_after(channel, now))
        return {
            "Via": "1.1 google",
            "X-RateLimit-Limit": str(self._announced.requests),
            "X-RateLimit-Remaining": str(self._announced.remaining(channel, now)),
            "X-RateLimit-Reset": f"{time.time() + reset_after:.3f}",
            "X-RateLimit-Reset-After": f"{reset_after:.3f}",
            "X-RateLimit-Bucket": "80c17d2f203122d936070c88c8d10f33",
        }

    def _too_many(self, wait: float) -> web.Response:
        said: dict[str, Any] = {"message": "You are being rate limited.", "retry_after": _rounded_up(wait)}
        scope = "user"
        if self._announced is not self._limit:
            scope = "shared"
            text = "The write action you are performing on the channel has hit the write rate limit."
            said |= {"message": text, "code": 20028}
        headers = {"Retry-After": str(math.ceil(wait)), "X-RateLimit-Scope": scope}
        return _json(said | {"global": False}, status=429, headers=headers)

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        gateway = web.WebSocketResponse()
        await gateway.prepare(request)
        await gateway.send_json({"op": _HELLO, "d": {"heartbeat_interval": _HEARTBEAT_MILLISECONDS}})
        try:
            async for frame in gateway:
                if frame.type is not WSMsgType.TEXT:
                    continue
                said = frame.json()
                if said["op"] == _HEARTBEAT:
                    await gateway.send_json({"op": _HEARTBEAT_ACK})
                elif said["op"] == _IDENTIFY:
                    await self._welcome(gateway)
                    self._gateways[gateway] = said["d"]["intents"]
                    self.online.set()
        finally:
            self._gateways.pop(gateway, None)
        return gateway

    async def _welcome(self, gateway: web.WebSocketResponse) -> None:
        ready = {
            "v": 10,
            "user": _BOT,
            "guilds": [{"id": GUILD, "unavailable": True}],
            "session_id": "session",
            "resume_gateway_url": self.gateway_url,
            "application": {"id": BOT, "flags": 0},
        }
        everyone = {"id": GUILD, "name": "@everyone", "permissions": "2147483647", "position": 0, "color": 0}
        guild = {
            "id": GUILD,
            "name": "server",
            "owner_id": PERSON,
            "member_count": 2,
            "roles": [everyone | {"hoist": False, "managed": False, "mentionable": False}],
            "members": [{"user": _BOT, "roles": [], "joined_at": _CREATED, "deaf": False, "mute": False, "flags": 0}],
            "channels": [_channel("1"), _channel("2")],
        }
        for name, data in (("READY", ready), ("GUILD_CREATE", guild)):
            await self._dispatch(gateway, name, data)

    async def _publish(self, name: str, message: dict[str, Any]) -> None:
        """Tell every gateway of a message, with as much of it as its bot may see."""
        visible = message["author"]["id"] == BOT or message["channel_id"] == PRIVATE or message["mentions"]
        for gateway, intents in list(self._gateways.items()):
            seen = message if visible or intents & _MESSAGE_CONTENT else message | {"content": ""}
            await self._dispatch(gateway, name, seen)

    async def _dispatch(self, gateway: web.WebSocketResponse, name: str, data: dict[str, Any]) -> None:
        await gateway.send_json({"op": _DISPATCH, "t": name, "s": next(self._sequence), "d": data})


_BOT = {"id": BOT, "username": "bot", "discriminator": "0", "avatar": None, "bot": True}


def _channel(channel_id: str) -> dict[str, Any]:
    channel = {"id": channel_id, "type": 0, "guild_id": GUILD, "name": f"channel-{channel_id}", "position": 0}
    return channel | {"permission_overwrites": [], "nsfw": False, "parent_id": None}


def _message(message_id: str, channel: str, content: str, author: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": message_id,
        "channel_id": channel,
        "author": author,
        "content": content,
        "timestamp": _CREATED,
        "edited_timestamp": None,
        "type": 0,
        "tts": False,
        "pinned": False,
        "mention_everyone": False,
        "mentions": [_BOT] if MENTION in content else [],
        **{name: [] for name in ("mention_roles", "attachments", "embeds", "components")},
    }
    if channel != PRIVATE:
        message |= {
            "guild_id": GUILD,
            "member": {"roles": [], "joined_at": _CREATED, "deaf": False, "mute": False, "flags": 0},
        }
    return message


def _json(data: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    # With the charset that aiohttp adds to a text, discord.py would not take it for JSON.
    return web.Response(body=json.dumps(data).encode(), status=status, headers=headers, content_type="application/json")


def _refused(status: int, code: int, text: str, errors: dict[str, Any] | None = None) -> web.Response:
    return _json({"message": text, "code": code} | ({"errors": errors} if errors else {}), status=status)


def _rounded_up(seconds: float) -> float:
    """To milliseconds, as Discord tells of times."""
    return math.ceil(seconds * 1000) / 1000


@web.middleware
async def _authorized(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if request.path != "/" and request.headers.get("Authorization") != f"Bot {TOKEN}":
        return _refused(401, 0, "401: Unauthorized")
    return await handler(request)
