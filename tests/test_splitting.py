"""Splitting at a platform's limit: what fits, what is kept, and that pieces change nothing."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatapi_async import ConfigurationError
from chatapi_async._splitting import (
    DISCORD_LIMIT,
    LINE_LIMIT,
    SLACK_LIMIT,
    TELEGRAM_LIMIT,
    MessageSplitter,
    split_message,
    utf16_units,
)

FAMILY, FLAG, ACCENT, THUMB = "👨‍👩‍👧‍👦", "🇯🇵", "e\u0301", "👍🏽"
ENGLISH = (
    "Sendai is the largest city of the Tohoku region. It lies about 350 km north of Tokyo, e.g. 90 minutes by rail.\n\n"
    "## What to see\n\n1. **Zuihoden**, the mausoleum of Date Masamune.\n2. The castle site: https://example.com/?a=1\n"
    "   - open every day\n   - free\n\n| Month | °C |\n|---|---|\n| May | 15.4 |\n| June | 19.1 |\n\nEnjoy your visit!"
)
GERMAN = "Das kostet ca. 3,50 €. „Wirklich?“, fragte sie.\nJa – am 3. Oktober z. B. ist das Museum geschlossen."
JAPANESE = "仙台市は、宮城県の中部に位置する。「杜の都」と呼ばれ、人口は約百万人です！牛タンが有名（おいしい）。"
CHINESE = "他说：“你好，世界。”然后走了；真的吗？是的！我们明天再来，《三体》很好看。"
HINDI = "नमस्ते। आप कैसे हैं? मैं ठीक हूँ। क्षत्रिय और ज्ञान।"
ARABIC = "مرحبا بكم. كيف حالك؟ أنا بخير، شكرًا لك."
EMOJI = f"{FAMILY}{FLAG}{THUMB}{ACCENT}" * 4 + f" {FAMILY} ok {FLAG}{FLAG}"
CODE = (
    "Here is the program:\n\n```python title=x\ndef first():\n    return 1\n\n\ndef second():\n    return [\n"
    "        2,\n    ]\n```\n\nAnd in a list:\n\n1. Run\n   ```sh\n   npm install\n   npm start\n   ```\n\n"
    '~~~~\n```\n"no"\n~~~\n~~~~\nDone.'
)
TEXTS = [ENGLISH, GERMAN, JAPANESE, CHINESE, HINDI, ARABIC, EMOJI, CODE]
PIECES = [*"ab .,!?\n\r\t`~-1«“”\"'(){}。、「」！A", "\u0301", "\u200d", "\u00a0", "\u0600", "\ud83d", "\ude00", "```",
          "~~~", "```py\n", "\n```\n", "\n\n", FAMILY, FLAG, ACCENT, THUMB, "क्षि", "각", "word ", "仙台", "    ",
          "1. "]  # fmt: skip
ANY_TEXT = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=60) | st.sampled_from(TEXTS)
MEASURES: dict[str, Callable[[str], int]] = {
    "code points": len,
    "UTF-16": utf16_units,
    "UTF-8": lambda text: len(text.encode("utf-8", "surrogatepass")),
    "clusters": lambda text: len(regex.findall(r"\X", text)),
}
measures = st.sampled_from(list(MEASURES.values()))


def where(text: str, parts: list[str], position: int = 0) -> list[tuple[int, int]] | None:
    """Where in the text each part begins and ends; None unless only white space and fence lines come and go."""
    if not parts:
        return None if text[position:].strip() else []
    part = parts[0]
    closing = re.compile(r"\n?(`*|~*)" if len(parts) == 1 else r"(\n(`{3,}|~{3,}))?")
    begins = range(position, len(text) - len(text[position:].lstrip()) + 1)
    for body in [part, part.partition("\n")[2]] if position and re.match("```|~~~", part) else [part]:
        for length in range(len(body), max(0, len(body) - 99), -1):
            for begin in begins:
                if closing.fullmatch(body, length) and text.startswith(body[:length], begin):
                    spans = where(text, parts[1:], begin + length)
                    if spans is not None:
                        return [(begin, begin + length), *spans]
    return None


def split_in_pieces(text: str, limit: int, cuts: list[int], measure: Callable[[str], int] = len) -> list[str]:
    splitter = MessageSplitter(limit, measure=measure)
    shown: list[str] = []
    for begin, end in pairwise([0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]):
        splitter.add(text[begin:end])
        parts = splitter.parts
        assert parts[: len(shown[:-1])] == shown[:-1], "a closed part has changed"
        assert all(measure(part) <= limit for part in parts)
        shown = parts
    return splitter.parts


@pytest.mark.parametrize(
    ("text", "limit", "parts"),
    [
        ("One two.\n\nThree four.\nFive", 25, ["One two.", "Three four.\nFive"]),
        ("One two.\nThree four. Five", 20, ["One two.", "Three four. Five"]),
        ("One two. Three four five", 18, ["One two.", "Three four five"]),
        ("One two three four", 13, ["One two three", "four"]),
        ("A\n\none two three four", 15, ["A\n\none two", "three four"]),
        ("Hi antidisestablishment", 20, ["Hi", "antidisestablishment"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("see e.g. the rest", 12, ["see e.g. the", "rest"]),
        ("Apples:\n1. Boskoop", 11, ["Apples:", "1. Boskoop"]),
        ("vraiment bien ?", 14, ["vraiment", "bien ?"]),
        ("One two.   \n\n  Three", 9, ["One two.", "Three"]),
        ("one two   ", 7, ["one two"]),
        (" " * 9 + "one two", 5, ["one", "two"]),
        ("今日は。明日は。", 5, ["今日は。", "明日は。"]),
        ("「今日は。」明日は", 8, ["「今日は。」", "明日は"]),
        ("今日、明日あ", 5, ["今日、", "明日あ"]),
        ("あいうえお。", 5, ["あいうえ", "お。"]),
        ("あいう「えお", 4, ["あいう", "「えお"]),
        ("他说“你好。”我走", 7, ["他说“你好。”", "我走"]),
        ("真的吗？是的！", 4, ["真的吗？", "是的！"]),
        ("नमस्ते। आप कैसे हैं?", 14, ["नमस्ते।", "आप कैसे हैं?"]),
        ("مرحبا. كيف حالك؟", 11, ["مرحبا.", "كيف حالك؟"]),
        ("| a | b |\n|---|---|\n| 1 | 2 |", 22, ["| a | b |\n|---|---|", "| 1 | 2 |"]),
        ("see https://example.com/a?b=c", 27, ["see", "https://example.com/a?b=c"]),
        (FAMILY * 2, 10, [FAMILY, FAMILY]),
        (FLAG * 3, 3, [FLAG, FLAG, FLAG]),
        (ACCENT * 3, 3, [ACCENT, ACCENT, ACCENT]),
        ("a\ud83d\ude00b", 2, ["a", "\ud83d\ude00", "b"]),
        ("e" + "\u0301" * 5, 4, ["e\u0301\u0301\u0301", "\u0301\u0301"]),
        ("a\r\nb", 2, ["a", "b"]),
        ("ab \u0301cd", 3, ["ab", " \u0301c", "d"]),
        ("1. Antidisestablish", 10, ["1. Antidis", "establish"]),
        ("今日は。)明日は", 5, ["今日は。)", "明日は"]),
        ("a\u00a0b c", 4, ["a\u00a0b", "c"]),
    ],
)
def test_a_part_ends_at_the_best_boundary_that_fits(text: str, limit: int, parts: list[str]) -> None:
    assert split_message(text, limit) == parts


@pytest.mark.parametrize(
    ("text", "limit", "parts"),
    [
        ("```py\none = 1\n  two = 2\n```\nend", 24, ["```py\none = 1\n```", "```py\n  two = 2\n```\nend"]),
        ("~~~~ a b\n~~~\none\n~~~~", 26, ["~~~~ a b\n~~~\none\n~~~~"]),
        ("~~~~ a b\n~~~\none two x y\n~~~~", 28, ["~~~~ a b\n~~~\none two x\n~~~~", "~~~~ a b\ny\n~~~~"]),
        ("Text that is long.\n```\ncode\n```", 26, ["Text that is long.", "```\ncode\n```"]),
        ("Ab:\n```\none\ntwo two\nx\n```", 24, ["Ab:\n```\none\ntwo two\n```", "```\nx\n```"]),
        ("- ```\n  one\n  ```\n- next one", 18, ["- ```\n  one\n  ```", "- next one"]),
        ("```\none\n\n\n  two\n```\n", 16, ["```\none\n```", "```\n  two\n```\n"]),
        ("a ```b c d``` e f g h i j", 18, ["a ```b c d``` e f", "g h i j"]),
        ("```\nabcdefghijklmnop\n```", 16, ["```\nabcdefgh\n```", "```\nijklmnop\n```"]),
        ("```\none two\n```", 9, ["```\none", "two\n```"]),
        ("```\none two\n     ```", 16, ["```\none\n```", "```\ntwo\n     ```"]),
        (
            "Words before it all, many.\n```\none\ntwo\nthree\n```",
            40,
            ["Words before it all, many.", "```\none\ntwo\nthree\n```"],
        ),
        (
            "Intro one.\n\nAb\n```\none\ntwo two\nthree\nfour\n```",
            36,
            ["Intro one.\n\nAb\n```\none\ntwo two\n```", "```\nthree\nfour\n```"],
        ),
        ("```\none\n\ntwo\nthree\nfour\n```", 22, ["```\none\n\ntwo\nthree\n```", "```\nfour\n```"]),
        ("```\nab. CD EF GH\n```", 16, ["```\nab. CD\n```", "```\nEF GH\n```"]),
        ("```\n``\nabcdefgh\n```", 16, ["```\n``\nabcde\n```", "```\nfgh\n```"]),
        ("a b c d e f g ```h i j k l", 16, ["a b c d e f", "g ```h i j k l"]),
        ("```py\nunfinished", 30, ["```py\nunfinished\n```"]),
        ("```py\nunfinished\n``", 30, ["```py\nunfinished\n```"]),
        ("```py\r\none\r\ntwo two two\r\n```", 22, ["```py\r\none\n```", "```py\ntwo two two\r\n```"]),
        ("```js`x\nno code here", 16, ["```js`x", "no code here"]),
        ("Ab.\n```py\n    abcdefghijklmnop\n```", 26, ["Ab.\n```py\n    abcdefgh\n```", "```py\nijklmnop\n```"]),
        ("Ab.\n```\n            cde\n```", 22, ["Ab.", "```\n            cd\n```", "```\ne\n```"]),
        ("Abcdefgh.\n```\n    ijklm nopq\n```", 28, ["Abcdefgh.\n```\n    ijklm\n```", "```\nnopq\n```"]),
        (
            "```\nab\n    cdefghijklmnopqrstuvwxyz\n```",
            30,
            ["```\nab\n```", "```\n    cdefghijklmnopqrst\n```", "```\nuvwxyz\n```"],
        ),
    ],
)
def test_a_code_fence_is_closed_and_opened_again(text: str, limit: int, parts: list[str]) -> None:
    assert split_message(text, limit) == parts


def test_a_fence_without_room_for_one_character_is_cut_like_plain_text() -> None:
    assert split_message("```\n😀\n```", 48, measure=lambda text: len(text) + 40 * text.count("😀")) == [
        "```",
        "😀\n```",
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n \t" * 20])
def test_there_is_no_part_without_text(text: str) -> None:
    assert split_message(text, 7) == []


@pytest.mark.parametrize("text", [*TEXTS, "  indented\n", "\n\nlate "])
def test_what_fits_stays_as_it_is(text: str) -> None:
    assert split_message(text, len(text)) == [text]


@pytest.mark.parametrize(
    ("limit", "measure", "fits"),
    [
        (DISCORD_LIMIT, len, "😀" * 2000),
        (TELEGRAM_LIMIT, utf16_units, "😀" * 2048),
        (SLACK_LIMIT, utf16_units, "😀" * 20_000),
        (LINE_LIMIT, utf16_units, "😀" * 2500),
        (8000, MEASURES["UTF-8"], "😀" * 2000),
    ],
)
def test_each_limit_counts_in_its_own_unit(limit: int, measure: Callable[[str], int], fits: str) -> None:
    assert split_message(fits, limit, measure=measure) == [fits]
    assert split_message(fits + "😀", limit, measure=measure) == [fits, "😀"]


@pytest.mark.parametrize(("text", "units"), [("", 0), ("aé仙", 3), ("😀", 2), ("\ud83d", 1), (FAMILY, 11)])
def test_utf16_units_are_those_of_javascript(text: str, units: int) -> None:
    assert utf16_units(text) == units


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("limit", [1, 2, 7, 16, 30, 60, 150])
def test_real_texts_are_kept_whole_at_any_limit(text: str, limit: int) -> None:
    parts = split_message(text, limit)

    assert where(text, parts) is not None
    assert all(len(part) <= limit for part in parts)


@pytest.mark.parametrize("text", [JAPANESE * 3, CHINESE * 3])
@pytest.mark.parametrize("limit", [8, 20, 33, 100])
def test_no_part_begins_with_closing_punctuation(text: str, limit: int) -> None:
    assert not [part for part in split_message(text, limit) if part[0] in "。、！？，；：」”》）"]


def test_parts_of_prose_are_well_filled() -> None:
    parts = split_message(" ".join([ENGLISH] * 20), DISCORD_LIMIT)

    assert min(map(len, parts[:-1])) > DISCORD_LIMIT // 4


def test_each_part_of_code_is_a_block_of_its_own() -> None:
    code = "```py\n" + "".join(f"    line_{number} = [{number}]\n" for number in range(300)) + "```"
    parts = split_message(code, 500)

    assert all(part.startswith("```py\n    line_") and part.endswith("]\n```") for part in parts)
    assert "\n".join(part[6:-4] for part in parts) == code[6:-4]


def test_the_open_part_is_shown_with_its_fence_closed() -> None:
    splitter = MessageSplitter(100)
    shown: list[list[str]] = []
    for piece in ("Code:\n``", "`py\nx = 1", "\n``", "`\nDone"):
        splitter.add(piece)
        shown.append(splitter.parts)

    code = "Code:\n```py\nx = 1\n```"
    assert shown == [["Code:\n``"], [code], [code], [code + "\nDone"]]


@pytest.mark.parametrize("limit", [0, -1, 2000.0, "2000", None])
def test_a_limit_that_is_no_whole_number_above_zero_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"at least 1, such as DISCORD_LIMIT; not {limit!r}"):
        MessageSplitter(limit)
    assert issubclass(ConfigurationError, ValueError)


@pytest.mark.parametrize("size", [21, -1, None, "5", 0.5, float("inf")])
def test_a_measure_that_gives_no_size_for_an_empty_text_is_refused(size: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"must give 0 for an empty text, not {size!r}"):
        MessageSplitter(20, measure=lambda _: size)


def test_a_limit_too_small_for_one_character_is_refused_and_what_came_before_is_kept() -> None:
    splitter = MessageSplitter(1, measure=utf16_units)
    splitter.add("ab😀")

    for _ in range(2):
        with pytest.raises(ConfigurationError, match="pass a larger one"):
            _ = splitter.parts


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from chatapi_async import _splitting

    monkeypatch.setitem(sys.modules, "regex", None)
    _splitting._cluster_pattern.cache_clear()

    with pytest.raises(ConfigurationError, match=re.escape("pip install 'chatapi-async[bots]'")):
        MessageSplitter(10)


def test_many_small_pieces_cost_what_they_are_long() -> None:
    seen = 0

    def measure(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return len(text)

    splitter = MessageSplitter(100, measure=measure)
    for _ in range(20_000):
        splitter.add("word ")
    parts = splitter.parts

    assert " ".join(parts) == ("word " * 20_000)
    assert seen < 100_000 * 20


@pytest.mark.parametrize(("text", "count"), [("🇯" * 100_000, 3), ("\n" * 1_000_000, 0)], ids=["flags", "newlines"])
def test_a_long_run_costs_what_it_is_long(text: str, count: int) -> None:
    begun = time.process_time()

    assert len(split_message(text, 49_999)) == count
    assert time.process_time() - begun < 4


@given(ANY_TEXT, st.integers(1, 60), measures)
@example("```\n" * 9, 16, len)
@settings(max_examples=200, deadline=None)
def test_every_part_fits_and_nothing_else_is_lost(text: str, limit: int, measure: Callable[[str], int]) -> None:
    try:
        parts = split_message(text, limit, measure=measure)
    except ConfigurationError:
        assert max(map(measure, text)) > limit
        return
    assert where(text, parts) is not None
    assert all(part.strip() and measure(part) <= limit for part in parts)


@given(ANY_TEXT, st.integers(1, 60), st.lists(st.integers(0, 60), max_size=6), measures)
@settings(max_examples=200, deadline=None)
def test_how_a_text_is_cut_into_pieces_changes_nothing(
    text: str, limit: int, cuts: list[int], measure: Callable[[str], int]
) -> None:
    limit = max(limit, *map(measure, text), 1) if text else limit

    assert split_in_pieces(text, limit, cuts, measure) == split_message(text, limit, measure=measure)


@given(ANY_TEXT, st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_no_cut_is_inside_a_grapheme_cluster_that_fits(text: str, limit: int) -> None:
    clusters = regex.findall(r"[\ud800-\udbff][\udc00-\udfff]|\X", text)
    limit = max(limit, 16, *map(len, clusters)) if clusters else limit
    bounds = {0}
    for cluster in clusters:
        bounds.add(max(bounds) + len(cluster))

    spans = where(text, split_message(text, limit))
    assert spans is not None
    for (_, end), (begin, _) in pairwise(spans):
        assert bounds & set(range(end, begin + 1))
