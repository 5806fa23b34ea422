"""The judgement of a request that failed before its answer began: an HTTP error, or no HTTP at all. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urljoin, urlsplit

from chatapi_async._failures import excerpt
from chatapi_async.errors import APIConnectionError, APIStatusError, APITimeoutError, ChatAPIError

from ._findings import Finding, Step
from ._oddities import span

_PATH: Final = re.compile(r"/v1/llms/(chatrooms/[^/]+/)?chat/completions/?$")
_OPERATOR: Final = re.compile(r"operator|tenant", re.IGNORECASE)
_MODEL: Final = re.compile(r"model", re.IGNORECASE)
_HTML: Final = re.compile(r"\s*<(!doctype|html|head|body|title|h1)\b", re.IGNORECASE)


def judge_refusal(error: ChatAPIError, *, url: str, speaks_tls: bool, step: Step = "request") -> Finding:
    """Judge why a request got no answer of the model's.

    Args:
        error: the failure.
        url: the base URL.
        speaks_tls: whether the port of a plain http address turned out to speak TLS.
        step: where a refusal by the service itself belongs: to the request, or to the chatroom.
    """
    if speaks_tls:
        words = "the port speaks https, and the base URL says http"
        return Finding("answer", "fail", words, "Write https:// instead of http:// in the base URL.")
    if isinstance(error, APIStatusError):
        return _judge_status(error, url, step)
    if isinstance(error, APITimeoutError):
        if error.processed == "no":
            words = f"no connection for the request within {error.limit:g} s"
            advice = "Try again; if it happens often, the network or the proxy loses connections."
        else:
            words = f"the request was sent, and nothing came back within {error.limit:g} s"
            advice = (
                "Check that the port in the base URL is the service's: something else may listen there. If it is, try "
                "again, and another --model; if it stays so, ask whoever runs the server, or the proxy before it."
            )
        return Finding("answer", "fail", words, advice)
    if isinstance(error, APIConnectionError) and error.processed == "no":
        advice = "Try again; if it happens often, the network or the proxy loses connections."
        if re.search(r"\b407\b", str(error)):
            advice = "Put the user and password that the proxy wants into its address, http://USER:PASSWORD@HOST:PORT."
        return Finding("answer", "fail", _first_sentences(error), advice)
    advice = (
        "Check that the port in the base URL is the service's: something else may listen there. If it is, ask whoever "
        "runs the server why it hangs up."
    )
    return Finding("answer", "fail", _first_sentences(error), advice)


def _judge_status(error: APIStatusError, url: str, step: Step) -> Finding:
    status = error.status_code
    said = f'HTTP {status}, "{excerpt(error.message)}"' if error.message else f"HTTP {status}, without a word"
    if 300 <= status < 400:
        return _judge_redirect(error, url)
    if status == 407:
        advice = "Put the user and password that the proxy wants into its address, http://USER:PASSWORD@HOST:PORT."
        return Finding("answer", "fail", f"the proxy wants a login: {said}", advice)
    if isinstance(error.body, str) and _HTML.match(error.body):
        return Finding(
            "answer",
            "fail",
            f"a web page answers, and not the service: {said}",
            "Check host and path of the base URL. If they are right, a proxy, a firewall or a login page stands before "
            "the service, or the service is down: show this line to whoever runs it.",
        )
    elsewhere = status >= 500 or status in (404, 405)
    where: Step = "answer" if elsewhere and step != "chatroom" else step
    words, advice = _words_of(error, step)
    return Finding(where, "fail", f"{words}: {said}", advice)


def _judge_redirect(error: APIStatusError, url: str) -> Finding:
    location = error.headers.get("location", "")
    if not location:
        words = f"the server redirects, HTTP {error.status_code}, and does not say where to"
        return Finding("answer", "fail", words, "Check the base URL; it leads to something else than the service.")
    try:
        target = urljoin(f"{url}/v1/llms/chat/completions", location)
        path = urlsplit(target).path
    except ValueError:
        target = path = ""
    words = f"the server redirects, HTTP {error.status_code}, to {excerpt(location)}; a token is not sent after it"
    if _PATH.search(path):
        base = _PATH.sub("", target.partition("?")[0])
        if base == url:
            advice = "The base URL is right: ask whoever runs the server, or the proxy before it, why it redirects."
            return Finding("answer", "fail", words, advice)
        return Finding("answer", "fail", words, f"Set the base URL to {excerpt(base)}")
    return Finding(
        "answer", "fail", words, "Check the base URL: it leads to a page, perhaps a login, and not to the service."
    )


def _words_of(error: APIStatusError, step: Step) -> tuple[str, str]:
    """Say what an HTTP error of the service means, and what to do."""
    report = f" and its id {error.request_id}" if error.request_id else ""
    again = f"Try again in a minute; if it stays so, show this line{report} to whoever runs the server."
    match error.status_code:
        case 400 | 422:
            return _bad_request(error)
        case 401:
            return (
                "the token is not accepted",
                "Get a fresh access token (they live about an hour), and put it into CHATAPI_TOKEN; check that it is "
                "for this server.",
            )
        case 402:
            return "the credits are used up", "Add credits for this operator; nothing was charged or stored."
        case 403:
            what = "the chatroom" if step == "chatroom" else "the service"
            return (
                "the operator may not do this",
                f"Check that operator id and token belong together, and that this operator may use {what}.",
            )
        case 404 if step == "chatroom":
            return "there is no such chatroom", "Check the id after --room, and that it belongs to this operator."
        case 404 | 405:
            return (
                "there is no such service at this address",
                "Check host, port and path of the base URL: the library asks BASE_URL/v1/llms/chat/completions.",
            )
        case 429:
            return "too many requests", f"{_wait(error)} If it stays so, ask for a higher limit, or send less at once."
        case 503 if error.retry_after is not None:
            return "the server is not available now", _wait(error)
        case 502:
            return (
                "the provider behind the server failed, or a proxy does not reach the server",
                f"Try another --model. {again}",
            )
        case 503:
            return "the server is not available now", again
        case 504:
            return "a proxy gave up waiting for the server", again
        case status:
            return "the server failed" if status >= 500 else "the server refuses the request", again


def _bad_request(error: APIStatusError) -> tuple[str, str]:
    words = f"{error.code or ''} {error.message}"
    if _OPERATOR.search(words):
        return "the operator id is not accepted", "Check the operator id: CHATAPI_OPERATOR_ID, or --operator-id."
    if _MODEL.search(words):
        return (
            "the model is not accepted",
            "Give another --model, such as small, large or provider/model; none at all is the server's default.",
        )
    return "the server refuses the request", "Do as it says; if that helps nothing, show it to whoever runs the server."


def _wait(error: APIStatusError) -> str:
    if error.retry_after is None:
        return "Wait a minute, then try again."
    seconds = error.retry_after
    return f"Come back in {f'{seconds:.0f} s' if seconds < 120 else span(seconds)}, which is what the server asks for."


def _first_sentences(error: ChatAPIError) -> str:
    """Return what an error says without its address and advice, which stand elsewhere."""
    words = excerpt(str(error))
    return words.partition(". ")[0].rstrip(".")
