"""A respx route for both operations."""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING

import httpx

from ._builders import event_stream

if TYPE_CHECKING:
    import respx

_PATH = r"/v1/llms/(?:chatrooms/[^/]+/)?chat/completions$"


def route_chat(router: respx.Router, *answers: str | bytes | httpx.Response) -> respx.Route:
    """Add a route to a respx router, such as ``respx_mock``, that answers both operations, whatever the address.

    Args:
        router: where the route is added.
        answers: what the requests get, one after another; the last is given again and again. A text is a whole answer,
            bytes are the body of an event stream, from :func:`event_stream`, and a response is given as it is.

    Returns:
        The route, for assertions such as ``route.call_count``.

    Raises:
        ValueError: no answer is given.
    """
    if not answers:
        raise ValueError("no answer is given; give at least one, such as a text")
    coming = chain(answers, repeat(answers[-1]))

    def answer(_: httpx.Request) -> httpx.Response:
        return _response(next(coming))

    return router.post(path__regex=_PATH).mock(side_effect=answer)


def _response(answer: str | bytes | httpx.Response) -> httpx.Response:
    if isinstance(answer, httpx.Response):
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
    body = event_stream([answer]) if isinstance(answer, str) else answer
    return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=body)
