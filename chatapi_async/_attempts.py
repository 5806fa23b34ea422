"""One call, sent as often as it may be: headers for each attempt, and what to do with an answer that is none."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio

from ._body import read_into
from ._body_decoder import EXCERPT_BYTES
from ._configuration import Credentials, RequestBody
from ._failures import status_error
from ._http import SendsRequests
from ._patience import Patience
from ._response import BodyBrokenError, ReadableResponse
from ._retry import RetryPolicy
from ._secrets import SecretHeaders, Secrets
from ._timeouts import Timeouts
from .errors import APIStatusError, APITimeoutError, AuthenticationError, ChatAPIError

logger = logging.getLogger("chatapi_async")

_ERROR_BODY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation: all that its attempts have in common."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    credentials: Credentials | None
    body: RequestBody = field(repr=False)
    timeouts: Timeouts
    secrets: Secrets = field(default_factory=Secrets, repr=False)

    @property
    def where(self) -> str:
        """What is asked, for messages."""
        return f"POST {self.url}"


async def send(call: Call, http: SendsRequests, retries: RetryPolicy, patience: Patience) -> ReadableResponse:
    """Send until there is an answer of status 2xx, or a failure that must not be repeated.

    Raises:
        ChatAPIError: the last failure.
    """
    retries_done = 0
    token_renewed = False
    while True:
        began = anyio.current_time()
        patience.waits.attempt_began(began)
        try:
            response = await _attempt(call, http, patience)
        except ChatAPIError as error:
            patience.waits.attempt_failed()
            logger.debug("%s failed after %.3f s: %s", call.where, anyio.current_time() - began, _kind(error))
            renewable = call.credentials is not None and call.credentials.refreshable
            if isinstance(error, AuthenticationError) and renewable and not token_renewed:
                token_renewed = True
                continue
            delay = retries.delay(error, retries_done, random.random())  # noqa: S311 - spreads load, no secret
            if delay is None or anyio.current_time() + delay >= patience.waits.total_at:
                raise
            retries_done += 1
            logger.warning("%s failed: %s; retry %d in %.2f s", call.where, _kind(error), retries_done, delay)
        else:
            logger.debug("%s: %d after %.3f s", call.where, response.status_code, anyio.current_time() - began)
            return response
        await patience.wait_for(partial(anyio.sleep, delay))


async def _attempt(call: Call, http: SendsRequests, patience: Patience) -> ReadableResponse:
    headers = SecretHeaders(call.headers)
    patience.request_sent(False)
    if call.credentials is not None:
        headers["authorization"] = await patience.wait_for(call.credentials.header)
    call.secrets.add(headers["authorization"])

    async def post() -> ReadableResponse:
        patience.request_sent(True)  # the HTTP layer says more precisely, where it can
        return await http.post(
            call.url,
            headers=headers,
            content=call.body.content,
            timeouts=call.timeouts,
            on_progress=patience.request_sent,
        )

    response = await patience.wait_for(post)
    if 200 <= response.status_code < 300:
        return response
    raise await _status_error(call, response, patience)


async def _status_error(call: Call, response: ReadableResponse, patience: Patience) -> APIStatusError:
    body = bytearray()
    try:
        # What the error says is worth a short wait, and no more: its status alone is known already.
        with anyio.move_on_after(_ERROR_BODY_SECONDS), suppress(BodyBrokenError, APITimeoutError):
            await patience.wait_for(partial(read_into, body, response, EXCERPT_BYTES))
    except GeneratorExit:
        raise  # its event loop is gone, so nothing can be awaited any more
    except BaseException:
        await response.aclose()
        raise
    await response.aclose()
    return status_error(
        where=call.where,
        status_code=response.status_code,
        headers=response.headers,
        body=bytes(body),
        now=time.time(),
        request_id=response.request_id,
    )


def _kind(error: ChatAPIError) -> str:
    # The server's own words stay out of the log: some servers repeat the token in them.
    return f"{type(error).__name__} {error.status_code}" if isinstance(error, APIStatusError) else type(error).__name__
