"""The web chat in a real Chromium: what a person sees and does, and what the service notices of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from chatapi_async.emulator import Emulator
from tests.browser.conftest import ChatPage, Chromium
from tests.raw_server import DONE, HOLD, RESET, RawServer, body, chunk, stream, wait_for
from tests.running_example import EmulatedExample, RunningExample, no_stream_is_open, running_example

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_text_grows_while_it_arrives(chromium: Chromium, scripted: RunningExample, server: RawServer) -> None:
    gates = [server.gate() for _ in range(3)]
    one, two, three = gates
    server.answer(*stream(chunk("Red"), one, chunk(" green"), two, chunk(" blue"), three, chunk(finish="stop"), DONE))
    async with chromium.open(scripted) as chat:
        await chat.ask("Which colours?")
        for text, gate in zip(["Red", "Red green", "Red green blue"], gates, strict=True):
            await expect(chat.answer).to_have_text(text)
            await expect(chat.page.locator("[aria-busy=true]")).to_have_count(1)
            gate.open()
        await expect(chat.send).to_be_visible()
        await expect(chat.page.locator("[aria-busy=true]")).to_have_count(0)
        await expect(chat.answer).to_have_text("Red green blue")


async def test_stop_ends_the_answer_upstream_and_keeps_the_text(chromium: Chromium, emulated: EmulatedExample) -> None:
    async with emulated.by(Emulator(tokens_per_second=40)) as emulator, chromium.open(emulated.example) as chat:
        await chat.ask("Why is the sky blue?")
        await expect(chat.answer).to_contain_text("sky")
        assert emulator.open_streams == 1
        await chat.stop.click()
        await no_stream_is_open(emulator)
        await expect(chat.note).to_have_text("You stopped this answer.")
        kept = await chat.answer.inner_text()
        assert "sky" in kept
        await expect(chat.question).to_be_focused()

        await chat.ask("Hello")
        await expect(chat.send).to_be_visible()
        await expect(chat.answer).to_contain_text("sky")  # the model mentions what was asked before
        said = emulator.requests[-1].json()["messages"]
        assert said == [
            {"role": "user", "content": "Why is the sky blue?"},
            {"role": "assistant", "content": kept},
            {"role": "user", "content": "Hello"},
        ]


async def test_stop_ends_the_answer_before_its_first_token(chromium: Chromium, emulated: EmulatedExample) -> None:
    async with emulated.by(Emulator(first_token_delay=60)) as emulator, chromium.open(emulated.example) as chat:
        for question in ("Are you there?", "And now?"):
            await chat.ask(question)
            await wait_for(lambda: emulator.open_streams == 1, "the stream to open")
            await (chat.stop.click() if question == "And now?" else chat.question.press("Escape"))
            await no_stream_is_open(emulator)
            await expect(chat.note).to_have_text("You stopped this answer.")
            await expect(chat.send).to_be_visible()
        assert emulator.requests[-1].json()["messages"] == [{"role": "user", "content": "And now?"}]


async def test_a_closed_tab_ends_the_answer_upstream(chromium: Chromium, emulated: EmulatedExample) -> None:
    async with emulated.by(Emulator(tokens_per_second=40)) as emulator, chromium.open(emulated.example) as chat:
        await chat.ask("Why is the sky blue?")
        await expect(chat.answer).to_contain_text("sky")
        await chat.page.close()
        await no_stream_is_open(emulator)


async def test_two_tabs_at_once_do_not_mix(chromium: Chromium, emulated: EmulatedExample) -> None:
    async with (
        emulated.by(Emulator(tokens_per_second=40)) as emulator,
        chromium.open(emulated.example) as first,
        chromium.open(emulated.example) as second,
    ):
        await first.ask("Tell me about rivers")
        await second.ask("Tell me about mountains")
        await wait_for(lambda: emulator.open_streams == 2, "both answers")
        for chat, topic, other in ((first, "rivers", "mountains"), (second, "mountains", "rivers")):
            await expect(chat.send).to_be_visible()
            await expect(chat.answer).to_contain_text(topic)
            await expect(chat.answer).not_to_contain_text(other)


async def test_a_service_that_dies_keeps_the_text_and_can_be_tried_again(
    chromium: Chromium, scripted: RunningExample, server: RawServer
) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("The first"), gate, RESET))
    server.answer(*stream(chunk("The whole answer", "stop"), DONE))
    async with chromium.open(scripted) as chat:
        await chat.ask("Please?")
        await expect(chat.answer).to_have_text("The first")
        gate.open()
        await expect(chat.failure.locator("p")).to_have_text(
            "The connection broke before the answer was complete. What came so far is kept."
        )
        await expect(chat.answer).to_have_text("The first")
        await chat.again.click()
        await expect(chat.answer).to_have_text("The whole answer")
        await expect(chat.failure).to_be_hidden()
        await expect(chat.question).to_be_focused()
        assert [request.json["messages"] for request in server.requests] == [
            [{"role": "user", "content": "Please?"}]
        ] * 2


async def test_a_web_server_that_dies_keeps_the_text(chromium: Chromium, server: RawServer) -> None:
    server.answer(*stream(chunk("The first"), HOLD))
    async with running_example("web_chat", server.url) as example, chromium.open(example) as chat:
        await chat.ask("Please?")
        await expect(chat.answer).to_have_text("The first")
        example.process.kill()
        await expect(chat.failure).to_contain_text("broke before the answer was complete. What came so far is kept.")
        await expect(chat.answer).to_have_text("The first")
        await chat.again.click()
        await expect(chat.failure).to_contain_text("The chat cannot be reached. Check your connection.")
        await expect(chat.answer).to_have_text("The first")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "The assistant cannot answer now."),
        (429, "The assistant has too much to do at the moment. Wait a little before you try again."),
        (500, "The assistant cannot answer now."),
    ],
)
async def test_a_refusal_is_a_sentence_for_a_person(
    chromium: Chromium, scripted: RunningExample, server: RawServer, status: int, sentence: str
) -> None:
    for _ in range(3 if status == 429 else 1):  # that one is tried again by the library itself
        server.answer(*body('{"message": "t0ken of tn_1"}', status, retry_after="0"))
    server.answer(*stream(chunk("Yes", "stop"), DONE))
    async with chromium.open(scripted) as chat:
        await chat.ask("Please?")
        await expect(chat.failure.locator("p")).to_have_text(sentence)
        assert await chat.page.locator("main :is(p, button):visible").all_inner_texts() == [
            "Please?",
            sentence,
            "Try again",
        ]
        for secret in ("t0ken", "tn_1", server.url, "Error"):
            assert secret not in await chat.page.content()
        await chat.again.click()
        await expect(chat.answer).to_have_text("Yes")


async def test_what_looks_like_html_is_shown_as_it_was_written(
    chromium: Chromium, scripted: RunningExample, server: RawServer
) -> None:
    html = "<img src=x onerror='document.title=1'><script>document.title=2</script> &amp; <b>bold</b>"
    pieces = [html[start : start + 7] for start in range(0, len(html), 7)]
    server.answer(*stream(*map(chunk, pieces), chunk(finish="stop"), DONE))
    async with chromium.open(scripted) as chat:
        await chat.ask(html)
        await expect(chat.answer).to_have_text(html)
        await expect(chat.page.locator(".question")).to_have_text(html)
        await expect(chat.page.locator("main").locator("img, script, b")).to_have_count(0)
        assert await chat.page.title() == "Chat"


async def test_fenced_code_becomes_a_block_however_it_was_split(
    chromium: Chromium, scripted: RunningExample, server: RawServer
) -> None:
    text = "Look:\n\n```python\nif a:\n\n    b(`c`)\n```\n\nSo `d` is ``e``\n``"
    server.answer(*stream(*map(chunk, text), chunk(finish="stop"), DONE))
    async with chromium.open(scripted) as chat:
        await chat.ask("Code, please")
        await expect(chat.send).to_be_visible()
        blocks = await chat.answer.locator("> *").evaluate_all("all => all.map(one => [one.tagName, one.textContent])")
        assert blocks == [["P", "Look:"], ["PRE", "if a:\n\n    b(`c`)"], ["P", "So `d` is ``e``\n``"]]


async def test_an_answer_that_reached_its_limit_says_so(
    chromium: Chromium, scripted: RunningExample, server: RawServer
) -> None:
    server.answer(*stream(chunk("Once upon", "length"), DONE))
    async with chromium.open(scripted) as chat:
        await chat.ask("A story")
        await expect(chat.note).to_have_text("The answer reached its length limit, and ends here.")


async def test_the_end_stays_in_view_unless_the_reader_scrolls_up(
    chromium: Chromium, scripted: RunningExample, server: RawServer
) -> None:
    first, second, third = (server.gate() for _ in range(3))
    lines = [chunk(f"Line {number}\n") for number in range(60)]
    server.answer(*stream(*lines, first, *lines, second, *lines, third, chunk("End", "stop"), DONE))
    position = "main => [main.scrollTop, main.scrollHeight - main.scrollTop - main.clientHeight]"
    async with chromium.open(scripted) as chat:
        log = chat.page.locator("main")
        await chat.ask("Count")
        await expect(chat.answer).to_contain_text("Line 59")
        top, left = await log.evaluate(position)
        assert (top > 500, left < 2) == (True, True)
        first.open()
        await wait_for_lines(chat, 120)
        assert (await log.evaluate(position))[1] < 2

        await log.evaluate("main => { main.scrollTop = 100; }")
        latest = chat.page.get_by_role("button", name="Latest")
        await expect(latest).to_be_visible()
        second.open()
        await wait_for_lines(chat, 180)
        assert (await log.evaluate(position))[0] == 100

        await latest.click()
        await expect(latest).to_be_hidden()
        third.open()
        await expect(chat.answer).to_contain_text("End")
        assert (await log.evaluate(position))[1] < 2


async def test_enter_sends_and_shift_enter_makes_a_line(
    chromium: Chromium, scripted: RunningExample, server: RawServer
) -> None:
    server.answer(*stream(chunk("Yes", "stop"), DONE))
    async with chromium.open(scripted) as chat:
        await expect(chat.question).to_be_focused()
        await expect(chat.send).to_be_disabled()
        await chat.question.press_sequentially("  a")
        await expect(chat.send).to_be_enabled()
        # An input method's own Enter chooses a word.
        composing = {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
        await chat.question.dispatch_event("keydown", composing)
        await chat.question.press("Shift+Enter")
        await chat.question.press_sequentially("b")
        await chat.question.press("Enter")
        await expect(chat.answer).to_have_text("Yes")
        await expect(chat.question).to_be_focused()
        await expect(chat.question).to_have_value("")
        await expect(chat.send).to_be_disabled()
        assert [request.json["messages"] for request in server.requests] == [[{"role": "user", "content": "a\nb"}]]


async def test_its_reader_of_events_takes_any_bytes_in_any_pieces(
    chromium: Chromium, emulated: EmulatedExample
) -> None:
    wire = (
        ": hello\r\n\r\nevent: error\rdata: 仙\r\ndata:  😀\r\n\r\n"  # a comment, and all three ends of lines
        "id: 1\n\ndata\n\n:\n\ndata: a: b\n\n"  # no data, empty data
        "data: lost"  # half an event
    )
    script = """async (bytes) => {
        const { serverSentEvents } = await import("/chat.js");
        const results = new Set();
        for (let first = 0; first <= bytes.length; first++) {
            for (const second of [first + 1, first + 2, first + 3]) {
                const cuts = [0, first, second, bytes.length];
                const pieces = cuts.slice(1).map((end, at) => Uint8Array.from(bytes.slice(cuts[at], end)));
                const events = [];
                const body = new ReadableStream({
                    start(controller) {
                        for (const piece of pieces) if (piece.length) controller.enqueue(piece);
                        controller.close();
                    }
                });
                for await (const event of serverSentEvents(body)) events.push(event);
                results.add(JSON.stringify(events));
            }
        }
        return [...results].map(JSON.parse);
    }"""
    async with chromium.open(emulated.example) as chat:
        results = await chat.page.evaluate(script, list(wire.encode()))
    assert results == [[{"name": "error", "data": "仙\n 😀"}, {"name": "", "data": ""}, {"name": "", "data": "a: b"}]]


SKY = (
    "Sunlight holds every colour. Air scatters its short waves far more than its long ones, so blue reaches your eyes "
    "from every side of the sky."
)
CODE = """\
Scattering goes with the inverse fourth power of the wavelength:

```python
blue, red = 450, 700  # nanometres

ratio = (red / blue) ** 4
print(f"blue is scattered {ratio:.1f} times as much")
```

So it is almost six times as much, which is why"""

CONTRAST = """element => {
    const luminance = (color) => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d");
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const [ink, paper] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(luminance);
    return [paper, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
}"""


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("web_chat", {"viewport": {"width": 900, "height": 660}, "device_scale_factor": 2}),
        ("web_chat_dark", {"viewport": {"width": 900, "height": 660}, "color_scheme": "dark"}),
        ("web_chat_phone", {"viewport": {"width": 360, "height": 720}, "device_scale_factor": 2, "has_touch": True}),
    ],
)
async def test_it_can_be_read_in_light_and_dark_and_on_a_phone(
    chromium: Chromium,
    scripted: RunningExample,
    server: RawServer,
    pictures: Path,
    name: str,
    options: dict[str, object],
) -> None:
    gate = server.gate()
    server.answer(*stream(chunk(SKY, "stop"), DONE))
    server.answer(*stream(chunk(CODE), gate, RESET))
    server.answer(*stream(HOLD))
    async with chromium.open(scripted, **options) as chat:

        async def look(suffix: str) -> None:
            await chat.page.screenshot(path=pictures / f"{name}{suffix}.png", animations="disabled")
            assert await chat.page.evaluate(
                "[document.documentElement, document.querySelector('main')].every("
                "(box) => box.scrollWidth <= box.clientWidth)"
            )
            for text in await chat.page.locator("main :is(p, pre, h2, button):visible").all():
                paper, contrast = await text.evaluate(CONTRAST)
                assert contrast >= 4.5, await text.inner_text()
                assert (paper < 0.1) == (options.get("color_scheme") == "dark")

        await look("_welcome")
        await chat.ask("Why is the sky blue?")
        await expect(chat.send).to_be_visible()
        await chat.ask("How much more is blue scattered than red? Show me in Python.")
        await expect(chat.answer).to_contain_text("which is why")
        await look("")
        gate.open()
        await expect(chat.failure).to_be_visible()
        await look("_failed")
        await chat.ask("x" * 300)
        await expect(chat.again).to_be_hidden()  # only the last question can be asked again
        await chat.stop.click()
        await expect(chat.note).to_have_text("You stopped this answer.")
        await look("_stopped")


async def wait_for_lines(chat: ChatPage, count: int) -> None:
    await expect(chat.answer).to_contain_text(re.compile(rf"(Line \d+\s*){{{count}}}"))
