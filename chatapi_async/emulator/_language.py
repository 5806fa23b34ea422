"""Which language a text is in, and what kind of message it is, told by its script and its common words. Pure."""

from __future__ import annotations

import re

from ._phrases import CHINESE, ENGLISH, FRENCH, GERMAN, JAPANESE, KOREAN, RUSSIAN, SPANISH, Phrases

_BY_STOP_WORDS = (ENGLISH, GERMAN, FRENCH, SPANISH)
_BY_SCRIPT = (
    (re.compile(r"[\u3040-\u30ff]"), JAPANESE),
    (re.compile(r"[\uac00-\ud7a3]"), KOREAN),
    (re.compile(r"[\u4e00-\u9fff]"), CHINESE),
    (re.compile(r"[\u0400-\u04ff]"), RUSSIAN),
)
_MARKS = ((re.compile(r"[äöüß]"), GERMAN), (re.compile(r"[çèêëîïœùû]"), FRENCH), (re.compile(r"[ñ¿¡]"), SPANISH))
_WORDS = {phrases.code: frozenset(phrases.common_words.split()) for phrases in _BY_STOP_WORDS}
_GREETINGS = {
    phrases.code: frozenset(phrases.greetings.split())
    for phrases in (*_BY_STOP_WORDS, *(phrases for _, phrases in _BY_SCRIPT))
}

STOP_WORDS = frozenset[str]().union(*_WORDS.values(), RUSSIAN.common_words.split())
"""Words of all the languages that say nothing about a text's topic."""

_ASKS_TO_RECALL = re.compile(
    r"what (did|have|had) i (just )?(say|said|tell|told|ask|write)|do you remember|(can you|please) recall"
    r"|was (habe|hab|hatte) ich .{0,40}(gesagt|gefragt|geschrieben)|erinnerst du"
    r"|qu'ai-je (dit|demandé|écrit)|que j'ai (dit|demandé|écrit)|(te souviens|vous souvenez)"
    r"|qué (te |le )?(dije|he dicho|pregunté)|(te acuerdas|recuerdas)"
    r"|что я .{0,40}(говорил|сказал|спросил|спрашивал|писал)|помнишь|помните"
    r"|(何|なん).{0,6}(言|話|聞)|覚えて|我.{0,6}(说|說|问|問)(了|过|過)?(什么|什麼)|记得|記得|(뭐|무엇|뭘).{0,8}(말|했)|기억",
)


def language_of(text: str) -> Phrases:
    """Return the phrases of the language that ``text`` is written in; English where that cannot be told."""
    for script, phrases in _BY_SCRIPT:
        if script.search(text):
            return phrases
    lowered = text.lower()
    words = re.findall(r"\w+", lowered)
    scores = {
        phrases.code: sum(word in _WORDS[phrases.code] for word in words)
        + 2 * any(word in _GREETINGS[phrases.code] for word in words)
        for phrases in _BY_STOP_WORDS
    }
    for marks, phrases in _MARKS:
        scores[phrases.code] += 2 * len(marks.findall(lowered))
    return max(_BY_STOP_WORDS, key=lambda phrases: scores[phrases.code])


def is_greeting(text: str, phrases: Phrases) -> bool:
    """Whether ``text`` is nothing but a greeting in the language of ``phrases``."""
    words = re.findall(r"\w+", text.lower())
    return 0 < len(words) <= 3 and words[0] in _GREETINGS[phrases.code] and not text.rstrip().endswith(("?", "？"))


def asks_to_recall(text: str) -> bool:
    """Whether ``text`` asks what was said before, in any of the languages."""
    return _ASKS_TO_RECALL.search(text.lower()) is not None
