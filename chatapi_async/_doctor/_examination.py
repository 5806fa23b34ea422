"""Goes from step to step, as far as each leads, and reports what it finds as it finds it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx

from chatapi_async._client import AsyncChatClient
from chatapi_async._connecting import proxy_of
from chatapi_async._http import new_client, ssl_context
from chatapi_async._stream import ChatStream
from chatapi_async._timeouts import Timeouts
from chatapi_async.errors import APIConnectionError, APIStatusError, ChatAPIError, ConfigurationError
from chatapi_async.types import BaseChunk

from ._answers import judge_answered, judge_broken, judge_first_token, judge_reuse, judge_stream
from ._asking import Line, Question
from ._findings import STEPS, Finding, Step
from ._network import ConnectionFailure, Place, judge_connection, judge_lookup, judge_tls
from ._probes import address_of, connect, look_up, shake_hands, speaks_tls, tls_failure_in
from ._refusals import judge_refusal
from ._settings import Settings, judge_address, judge_credentials

FIRST_TOKENS: Final = 64
"""The most tokens that the first answer may take: enough to see whether it streams."""

SECOND_TOKENS: Final = 16
"""The most tokens that the second answer may take: the fewest that every provider accepts."""


# For these, TLS is within the proxy's tunnel, and only the request shows how it went.
_SECURED_THROUGH_PROXY: Final = Finding("TLS", "ok", "the certificate that came through the proxy is trusted")
_NOT_SECURED_THROUGH_PROXY: Final = Finding("TLS", "not tried", "not seen: it lies behind the proxy")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each step may take, in seconds."""

    lookup: float = 5.0
    connection: float = 5.0
    tls: float = 5.0
    first_token: float = 60.0
    idle: float = 30.0
    request: float = 90.0
    """Each of the two requests, from its beginning to its end."""


async def examine(settings: Settings, report: Callable[[Finding], None], *, limits: Limits = Limits()) -> None:
    """Check the server that is configured, with two small requests at most.

    The first request streams an answer by ``chat_completion``; the second sees whether its connection is used again,
    and goes to the chatroom, if there is one, which keeps its two messages. What a failed step leaves out is reported
    as not tried; so is the rest when this is cancelled.

    Args:
        settings: what is configured.
        report: told each finding as it is found; every step once, in their order.
        limits: how long each step may take.
    """
    examination = _Examination(settings, report, limits)
    try:
        await examination.run()
    finally:
        examination.leave_out_the_rest()


class _Examination:
    def __init__(self, settings: Settings, report: Callable[[Finding], None], limits: Limits) -> None:
        self._settings = settings
        self._report = report
        self._limits = limits
        self._left: list[Step] = [step for step in STEPS if step != "chatroom" or settings.room is not None]
        self._failed: Step | None = None
        self._proxied = False

    def leave_out_the_rest(self) -> None:
        """Report what was not tried, and why."""
        why = f"since this failed: {self._failed}" if self._failed else "since it was interrupted"
        for step in list(self._left):
            self._found(Finding(step, "not tried", f"not tried, {why}"))

    async def run(self) -> None:
        usable = self._found(judge_address(self._settings))
        complete = self._found(judge_credentials(self._settings, now=time.time()))
        if not usable:
            return
        url = self._settings.url
        try:
            client = new_client(secure=url.startswith("https:"))
        except ConfigurationError as error:
            advice = "Mend HTTP_PROXY, HTTPS_PROXY or ALL_PROXY: http://HOST:PORT; NO_PROXY names hosts without one."
            if isinstance(error.__cause__, ImportError):
                advice = f"A proxy of SOCKS needs pip install 'httpx[socks]'. {advice}"
            self._found(Finding("environment", "fail", str(error).rstrip("."), advice))
            return
        except OSError as error:
            words = f"the certificates to trust cannot be read: {error}"
            advice = "Mend SSL_CERT_FILE or SSL_CERT_DIR, which name the certificates to trust, or take them away."
            self._found(Finding("environment", "fail", words, advice))
            return
        async with client:
            if await self._reach(client, url) and complete:
                await self._ask(client, url)

    async def _reach(self, client: httpx.AsyncClient, url: str) -> bool:
        """Come as far as a secured connection, and tell whether that is so."""
        proxy = proxy_of(client, url)
        self._proxied = proxy is not None
        words = f"the server is asked through the proxy {proxy}" if proxy else "no proxy is used"
        self._found(Finding("environment", "ok", words))
        place = _place(proxy or url, proxy=self._proxied)
        began = anyio.current_time()
        addresses = await look_up(place, self._limits.lookup)
        if not self._found(judge_lookup(place, addresses, anyio.current_time() - began)):
            return False
        began = anyio.current_time()
        stream = await connect(place, self._limits.connection)
        seconds = anyio.current_time() - began
        if isinstance(stream, ConnectionFailure):
            return self._found(judge_connection(place, stream, seconds))
        try:
            self._found(judge_connection(place, address_of(stream), seconds))
            if not url.startswith("https:"):
                return self._found(Finding("TLS", "not needed", "not used: the base URL is plain http"))
            if proxy:
                return True
            began = anyio.current_time()
            outcome = await shake_hands(stream, place, ssl_context(), self._limits.tls)
            return self._found(judge_tls(place, outcome, anyio.current_time() - began, now=time.time()))
        finally:
            await anyio.aclose_forcefully(stream)

    async def _ask(self, http_client: httpx.AsyncClient, url: str) -> None:
        limits = self._limits
        timeouts = Timeouts(
            connect=limits.connection, first_chunk=limits.first_token, idle=limits.idle, total=limits.request
        )
        settings = self._settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # plain http to another machine was reported
            client = AsyncChatClient(
                url,
                operator_id=settings.operator_id.text,
                token=settings.token.text,
                timeout=timeouts,
                retries=0,
                http_client=http_client,
            )
        line = Line(http_client)
        first = await self._ask_first(
            client.chat_completion(
                "Count from one to ten in words.", model=settings.model, max_completion_tokens=FIRST_TOKENS
            ),
            line,
            url,
        )
        if first is None:
            return
        if settings.room is None:
            stream: ChatStream[BaseChunk] = client.chat_completion(
                "Say yes.", model=settings.model, max_completion_tokens=SECOND_TOKENS
            )
        else:
            stream = client.chat_completion_on_chatroom(
                settings.room, "Say yes.", model=settings.model, max_completion_tokens=SECOND_TOKENS
            )
        await self._ask_again(stream, line, url, first)

    async def _ask_first(self, stream: ChatStream[BaseChunk], line: Line, url: str) -> Question | None:
        """Hear the first answer to its end; None where it has none."""
        question = Question(stream, line)
        try:
            await question.begin()
            self._found(_SECURED_THROUGH_PROXY)
            self._found_all(judge_answered(question.heard))
            await question.first_text()
            if question.heard.first_text is not None:
                self._found(judge_first_token(question.heard))
            await question.rest()
        except ChatAPIError as error:
            self._found_all(await self._judge(error, question, url))
            return None
        finally:
            await question.aclose()
        self._found(judge_first_token(question.heard))
        self._found(judge_stream(question.heard))
        return question

    async def _ask_again(self, stream: ChatStream[BaseChunk], line: Line, url: str, first: Question) -> None:
        question = Question(stream, line)
        in_room = self._settings.room is not None
        answered = True
        try:
            await question.begin()
            await question.rest()
        except ChatAPIError as error:
            answered = question.heard.status is not None or isinstance(error, APIStatusError)
            step: Step = "chatroom" if in_room else "reuse"
            failure = (await self._judge(error, question, url, step))[-1]
            self._found(Finding(step, "fail", f"the second request failed: {failure.words}", failure.advice))
        else:
            if in_room:
                words = "it answers, and has stored the two messages of this check"
                self._found(Finding("chatroom", "ok", words, seconds=question.heard.duration))
        finally:
            await question.aclose()
        if answered:
            self._found(judge_reuse(first.heard, question.heard))

    async def _judge(
        self, error: ChatAPIError, question: Question, url: str, step: Step = "request"
    ) -> tuple[Finding, ...]:
        """Judge a failed request; all findings that follow, the failure last."""
        if question.heard.status is not None:
            return judge_broken(error, question.heard)
        if isinstance(error, APIConnectionError) and (failure := tls_failure_in(error)):
            return (judge_tls(_place(url), failure, None, now=time.time()),)
        self._found(_SECURED_THROUGH_PROXY if isinstance(error, APIStatusError) else _NOT_SECURED_THROUGH_PROXY)
        perhaps = step == "request" and self._may_speak_tls(error, url)
        secure = perhaps and await speaks_tls(_place(url), self._limits.tls)
        refusal = judge_refusal(error, url=url, speaks_tls=secure, step=step)
        seconds = question.heard.answered_after
        if refusal.step == "answer" or not isinstance(error, APIStatusError):
            return (replace(refusal, seconds=seconds),)
        return (Finding("answer", "ok", f"HTTP {error.status_code}", seconds=seconds), refusal)

    def _may_speak_tls(self, error: ChatAPIError, url: str) -> bool:
        if self._proxied or not url.startswith("http:"):
            return False
        if isinstance(error, APIStatusError):
            return error.status_code == 400
        return isinstance(error, APIConnectionError) and error.processed != "no"

    def _found_all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._found(finding)

    def _found(self, finding: Finding) -> bool:
        """Report a finding, unless one of that step was; tell whether the next step can be tried.

        A failure is never left out: where its step had gone well before, it is the next step's.
        """
        if finding.mark == "fail" and finding.step not in self._left:
            finding = replace(finding, step=self._left[0])
        if finding.step in self._left:
            self._left.remove(finding.step)
            self._report(finding)
            if finding.mark == "fail" and self._failed is None:
                self._failed = finding.step
        return finding.mark != "fail"


def _place(url: str, *, proxy: bool = False) -> Place:
    parts = urlsplit(url)
    usual = {"https": 443, "socks5": 1080, "socks5h": 1080}.get(parts.scheme, 80)
    return Place(parts.hostname or "", parts.port or usual, proxy)
