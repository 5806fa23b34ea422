"""What ``chatapi doctor`` makes of what was seen, without a server: odd values, failures of the network, verdicts."""

from __future__ import annotations

import json
import socket
import ssl
from base64 import urlsafe_b64encode
from errno import EACCES, EHOSTUNREACH, EPIPE

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import APIStatusError
from chatapi_async._doctor import Finding, Settings, needs_mending, verdict
from chatapi_async._doctor._answers import Heard, judge_first_token, judge_stream
from chatapi_async._doctor._network import (
    ConnectionFailure,
    Place,
    Secured,
    TLSFailure,
    judge_connection,
    judge_lookup,
    judge_tls,
)
from chatapi_async._doctor._oddities import expiry_of, oddity_of_token, span
from chatapi_async._doctor._probes import connect, look_up, tls_failure_in
from chatapi_async._doctor._refusals import judge_refusal
from chatapi_async._doctor._settings import judge_address, judge_credentials
from chatapi_async._failures import status_error, timed_out

NOW = 1_800_000_000.0
TOKEN = "s3cret-t0ken-of-the-test"
PLACE = Place("api.example.com", 443)


def jwt(payload: object) -> str:
    """A token that says what it is, as many access tokens do."""
    parts = [{"alg": "none"}, payload, "signature"]
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def settings(**environment: str) -> Settings:
    given = {"BASE_URL": "https://api.service.test", "OPERATOR_ID": "tn_01hj", "TOKEN": TOKEN} | environment
    return Settings.of({f"CHATAPI_{name}": value for name, value in given.items()})


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "mark", "words", "advice"),
    [
        ("https://api.service.test", "ok", "https://api.service.test, from CHATAPI_BASE_URL", ""),
        ("https://api.service.test/ai/", "ok", "https://api.service.test/ai, from", ""),
        ("http://localhost:8000", "ok", "http://localhost:8000", ""),
        ("http://api.service.test", "note", "plain http to another machine", "Use https://"),
        ("https://api.service.test/v1", "note", "ends with a path of the API", "before /v1"),
        ("https://api.service.test/v1/llms/", "note", "ends with a path of the API", "before /v1"),
        ("https://api.service.test/v1/llms/chat/completions", "note", "ends with a path", "before /v1"),
        ("https://api.example.com", "note", "an example's address", "own address"),
        ("https://your-server.test", "note", "looks like a placeholder", "the real value"),
        ("api.service.test", "fail", "has no https://", "Write https:// before it"),
        ("api.service.test:8000", "fail", "has no https://", "Write https:// before it"),
        ('"https://api.service.test"', "fail", "has quotes around it", "Take the quotes off CHATAPI_BASE_URL"),
        ("https://api.service.test\n", "fail", "has a line break", "Take the line break out"),
        (" https://api.service.test", "fail", "has space before or after", "Take the space out"),
        ("https://api service.test", "fail", "has space inside", "Take the space or line break out"),
        ("${API_URL}", "fail", "nothing has filled in", "is not replaced"),
        ("CHATAPI_BASE_URL=https://api.service.test", "fail", "own name in it", "behind the equals sign"),
        ("https://user:pa55w0rd@api.service.test", "fail", "cannot be used", "should look like https://"),
        ("https://[::1", "fail", "cannot be used", "should look like https://"),
        ("http:api.service.test", "fail", "cannot be used", "should look like https://"),
    ],
)
def test_an_odd_address_is_said_to_be_odd(url: str, mark: str, words: str, advice: str) -> None:
    found = judge_address(settings(BASE_URL=url))
    assert found.mark == mark
    assert words in found.words
    assert advice in found.advice
    assert bool(found.advice) == (mark != "ok")
    assert "pa55w0rd" not in str(found)


def test_plain_http_is_no_suspect_of_a_later_failure_and_an_api_path_is() -> None:
    assert not judge_address(settings(BASE_URL="http://api.service.test")).suspect
    assert judge_address(settings(BASE_URL="http://api.service.test/v1")).suspect


@pytest.mark.parametrize(
    ("token", "mark", "words", "advice"),
    [
        (TOKEN, "ok", "are set", ""),
        (f"Bearer {TOKEN}", "fail", "begins with the word Bearer", "the token alone"),
        (f'"Bearer {TOKEN}"', "note", "begins with the word Bearer", "the token alone"),
        (f"Authorization: Bearer {TOKEN}", "note", "header's name", "the token alone"),
        (f"{TOKEN}\n", "fail", "line break", "Take the line break out of CHATAPI_TOKEN"),
        (f"{TOKEN} ", "fail", "has space before or after", "Take the space out"),
        (f"'{TOKEN}'", "note", "quotes", "Take the quotes off"),
        (f"{TOKEN} {TOKEN}", "note", "space inside", "Take the space"),
        ("tn_01hj", "note", "looks like an operator id", "swapped"),
        ("…", "fail", "placeholder", "real value"),
        ("your-api-token", "note", "placeholder", "real value"),
        ("<token>", "note", "placeholder", "real value"),
        ("xxxxx", "note", "placeholder", "real value"),
        ("changeme", "note", "placeholder", "real value"),
        ("None", "note", "placeholder", "real value"),
        ("$TOKEN", "note", "nothing has filled in", "is not replaced"),
        ("{{ secrets.token }}", "note", "nothing has filled in", "is not replaced"),
        (f"export CHATAPI_TOKEN={TOKEN}", "note", "own name", "behind the equals sign"),
        (f"t\u00f6ken-{TOKEN}", "fail", "cannot be sent", "as the service shows it"),
        (jwt({"exp": NOW - 7200}), "note", "expired 2 hours ago", "fresh access token"),
        (jwt({"exp": NOW + 60}), "ok", "are set", ""),
    ],
)
def test_an_odd_token_is_said_to_be_odd_and_never_shown(token: str, mark: str, words: str, advice: str) -> None:
    given = settings(TOKEN=token)
    found = judge_credentials(given, now=NOW)
    assert found.mark == mark
    assert words in found.words
    assert advice in found.advice
    assert found.suspect == (mark == "note")
    if len(token) > 12:
        shown = f"{found} {given} {given.described()}"
        assert token.strip() not in shown
        assert TOKEN not in shown


def test_a_token_that_is_the_operator_id_is_shown_as_neither() -> None:
    given = settings(TOKEN=TOKEN, OPERATOR_ID=TOKEN)
    found = judge_credentials(given, now=NOW)
    assert "the same as the operator id" in found.words
    assert TOKEN not in f"{found} {given.described()}"


def test_swapped_operator_and_token_are_noticed_and_neither_is_shown() -> None:
    token = jwt({"exp": NOW + 3600})
    given = settings(TOKEN="tn_01hj", OPERATOR_ID=token)
    assert "swapped" in judge_credentials(given, now=NOW).advice
    assert token not in str(given.described())
    opaque = settings(TOKEN="tn_01hj", OPERATOR_ID=TOKEN)
    assert TOKEN not in str(opaque.described())
    assert "operator id looks like an access token" in judge_credentials(settings(OPERATOR_ID=token), now=NOW).words


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"TOKEN": ""}, "no token: CHATAPI_TOKEN is not set"),
        ({"OPERATOR_ID": ""}, "no operator id: CHATAPI_OPERATOR_ID is not set"),
        ({"TOKEN": "", "OPERATOR_ID": ""}, "CHATAPI_OPERATOR_ID and CHATAPI_TOKEN are not set"),
    ],
)
def test_what_is_missing_is_named(missing: dict[str, str], words: str) -> None:
    found = judge_credentials(settings(**missing), now=NOW)
    assert found.mark == "fail"
    assert words in found.words
    assert ".env" in found.advice


def test_a_variable_with_a_similar_name_is_pointed_at_by_its_name_alone() -> None:
    environment = {"CHATAPI_KEY": TOKEN, "CHAT_API_URL": "x", "chatapi_token": TOKEN, "OTHER_TOKEN": "y", "PATH": "z"}
    found = judge_credentials(Settings.of(environment), now=NOW)
    assert "set, but not read: CHATAPI_KEY, CHAT_API_URL, chatapi_token" in found.words
    assert TOKEN not in str(found)
    assert "PATH" not in found.words


@pytest.mark.parametrize(
    ("option", "value", "mark", "words"),
    [
        ("room", "..", "fail", "no chatroom id"),
        ("room", "'ch_1'", "note", "the chatroom has quotes"),
        ("model", "<model>", "note", "the model looks like a placeholder"),
        ("operator_id", "tn_…", "fail", "the operator id looks like a placeholder"),
    ],
)
def test_options_are_looked_at_too(option: str, value: str, mark: str, words: str) -> None:
    environment = {"CHATAPI_OPERATOR_ID": "tn_1", "CHATAPI_TOKEN": TOKEN}
    found = judge_credentials(Settings.of(environment, **{option: value}), now=NOW)
    assert found.mark == mark
    assert words in found.words
    assert found.advice


def test_an_option_goes_before_the_environment_and_an_empty_one_does_not() -> None:
    environment = {"CHATAPI_BASE_URL": "https://a.test"}
    assert Settings.of(environment, base_url="https://b.test").base_url.origin == "--base-url"
    assert Settings.of(environment, base_url="").base_url.origin == "CHATAPI_BASE_URL"
    assert Settings.of({}).base_url.text == "http://localhost"


def test_a_token_in_the_other_values_is_not_shown() -> None:
    environment = {"CHATAPI_BASE_URL": f"https://a.test/{TOKEN}", "CHATAPI_OPERATOR_ID": "tn_1", "CHATAPI_TOKEN": TOKEN}
    given = Settings.of(environment, room=TOKEN, model=TOKEN)
    assert TOKEN not in f"{judge_address(given)} {judge_credentials(given, now=NOW)} {given.described()}"


@given(st.text(max_size=80))
def test_any_text_as_a_token_is_judged_without_being_shown(text: str) -> None:
    found = judge_credentials(settings(TOKEN=text), now=NOW)
    assert found.mark in ("ok", "note", "fail")
    if len(text.strip()) > 12:
        assert text.strip() not in str(found)


@given(st.text(max_size=80))
def test_any_text_as_an_address_is_judged(text: str) -> None:
    found = judge_address(settings(BASE_URL=text))
    assert bool(found.advice) == (found.mark != "ok")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists) | st.binary())
def test_any_token_with_two_dots_has_an_expiry_or_none(payload: object) -> None:
    token = f"a.{payload.hex()}.c" if isinstance(payload, bytes) else jwt({"exp": payload})
    expiry = expiry_of(token)
    assert expiry is None or isinstance(expiry, float)
    oddity_of_token(token, "CHATAPI_TOKEN", operator_id="tn_1", now=NOW)


@pytest.mark.parametrize(
    "token", ["a.b", "a..c", f"a.{'A' * 20_000}.c", jwt([1]), jwt({"exp": True}), jwt({"exp": "1"})]
)
def test_what_is_no_token_with_an_expiry_has_none(token: str) -> None:
    assert expiry_of(token) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "less than a minute"), (60, "1 minute"), (7199, "1 hour"), (7200, "2 hours"), (200_000, "2 days")],
)
def test_a_span_is_in_a_persons_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_addresses_are_shortened() -> None:
    found = judge_lookup(PLACE, tuple(f"10.0.0.{number}" for number in range(9)), 0.1)
    assert found.words == "api.example.com is 10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3 and 5 more"


@pytest.mark.parametrize(
    ("errors", "words", "advice"),
    [
        ([ConnectionRefusedError(111, "Connection refused")], "refuses", "correct the port"),
        ([OSError(EHOSTUNREACH, "No route to host")], "no way leads", "online"),
        ([OSError(EHOSTUNREACH, "No route"), ConnectionRefusedError(111, "refused")], "refuses", "correct the port"),
        ([TimeoutError(110, "Connection timed out")], "nobody answers", "firewall"),
        ([PermissionError(EACCES, "Permission denied")], "does not let programs connect", "sandbox"),
        ([OSError(EPIPE, "Broken pipe")], "Broken pipe", "Check the network"),
    ],
)
async def test_why_no_connection_is_made(
    errors: list[OSError], words: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect_tcp(host: str, port: int) -> None:
        cause = errors[0] if len(errors) == 1 else ExceptionGroup("several", errors)
        raise OSError("All connection attempts failed") from cause

    monkeypatch.setattr(anyio, "connect_tcp", connect_tcp)
    outcome = await connect(PLACE, 5)
    assert isinstance(outcome, ConnectionFailure)
    found = judge_connection(PLACE, outcome, 0.1)
    assert words in found.words
    assert advice in found.advice


async def test_an_error_that_came_of_no_other_is_the_cause_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect_tcp(host: str, port: int) -> None:
        raise OSError(EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(anyio, "connect_tcp", connect_tcp)
    assert await connect(PLACE, 5) == ConnectionFailure("unreachable", "No route to host")


async def test_a_look_up_that_fails_in_another_way_is_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = judge_lookup(PLACE, await look_up(PLACE, 5), 0.1)
    assert "too many open files" in found.words


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "localhost"])
def test_this_machine_is_said_to_be_this_machine(host: str) -> None:
    found = judge_connection(Place(host, 8000), ConnectionFailure("refused"), 0.1)
    assert f"{host} is this machine itself" in found.advice
    assert ("[::1]:8000" in found.words) == (host == "::1")


def test_another_fault_of_a_certificate_is_shown_in_openssls_words() -> None:
    error = ssl.SSLCertVerificationError("no")
    error.verify_code, error.verify_message = 23, "certificate revoked"
    failure = tls_failure_in(error)
    assert failure == TLSFailure("bad certificate", "certificate revoked")
    assert "certificate revoked" in judge_tls(PLACE, failure, None, now=NOW).words


def test_a_handshake_that_ends_in_the_middle_is_a_hang_up() -> None:
    error = ssl.SSLEOFError(8, "EOF occurred")
    wrapped = OSError("could not connect")
    wrapped.__cause__ = error
    assert tls_failure_in(wrapped) == tls_failure_in(error)
    assert (tls_failure_in(error) or TLSFailure("other")).kind == "hung up"
    assert tls_failure_in(OSError("could not connect")) is None


def test_a_certificate_without_an_end_is_no_worry() -> None:
    found = judge_tls(PLACE, Secured("TLSv1.3", None), 0.1, now=NOW)
    assert (found.mark, found.words) == ("ok", "TLSv1.3, the certificate is trusted")


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("seconds", "mark"), [(0.3, "ok"), (4.9, "ok"), (5.1, "note")])
def test_a_slow_first_token_is_a_note(seconds: float, mark: str) -> None:
    found = judge_first_token(Heard(arrivals=[seconds], first_text=seconds))
    assert found.mark == mark
    assert f"{seconds:.2f} s" in found.words


@pytest.mark.parametrize(
    ("arrivals", "suspected"),
    [
        ([1.0, 1.001, 1.002, 1.003, 1.004], True),
        ([1.0, 1.01, 1.02, 1.03, 1.04], False),  # a fast model
        ([0.01, 0.0101, 0.0102, 0.0103, 0.0104], False),  # a server without a model
        ([1.0, 1.001, 1.002, 1.003], False),  # too few to tell
        ([0.5, 1.0, 1.5, 2.0, 2.5], False),
    ],
)
def test_buffering_is_suspected_for_good_reason_alone(arrivals: list[float], suspected: bool) -> None:
    found = judge_stream(Heard(media_type="text/event-stream", arrivals=arrivals, finish_reason="stop", done=True))
    assert (found.mark == "note") == suspected
    assert ("Probably" in found.advice) == suspected


def test_a_redirect_to_what_no_address_can_be_is_a_redirect_all_the_same() -> None:
    error = status_error(
        where="POST https://a.test",
        status_code=302,
        headers={"location": "http://ex\u2100mple.test/"},
        body=b"",
        now=NOW,
        request_id=None,
    )
    assert isinstance(error, APIStatusError)
    found = judge_refusal(error, url="https://a.test", speaks_tls=False)
    assert "redirects" in found.words
    assert found.advice


def test_a_connection_that_is_not_made_for_the_request_in_time() -> None:
    error = timed_out("connect", 5.0, "POST https://a.test", sent=False)
    found = judge_refusal(error, url="https://a.test", speaks_tls=False)
    assert "no connection for the request within 5 s" in found.words


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

OK = Finding("answer", "ok", "x")
NOTE = Finding("first token", "note", "x", "Wait.")
SUSPECT = Finding("base URL", "note", "x", "Mend it.", suspect=True)
BAD_TOKEN = Finding("credentials", "fail", "x", "Set it.")
REFUSED = Finding("request", "fail", "x", "Add credits.")
LEFT_OUT = Finding("stream", "not tried", "x")


@pytest.mark.parametrize(
    ("findings", "where", "words"),
    [
        ([OK], "nothing", "All is well."),
        ([OK, NOTE], "nothing", "It works. What is marked note could be better."),
        ([OK, SUSPECT], "nothing", "It works. What is marked note could be better."),
        ([OK, LEFT_OUT], "nothing", "Interrupted: nothing wrong was found so far."),
        ([OK, REFUSED, LEFT_OUT], "server", "Do first: Add credits."),
        ([NOTE, REFUSED], "server", "Do first: Add credits."),
        ([SUSPECT, REFUSED], "server", "Do first: Mend it. It may well be why this failed: request."),
        ([SUSPECT, BAD_TOKEN, REFUSED], "configuration", "Do first: Set it."),
    ],
)
def test_the_verdict_says_what_to_do_first(findings: list[Finding], where: str, words: str) -> None:
    assert verdict(findings) == words
    assert needs_mending(findings) == where
