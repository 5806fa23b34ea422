"""No token is in a recording, wherever the server repeats it, and however what it sends is cut."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatapi_async import ChatAPIError, ServerStreamError, StreamTruncatedError
from chatapi_async._secrets import PieceConcealment, Secrets, holds_secret
from chatapi_async.recording import read_recording
from tests.raw_server import CLOSE, DONE, AnyStep, RawServer, body, chunk, client_of, event, head, stream

TOKEN = 'sk-q"u/\\x+4zTs%k=='
LONG, SHORT = "sk-aasksk-aask-aa-0123", "s3cr3t"


def concealed(tokens: set[str], pieces: list[bytes]) -> list[list[bytes]]:
    """What becomes certain with each piece, and at the end."""
    concealment = PieceConcealment(tokens)
    return [*(concealment.feed(piece) for piece in pieces), concealment.close()]


def joined(released: list[list[bytes]]) -> bytes:
    return b"".join(b"".join(pieces) for pieces in released)


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    parts = [LONG, SHORT, LONG[:7], LONG[-5:], SHORT[:3], "s", "-", " ", "x", "仙"]
    whole = "".join(draw(st.lists(st.sampled_from(parts), max_size=8))).encode()
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return whole, [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@given(cut())
@example((b"sk-aasksk-aask-aa-0123", [b"sk-aask", b"sk-aask-aa-0123"]))
@example((b"s3cr3ts", [b"s3cr3t", b"s"]))
def test_however_a_body_is_cut_the_same_is_taken_out_of_it(body: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = body

    released = concealed({LONG, SHORT}, pieces)

    assert joined(released) == joined(concealed({LONG, SHORT}, [whole]))
    assert sum(map(len, released)) == len(pieces)
    assert LONG.encode() not in joined(released)
    assert not re.search(rb"(?<![0-9A-Za-z\]])s3cr3t(?![0-9A-Za-z\[])", joined(released))
    assert joined(concealed(set(), pieces)) == whole


@given(cut())
def test_what_holds_no_token_is_not_touched(body: tuple[bytes, list[bytes]]) -> None:
    _, pieces = body

    assert joined(concealed({"another-token-altogether"}, pieces)) == b"".join(pieces)


def test_a_piece_is_held_back_only_while_it_may_end_in_a_token() -> None:
    assert concealed({LONG}, [b"data: sk\n\n", b"data: sk-a", b"no", b"sk-aa", b"sksk-aask", b"-aa-0123.", b"x"]) == [
        [b"data: sk\n\n"],
        [],
        [b"data: sk-a", b"no"],
        [],
        [],
        [b"[token]", b"", b"."],
        [b"x"],
        [],
    ]


def test_the_beginning_of_a_token_with_which_a_body_breaks_off_is_taken_out() -> None:
    assert joined(concealed({LONG}, [b"see sk-", b"aask"])) == b"see [token]"
    assert joined(concealed({LONG}, [b"see sk-"])) == b"see sk-"
    assert joined(concealed({SHORT}, [b"see s3c", b"r3t"])) == b"see [token]"


def test_a_short_token_is_taken_out_as_a_word_alone() -> None:
    assert joined(concealed({SHORT}, [b"s3cr3t s3cr3ts xs3cr3t", b" x", b"s3cr3t (s3cr3", b"t)"])) == (
        b"[token] s3cr3ts xs3cr3t xs3cr3t ([token])"
    )


def test_of_two_tokens_the_one_that_goes_on_is_taken_out_whole() -> None:
    longer = f"{LONG}-and-more"
    assert joined(concealed({LONG, longer}, [f"<{LONG}".encode(), b"-and-more>"])) == b"<[token]>"
    assert joined(concealed({LONG, longer}, [f"<{LONG}".encode(), b"-and>"])) == b"<[token]-and>"


@pytest.mark.parametrize(
    "form",
    [
        "a%2bb%2fc%26d%3ce0123456789%3d%3d",
        "a%2Bb/c%26d%3Ce0123456789%3D%3D",
        "a+b/c\\u0026d\\u003ce0123456789==",
        "a\\u002Bb/c\\u0026d\\u003Ce0123456789==",
    ],
    ids=["percent, in lower case", "percent, but for slashes", "JSON of Go", "JSON of .NET"],
)
def test_a_token_is_taken_out_in_the_forms_of_other_languages(form: str) -> None:
    secrets = Secrets()
    secrets.add("Bearer a+b/c&d<e0123456789==")
    recording = secrets.for_recording()
    assert recording.without({"x": [f"<{form}>"]}) == {"x": ["<[token]>"]}
    pieces = recording.pieces()
    assert b"".join([*pieces.feed(f"<{form[:5]}".encode()), *pieces.feed(f"{form[5:]}>".encode())]) == b"<[token]>"


@pytest.mark.parametrize(
    "text", ["The key:\ns3cr3t", "\ts3cr3t", "?key=%20s3cr3t", "トークンはs3cr3tです", "。s3cr3t。"]
)
def test_a_short_token_is_a_word_after_an_escape_and_in_a_language_without_spaces(text: str) -> None:
    secrets = Secrets()
    secrets.add("Bearer s3cr3t")
    recording = secrets.for_recording()
    assert recording.without(text) == text.replace("s3cr3t", "[token]")
    for whole in (json.dumps(text).encode(), json.dumps(text, ensure_ascii=False).encode()):
        for size in range(len(whole)):
            released = joined(concealed({"s3cr3t"}, [whole[:size], whole[size:]]))
            assert released == whole.replace(b"s3cr3t", b"[token]")


def test_the_name_of_the_scheme_is_no_secret() -> None:
    secrets = Secrets()
    secrets.add(f"Bearer {LONG}")
    recording = secrets.for_recording()
    assert recording.without("There was a Bear…") == "There was a Bear…"
    pieces = recording.pieces()
    assert [*pieces.feed(b"There was a Bear"), *pieces.close()] == [b"There was a Bear"]
    secrets.add(f"Bearer\t{SHORT}")
    secrets.add("Digest response=0123456789, opaque=abcdefghijklmnop")
    assert secrets.for_recording().without(f"{SHORT} response=0123456789, opaque=abcdefghijklmnop") == "[token] [token]"
    secrets.add("no-scheme-0123456789")
    assert secrets.for_recording().without("no-scheme-0123456789") == "[token]"


@pytest.mark.parametrize("token", ["accept", "trace", "x-0123456789abcdef"])
async def test_a_token_that_is_in_the_name_of_a_header_leaves_a_name(
    token: str, server: RawServer, tmp_path: Path
) -> None:
    server.answer(*stream(chunk("Hi", "stop"), DONE, **{f"{token}-x": "1"}))
    async with client_of(server, token=token, record=tmp_path) as client:
        await client.chat_completion("Hi", extra_headers={f"x-{token}": "1"}).until_done()
    (file,) = files_in(tmp_path)
    assert read_recording(file).completion().text == "Hi"
    assert token not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_token_that_the_server_repeats_is_in_no_recording(size: int, server: RawServer, tmp_path: Path) -> None:
    forms = (TOKEN, quote(TOKEN, safe=""), json.dumps(TOKEN)[1:-1], json.dumps(TOKEN)[1:-1].replace("/", "\\/"))
    said = b"".join((*(f": {form}\n\n".encode() for form in forms), chunk(f"<{TOKEN}>"),
                     event({"message": f"no: {TOKEN}"}, "error"), DONE))  # fmt: skip
    pieces = [said[start : start + size] for start in range(0, len(said), size)]
    server.answer(*stream(*pieces, **{"x-echo": TOKEN, "x-api-key": "other", "set-cookie": "sid=1; HttpOnly"}))
    async with client_of(server, token=TOKEN, record=tmp_path) as client:
        headers = {"x-api-key": "k3y", "cookie": "a=b", "proxy-authorization": "Basic x", "x-trace": TOKEN}
        stream_ = client.chat_completion(f"Is {TOKEN} mine?", user="u", extra_headers=headers)
        with pytest.raises(ServerStreamError):
            await stream_.until_done()
    (file,) = files_in(tmp_path)
    text = file.read_text(encoding="utf-8")
    for form in forms:
        assert form not in text
        assert json.dumps(form)[1:-1] not in text
    recording = read_recording(file)
    assert recording.body.decode().startswith(
        ": [token]\n\n" * 4 + chunk("<[token]>").decode() + event({"message": "no: [token]"}, "error").decode()
    )
    sent = recording.request.headers
    assert {name for name, value in sent.items() if value == "[removed]"} == {
        *("authorization", "cookie", "proxy-authorization", "x-api-key"),
    }
    assert (sent["x-trace"], sent["x-operator-id"]) == ("[token]", "tn_1")
    assert recording.request.body["messages"][0]["content"] == "Is [token] mine?"
    assert (recording.headers["x-echo"], recording.headers["x-api-key"]) == ("[token]", "[removed]")
    assert recording.headers["set-cookie"] == "[removed]"
    assert recording.end is not None
    assert recording.end.outcome is not None
    assert recording.end.outcome.message == "the server sent an error in the stream: no: [token]"


async def test_the_beginning_of_a_token_at_the_end_of_a_body_is_in_no_recording(
    server: RawServer, tmp_path: Path
) -> None:
    server.answer(*stream(b": see sk-q", CLOSE))
    server.answer(*stream(b": see sk", CLOSE))
    async with client_of(server, token=TOKEN, record=tmp_path) as client:
        for _ in range(2):
            with pytest.raises(StreamTruncatedError):
                await client.chat_completion("Hi").until_done()
    assert [read_recording(file).body for file in files_in(tmp_path)] == [b": see [token]", b": see sk"]


@pytest.mark.parametrize("rest", [(), (CLOSE,)])
async def test_the_beginning_of_a_token_is_not_quoted_in_the_error_either(
    rest: tuple[AnyStep, ...], server: RawServer, tmp_path: Path
) -> None:
    server.answer(*stream(b": sk-aasksk-aa", *rest))
    server.answer(*body("no: sk-aasksk-aa", 500))
    async with client_of(server, token=LONG, record=tmp_path, retries=0) as client:
        for _ in range(2):
            with pytest.raises(ChatAPIError) as caught:
                await client.chat_completion("Hi").until_done()
            assert "[token]" in str(caught.value)
            assert "sk-aask" not in str(caught.value)
    assert not [file for file in files_in(tmp_path) if b"sk-aask" in file.read_bytes()]


async def test_a_token_in_the_url_or_in_what_is_no_http_is_in_no_recording(server: RawServer, tmp_path: Path) -> None:
    token = "sk-0123456789abcdef"
    server.answer(
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}), token.encode() + b"\r\n"
    )
    server.answer(b"HTTP/9 " + token.encode() + b"\r\n\r\n")
    async with client_of(server, token=token, record=tmp_path) as client:
        for _ in range(2):
            with pytest.raises(ChatAPIError):
                await client.chat_completion_on_chatroom(token, "Hi").until_done()
    broken, none = files_in(tmp_path)
    assert token not in broken.read_text(encoding="utf-8") + none.read_text(encoding="utf-8")
    assert read_recording(broken).request.url.endswith("/v1/llms/chatrooms/[token]/chat/completions")
    for file in (broken, none):
        end = read_recording(file).end
        assert end is not None
        assert "[token]" in f"{end.detail} {end.outcome}"


async def test_a_token_that_was_replaced_is_not_recorded_either(server: RawServer, tmp_path: Path) -> None:
    tokens = ["the-first-token", "the-second-token"]
    server.answer(*body("not the-first-token", 401))
    server.answer(*stream(b": the-first-token the-second-token\n\n", chunk("Hi", "stop"), DONE))
    async with client_of(server, token=lambda: tokens.pop(0), record=tmp_path) as client:
        await client.chat_completion("Hi").until_done()
    assert [b"first-token" in file.read_bytes() for file in files_in(tmp_path)] == [False, False]
    assert [b"second-token" in file.read_bytes() for file in files_in(tmp_path)] == [False, False]


async def test_a_token_of_three_characters_is_a_word_like_others(server: RawServer, tmp_path: Path) -> None:
    server.answer(*stream(chunk("any", "stop"), DONE))
    async with client_of(server, token="any", record=tmp_path) as client:
        await client.chat_completion("Hi").until_done()
    (file,) = files_in(tmp_path)
    assert read_recording(file).completion().text == "any"
    assert "Bearer any" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("authorization", True),
        ("Proxy-Authorization", True),
        ("set-cookie", True),
        ("x-amz-security-token", True),
        ("x_api_key", True),
        ("x-goog-apikey", True),
        ("x-ratelimit-remaining-tokens", False),
        ("x-operator-id", False),
        ("author", False),
        ("x-keynote", False),
    ],
)
def test_a_header_that_holds_a_secret_is_told_by_the_words_of_its_name(name: str, secret: bool) -> None:
    assert holds_secret(name) is secret
