"""Sentences as they complete: where they end, what stays whole, and that pieces change nothing."""

from __future__ import annotations

import re
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatapi_async import ConfigurationError
from chatapi_async._sentences import SentenceSplitter

MARKDOWN = """# Title

Intro. Two things:

1. First item. It has more.
2.
   Second item
- [ ] to do
- **3. Bold** item

---
```python
x = 1. Y! z
# ```not the end

```
| a | b |
|---|---|
Done."""
UNITS = [
    "# Title",
    "Intro.",
    "Two things:",
    "1. First item.",
    "It has more.",
    "2. Second item",
    "- [ ] to do",
    "- **3. Bold** item",
    "---",
    "```python\nx = 1. Y! z\n# ```not the end\n\n```",
    "| a | b |",
    "|---|---|",
    "Done.",
]
CASES = [
    ("en", "Dr. Smith paid 3.14 dollars, e.g. for tea. Then he left.", ["Dr. Smith paid 3.14 dollars, e.g. for tea.",
                                                                         "Then he left."]),
    ("en", '"Really?" he asked. "Yes." "Go!" It is (late.) We left.', ['"Really?" he asked.', '"Yes."', '"Go!"',
                                                                       "It is (late.)", "We left."]),
    ("en", "**Bold.** See https://a.b/c.d?x=1! At 5 p.m. we eat.", ["**Bold.**", "See https://a.b/c.d?x=1!",
                                                                    "At 5 p.m. we eat."]),
    ("en", "Version 2.10.3 is out... It works?! Yes", ["Version 2.10.3 is out...", "It works?!", "Yes"]),
    ("en", "Hi! 😀 Great 👍🏽. Next 👨‍👩‍👧! Done", ["Hi! 😀", "Great 👍🏽.", "Next 👨‍👩‍👧!", "Done"]),
    ("en", "1. First. A) Second. (3) Third.", ["1. First.", "A) Second.", "(3) Third."]),
    ("en", "One line\r\nanother\r\n\r\nthird", ["One line", "another", "third"]),
    ("en", "-\n\n+\nboth", ["- + both"]),
    ("en", "2.\n```sh\nls. A\n```\nEnd", ["2. ```sh\nls. A\n```", "End"]),
    ("en", "- ~~~\n  a. B\n  ~~~\nEnd. So", ["- ~~~\n  a. B\n  ~~~", "End.", "So"]),
    ("en", "```js x. Y\ncode\n``` no\n````\nEnd", ["```js x. Y\ncode\n``` no\n````", "End"]),
    ("en", "```a``` is. That", ["```a``` is. That"]),
    ("en", "Hello. ```js\nis", ["Hello.", "```js", "is"]),
    ("en", "Hello. ```abc. Is", ["Hello.", "```abc. Is"]),
    ("en", "I have 12. That is all.", ["I have 12.", "That is all."]),
    ("en", "", []),
    ("en", " \n\n ", []),
    ("de", "Das kostet z. B. 3,50 €. Am 3. Oktober ist zu. „Ja?“ fragte er. „Nein.“ Gut.",
     ["Das kostet z. B. 3,50 €.", "Am 3. Oktober ist zu.", "„Ja?“ fragte er.", "„Nein.“", "Gut."]),
    ("de_AT", "Es war 2024. Danach usw. Ende.", ["Es war 2024.", "Danach usw. Ende."]),
    ("ja", "「こんにちは。」と言った。仙台は良い！？はい。（終わり。）",
     ["「こんにちは。」と言った。", "仙台は良い！？", "はい。", "（終わり。）"]),
    ("en", "言語が違う。それでも。", ["言語が違う。", "それでも。"]),
    ("zh-Hans", "他说：“你好。”然后走了。真的吗？“是的！”", ["他说：“你好。”", "然后走了。", "真的吗？", "“是的！”"]),
    ("hi", "नमस्ते। आप कैसे हैं? ठीक।", ["नमस्ते।", "आप कैसे हैं?", "ठीक।"]),
    ("ar", "مرحبا. كيف حالك؟ بخير!", ["مرحبا.", "كيف حالك؟", "بخير!"]),
    ("en", "Run `git add . && git commit`. Use `cd .. && make`! Or ``a ` b. C``. Fine.",
     ["Run `git add . && git commit`.", "Use `cd .. && make`!", "Or ``a ` b. C``.", "Fine."]),
    ("en", "A ` alone. Is it?\nNo. `b.` It", ["A ` alone. Is it?", "No. `b.`", "It"]),
    ("en", 'Tools, e.g. **pytest**, i.e. `x`, etc. (see Eq. (2), No. (3)). "Dr. *House*" and Mr. "T" agree. *So* do I.',
     ['Tools, e.g. **pytest**, i.e. `x`, etc. (see Eq. (2), No. (3)).', '"Dr. *House*" and Mr. "T" agree.',
      "*So* do I."]),
    ("en", "Ask Dr. Albert, Mr. Ian or Mrs. Olson. It is approx. 5 or approx. pi. Done", [
        "Ask Dr. Albert, Mr. Ian or Mrs. Olson.", "It is approx. 5 or approx. pi.", "Done"]),
    ("en", "It (e.g. John) and **Dr. Smith** can't. We (No. 5) can", [
        "It (e.g. John) and **Dr. Smith** can't.", "We (No. 5) can"]),
    ("en", "Plan B\u2028. So. End", ["Plan B\u2028. So.", "End"]),
    ("en", "Well . . . maybe. Wait. . . . Now", ["Well . . . maybe.", "Wait. . . .", "Now"]),
    ("en", "Great! 🎉\n**Yes! 👍🏽** You. 🚀 🚀. Next. 🎉And", [
        "Great! 🎉", "**Yes! 👍🏽**", "You. 🚀 🚀.", "Next. 🎉", "And"]),
    ("fr", "« Oui. » dit-il. « Non\u00a0!\u00a0» Puis. « A. B. » Fin", [
        "« Oui. » dit-il.", "« Non\u00a0!\u00a0»", "Puis.", "« A.", "B. »", "Fin"]),
    ("de", "Nur `«`. »Gut.« Dann. »Ja.« Ende", ["Nur `«`.", "»Gut.«", "Dann.", "»Ja.«", "Ende"]),
    ("ja", "「元気？」と聞いた。「はい！」って。「ね。」次", [
        "「元気？」と聞いた。", "「はい！」って。", "「ね。」", "次"]),
    ("en", MARKDOWN, UNITS),
]  # fmt: skip
PIECES = [*"aB .!?\n\r`~-1\"')“”。！」「」", "\u00a0", "\u2028", "\u0301", "\ud83d", "\ude00", "Dr. ", "e.g. ", "3.14",
          "。」", "```\n", "\n```py\n", "1. ", "\n- ", "仙台", "« ", " »", "🎉", "と", "हैं। ", "🇯🇵",
          " " * 9, "word " * 90]  # fmt: skip
ANY_TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=60)


def sentences_of(*pieces: str, language: str = "en") -> list[str]:
    splitter = SentenceSplitter(language)
    found = [sentence for piece in pieces for sentence in splitter.add(piece)]
    return [*found, rest] if (rest := splitter.rest()) else found


@pytest.mark.parametrize(("language", "text", "sentences"), CASES)
def test_real_texts_are_cut_where_a_reader_would(language: str, text: str, sentences: list[str]) -> None:
    assert sentences_of(text, language=language) == sentences
    assert sentences_of(*text, language=language) == sentences


@pytest.mark.parametrize(
    ("pieces", "given"),
    [
        (["One.", " ", "T"], [[], [], ["One."]]),
        (["3", ".", "14 is", ". ", "Pi"], [[], [], [], [], ["3.14 is."]]),
        (["Dr", ". ", "Smith"], [[], [], []]),
        (["e.g", ".", " this"], [[], [], []]),
        (["はい。", "」", "次"], [[], [], ["はい。」"]]),
        (["はい。", "」", "と"], [[], [], []]),
        (["Yes!", " ", "🎉", " ", "So"], [[], [], [], [], ["Yes! 🎉"]]),
        (["`a. ", "B`.", " C"], [[], [], ["`a. B`."]]),
        (["はい", "。", "次"], [[], [], ["はい。"]]),
        (["A line", "\n", "more"], [[], ["A line"], []]),
        (["One. Two. Three", ". F"], [["One.", "Two."], ["Three."]]),
        (["1", ".", " ", "First", "\n"], [[], [], [], [], ["1. First"]]),
        (["`", "``\na. B", "\n``", "`", "\n"], [[], [], [], [], ["```\na. B\n```"]]),
    ],
)
def test_a_sentence_is_given_as_soon_as_what_follows_shows_its_end(pieces: list[str], given: list[list[str]]) -> None:
    splitter = SentenceSplitter()

    assert [splitter.add(piece) for piece in pieces] == given


def test_the_rest_is_what_no_sentence_has_taken() -> None:
    splitter = SentenceSplitter()
    splitter.add("One. Two. \n 1.\n")

    assert splitter.rest() == splitter.rest() == "1."


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)

    with pytest.raises(ConfigurationError, match=re.escape("pip install 'chatapi-async[bots]'")):
        SentenceSplitter()


@pytest.mark.parametrize("piece", ["word ", "e.g. ", "3.", ".", "“", " ", "-\n", "。", "```\n```", "a\nb. ",
                                   "`. ", "` ", "« . »", "! 🎉", " 🎉"])  # fmt: skip
def test_text_without_an_end_costs_what_it_is_long(piece: str) -> None:
    splitter = SentenceSplitter()
    begun = time.process_time()
    for _ in range(10_000):
        splitter.add(piece)

    assert time.process_time() - begun < 10


@given(ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_nothing_but_white_space_is_lost(text: str) -> None:
    sentences = sentences_of(text)

    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() and sentence for sentence in sentences)


@given(ANY_TEXT, st.lists(st.integers(0, 100), max_size=8), st.sampled_from(["en", "de", "ja", "nonsense", ""]))
@settings(max_examples=200, deadline=None)
def test_how_a_text_is_cut_into_pieces_changes_nothing(text: str, cuts: list[int], language: str) -> None:
    whole = sentences_of(text, language=language)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]

    assert sentences_of(*(text[begin:end] for begin, end in pairwise(bounds)), language=language) == whole
    assert sentences_of(*text, language=language) == whole
