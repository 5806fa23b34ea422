"""The picture of what pacing is for: one answer by three bots, each run against the stand-in of Discord."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from html import escape
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

import pytest

from tests import test_discord_bot
from tests.browser.conftest import Chromium
from tests.platforms.discord import Discord
from tests.running_example import EmulatedExample
from tests.test_discord_bot import QUESTION, ExampleBot, Run, answer_to, bot_of, hasty_bot, naive_bot, run_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WINDOW = 0.5
STRETCH = 5 / WINDOW
"""How many seconds at Discord one second of a run is."""

WIDTH, HEIGHT = 548, 68
"""Of the area in which the share of the text is drawn, in pixels."""
ABOVE, BELOW = 20, 9
"""Of that area: room for the words on the end of the stream, and for what parts it from the requests."""
SIDE = 6
"""Of the square that stands for a request, with the gap to the next."""


async def test_the_picture_shows_that_a_paced_answer_keeps_up_and_is_never_refused(
    chromium: Chromium, emulated: EmulatedExample, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platforms: list[Discord] = []

    @asynccontextmanager
    async def watched(*arguments: Any, **options: Any) -> AsyncIterator[Discord]:
        async with bot_of(*arguments, **options) as platform:
            platforms.append(platform)
            yield platform

    await run_of(ExampleBot, told=True, window=WINDOW / 10)  # what only a first run takes is not ten times as fast
    monkeypatch.setattr(test_discord_bot, "bot_of", watched)
    paced = await run_of(ExampleBot, told=True, window=WINDOW)
    naive = await run_of(naive_bot, told=True, window=WINDOW)
    hasty = await run_of(hasty_bot, told=False, window=WINDOW)

    texts = [call.content for call in platforms[0].calls if call.status == 200]
    assert texts[-1] == await answer_to(QUESTION)
    assert paced.refused == 0
    assert seconds(paced.lag) < 3
    assert naive.refused == 0
    assert seconds(naive.lag) > 30
    assert hasty.refused > 10

    page = tmp_path / "bots.html"
    page.write_text(drawn(paced, naive, hasty, texts), "utf-8")
    view = {"viewport": {"width": 900, "height": 300}, "device_scale_factor": 2}
    async with chromium.open(emulated.example, **view) as chat:
        await chat.page.goto(page.as_uri())
        await chat.page.screenshot(path=pictures / "bots.png", full_page=True)
        assert await chat.page.evaluate("document.documentElement.scrollWidth") == 900


def seconds(time: float) -> float:
    """What a time of a run is at Discord."""
    return time * STRETCH


def drawn(paced: Run, naive: Run, hasty: Run, texts: list[str]) -> str:
    """The page of the picture; of the texts that the paced bot showed, three."""
    scale = WIDTH / seconds(max(run.stream_ended + run.lag for run in (paced, naive, hasty)) + WINDOW / 10)
    chosen = [0, len(texts) // 2, len(texts) - 1]
    times = [seconds(time) for time, _, status, _ in paced.calls if status == 200]
    lanes = [
        lane("With <code>paced</code>", paced, scale, len(texts[-1]), chosen),
        lane("An edit for each chunk", naive, scale, len(texts[-1])),
        lane("The same, not awaited", hasty, scale, len(texts[-1])),
    ]
    return Template(Path(__file__).with_name("bots.html").read_text("utf-8")).substitute(
        question=f'<span class="mention">@bot</span> {escape(QUESTION)}',
        moments="".join(moment(number, times[index], texts[index]) for number, index in enumerate(chosen, 1)),
        lanes="".join(lanes),
        axis=axis(scale),
    )


def moment(number: int, time: float, text: str) -> str:
    """The message as it is in the channel at that time."""
    edited = ' <span class="edited">(edited)</span>' if number > 1 else ""
    return f'<div><h2><i>{number}</i> {time:.1f} s</h2><p class="bubble">{escape(text)}{edited}</p></div>'


def lane(title: str, run: Run, scale: float, whole: int, chosen: Sequence[int] = ()) -> str:
    """What a bot did, in words and drawn; the states of its message that are ``chosen`` are numbered."""
    shown = [(seconds(time) * scale, length / whole) for time, _, status, length in run.calls if status == 200]
    backwards = sum(later < earlier for (_, earlier), (_, later) in pairwise(shown))
    refused = f'<b class="refused">{run.refused} refused</b>' if run.refused else "none refused"
    jumps = f"The text jumps back {backwards} times; its" if backwards else "The"
    points = [(round(x, 1), round((1 - share) * HEIGHT, 1)) for x, share in shown]
    steps = f"M{points[0][0]} {HEIGHT}" + "".join(f"H{x}V{y}" for x, y in points) + f"H{WIDTH}"
    numbers = "".join(
        f'<circle class="moment" cx="{x}" cy="{y}" r="7.5"/><text class="number" x="{x}" y="{y + 3.6}">{number}</text>'
        for number, (x, y) in enumerate((points[index] for index in chosen), 1)
    )
    squares, depth = requests(run, scale)
    height = ABOVE + HEIGHT + BELOW + depth
    return f"""
<div class="lane">
  <h2>{title}</h2>
  <p><b>{len(run.calls)} requests</b>, {refused}. {jumps} last change comes <b>{duration(run.lag)}</b> after the end of
    the stream.</p>
</div>
<svg width="{WIDTH}" height="{height}" viewBox="0 -{ABOVE} {WIDTH} {height}"{' class="best"' if chosen else ""}>
  <path class="grid" d="{"".join(f"M{time * scale:.1f} 0V{height - ABOVE}" for time in ticks(scale))}"/>
  <path class="area" d="{steps}V{HEIGHT}Z"/>
  <path class="grid" d="M0 {HEIGHT}H{WIDTH}"/>
  <path class="shown" d="{steps}"/>
  <text x="{WIDTH + 7}" y="{points[-1][1] + 4}">{shown[-1][1]:.0%}</text>
  {end(run, scale)}
  {numbers}
  {squares}
</svg>"""


def end(run: Run, scale: float) -> str:
    """Where the stream ended, and how much later the text last changed."""
    ended = seconds(run.stream_ended) * scale
    last = ended + seconds(run.lag) * scale
    span, x, anchor = f"M{ended:.1f} -12H{last:.1f}m0 -4v8", (ended + last) / 2, "middle"
    if last - ended < 100:
        span, x, anchor = "", last + 10, "start"
    return f"""
  <path class="ended" d="M{ended:.1f} {1 - ABOVE}V{HEIGHT}"/>
  <path class="lag" d="{span}"/>
  <text class="told" x="{x:.1f}" y="-8" text-anchor="{anchor}">{duration(run.lag)} later</text>"""


def requests(run: Run, scale: float) -> tuple[str, int]:
    """A square for each request, below one another where there are several at a time; and how deep that goes."""
    columns: list[tuple[float, list[int]]] = []
    for time, _, status, _ in run.calls:
        x = seconds(time) * scale
        if not columns or x >= columns[-1][0] + SIDE:
            columns.append((x, []))
        columns[-1][1].append(status)
    squares = [
        f'<rect class="{"refused" if status == 429 else "accepted"}" x="{x - SIDE / 2:.1f}"'
        f' y="{HEIGHT + BELOW + row * SIDE}" width="{SIDE - 1}" height="{SIDE - 1}" rx="1"/>'
        for x, statuses in columns
        for row, status in enumerate(sorted(statuses))
    ]
    return "".join(squares), max(len(statuses) for _, statuses in columns) * SIDE


def axis(scale: float) -> str:
    names = "".join(
        f'<text x="{time * scale:.1f}" y="10" text-anchor="middle">{time}{" s" if time else ""}</text>'
        for time in ticks(scale)
    )
    return f'<svg width="{WIDTH}" height="14">{names}</svg>'


def ticks(scale: float) -> range:
    return range(0, int(WIDTH / scale) + 1, 10)


def duration(time: float) -> str:
    return f"{seconds(time):.1f} s" if seconds(time) < 3 else f"{seconds(time):.0f} s"
