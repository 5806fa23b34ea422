"""Reply files: what they may say, every way in which they can be wrong, and what the client gets of them."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import (
    AsyncChatClient,
    BadRequestError,
    Message,
    RateLimitError,
    StreamTruncatedError,
    Usage,
)
from chatapi_async.emulator import (
    FAULTS,
    ChosenFault,
    Emulator,
    ReplyFileError,
    RunningEmulator,
    ScriptedAnswer,
    replies_schema,
    serve,
)
from chatapi_async.emulator._replies import Asked, RuleBook, UnmatchedError
from chatapi_async.emulator._reply_document import Condition, Replies, ReplyToolCall, Rule
from chatapi_async.emulator._reply_file import ReplyFile
from chatapi_async.emulator._reply_reading import read_replies
from chatapi_async.testing import ChatServer, tool_call
from tests.raw_server import QUICK

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "Hello! I am the built-in model"


def read(toml: str) -> Replies:
    return read_replies(toml.encode(), "replies.toml")


def problems(content: str | bytes, name: str = "replies.toml") -> tuple[str, ...]:
    with pytest.raises(ReplyFileError) as caught:
        read_replies(content.encode() if isinstance(content, str) else content, name)
    assert caught.value.name == name
    return caught.value.problems


def rule(fields: str) -> str:
    return f"[[rules]]\n{fields}\n"


# ── what is wrong with a file ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "a.toml", "is empty: it needs at least one rule"),
        (b" \r\n", "a.json", "is empty: it needs at least one rule"),
        (b"rules = []", "a.toml", "rules: is empty"),
        (b"unmatched = 'model'", "a.toml", "rules: is missing"),
        (b"[[rules]]\ntext = '\xff'", "a.toml", "is not UTF-8, at byte 18: save it as UTF-8"),
        ("[[rules]]".encode("utf-16"), "a.toml", "is not UTF-8, at byte 0: save it as UTF-8"),
        (b"rules: []", "a.yaml", "is neither TOML nor JSON by its name: call it '….toml' or '….json'"),
        (b"[[rules]]", "replies", "is neither TOML nor JSON by its name: call it '….toml' or '….json'"),
        (b"[[rules]]\ntext = Hi", "a.toml", "is no TOML: Invalid value (at line 2, column 8)"),
        (
            b'[[rules]]\nwhen.matches = "\\w+"',
            "a.toml",
            "is no TOML: Unescaped '\\' in a string (at line 2, column 19); "
            "between single quotes a backslash is itself",
        ),
        (b'{"rules": [\n}', "a.json", "is no JSON: Expecting value: line 2 column 1 (char 12)"),
        (b'{"rules": [{"text": "a", "text": "b"}]}', "a.json", "is no JSON: the key 'text' stands twice in one object"),
        (b'{"rules": [{"delay": NaN}]}', "a.json", "is no JSON: JSON has no NaN"),
        (
            b'{"rules": [{"text": "\\ud83d"}]}',
            "a.json",
            "is no JSON: a text in it has half a character (a lone surrogate); the fault 'cut_emoji' sends such",
        ),
        (b"[" * 100_000, "a.json", "is nested too deeply"),
        (b"rules = " + b"[" * 100_000, "a.toml", "is nested too deeply"),
        (b"[]", "a.json", "must be a table or object, not a list"),
        (b"null", "a.json", "must be a table or object, not null"),
        (b"[rules]\ntext = 'Hi'", "a.toml", "rules: must be a list, as [[rules]] is in TOML, not a table"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes, name: str, says: str) -> None:
    assert problems(content, name) == (says,)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("text = 3", "text: must be a text, not a number"),
        ("text = true", "text: must be a text, not true or false"),
        ("text = 2025-01-01", "text: must be a text, not a date or time"),
        ("text = 0x" + "f" * 6000, "text: must be a text, not a number"),
        ("chunks = 'Hi'", "chunks: must be a list, as [[rules]] is in TOML, not a text"),
        ("chunks = []", "chunks: is empty"),
        ("chunks = ['a', 1]", "chunk 2: must be a text, not a number"),
        ("text = ''\nchunks = ['a']", "chunks: stands beside 'text': give one of the two"),
        ("delay = '1'", "delay: must be a number, not a text"),
        ("delay = -1", "delay: must be greater than or equal to 0"),
        ("delay = nan", "delay: must be a finite number"),
        ("delay = 86401", "delay: must be less than or equal to 86400"),
        ("tool_calls = []", "tool_calls: is empty"),
        ("tool_calls = [{ arguments = {} }]", "tool call 1: name: is missing"),
        (
            "tool_calls = [{ name = 'f' }, { name = 'g', arguments = 3 }]",
            "tool call 2: arguments: must be a table, or the JSON as a text",
        ),
        (
            "tool_calls = [{ name = 'f', arguments = { a = 2025-01-01 } }]",
            "tool call 1: arguments: holds what JSON cannot say: Object of type date is not JSON serializable",
        ),
        ("usage = { total_tokens = 1.5 }", "usage: total_tokens: must be a whole number, not a decimal number"),
        ("fault = 3", "fault: must be a text, not a number"),
        ("answers = []", "answers: is empty"),
        ("answers = [{ text = 'a' }, { chunks = [] }]", "answer 2: chunks: is empty"),
        (
            "text = 'a'\ndelay = 1\nanswers = [{}]",
            "answers: stands beside 'text', 'delay': put that into one of the answers",
        ),
        ("when = 'Hi'", "when: must be a table or object, not a text"),
        ("when.contains = ''", "when: contains: is empty"),
        ("when.matches = 3", "when: matches: must be a text, not a number"),
        (
            "when.matches = 'a(b'",
            "when: matches: is no regular expression: missing ), unterminated subpattern at position 1",
        ),
        (
            "when.matches = 'a{99999999999}'",
            "when: matches: is no regular expression: the repetition number is too large",
        ),
        (
            r'when.matches = "\bHi\b"',
            "when: matches: has a backspace: for a word's edge write '\\b' between single quotes, or \"\\\\b\"",
        ),
        ("'$schema' = 'x'", "'$schema' is for the whole file: in TOML, write it above the first [[rules]]"),
        ("unmatched = 'refuse'", "'unmatched' is for the whole file: in TOML, write it above the first [[rules]]"),
        # A warning of Python's, which these tests make an error.
        ("when.matches = '[[a]'", "when: matches: is no regular expression: Possible nested set at position 1"),
    ],
)
def test_a_rule_that_breaks_the_schema_says_where_and_how(fields: str, says: str) -> None:
    assert problems(rule(fields)) == (f"rule 1: {says}",)


def test_numbers_that_json_does_not_have_are_no_arguments() -> None:
    (said,) = problems(rule("tool_calls = [{ name = 'f', arguments = { a = inf } }]"))
    assert said.startswith("rule 1: tool call 1: arguments: holds what JSON cannot say: Out of range float")


def test_arguments_that_are_nested_too_deeply_are_one_of_the_problems() -> None:
    (said,) = problems(rule(f"tool_calls = [{{ name = 'f', arguments.{'.'.join('a' * 20_000)} = 1 }}]"))
    assert said.startswith("rule 1: tool call 1: arguments: holds what JSON cannot say: maximum recursion depth")


def test_an_expression_that_is_nested_too_deeply_is_one_of_the_problems() -> None:
    (said,) = problems(rule(f"when.matches = '{'(' * 5000}'"))
    assert said.startswith("rule 1: when: matches: is no regular expression: maximum recursion depth exceeded")


@pytest.mark.parametrize(
    ("toml", "where", "wrong", "nearest"),
    [
        ("unmached = 'model'\n[[rules]]", "", "unmached", "unmatched"),
        (rule("txt = 'a'"), "rule 1: ", "txt", "text"),
        (rule("contains = 'a'"), "rule 1: ", "contains", "when.contains"),
        (rule("when.match = 'a'"), "rule 1: when: ", "match", "matches"),
        (rule("tool_calls = [{ name = 'f', args = {} }]"), "rule 1: tool call 1: ", "args", "arguments"),
        (rule("answers = [{ chunk = ['a'] }]"), "rule 1: answer 1: ", "chunk", "chunks"),
        (rule("usage = { total_token = 1 }"), "rule 1: usage: ", "total_token", "total_tokens"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(toml: str, where: str, wrong: str, nearest: str) -> None:
    (said,) = problems(toml)
    assert said.startswith(f"{where}there is no '{wrong}' here, did you mean '{nearest}'?; there are: ")
    assert f" {nearest}" in said.partition("there are:")[2]


def test_all_names_that_there_are_are_told() -> None:
    (said,) = problems("x = 1\n" + rule(""))
    assert said == "there is no 'x' here; there are: $schema, rules, unmatched"


@pytest.mark.parametrize(
    ("fault", "says"),
    [("trunkate", "did you mean 'truncate'?"), ("truncate?aftr=1", "did you mean 'after'?"), ("", "no fault ''")],
)
def test_a_fault_that_there_is_not_is_told_the_nearest(fault: str, says: str) -> None:
    (said,) = problems(rule(f"fault = '{fault}'"))
    assert said.startswith("rule 1: fault: ")
    assert says in said


def test_everything_that_is_wrong_is_said_at_once() -> None:
    toml = (
        "unmatched = 'no'\n" + rule("text = 1\nwhen.equals = 2") + rule("fault = 'x'") + rule("answers = [{ a = 1 }]")
    )
    said = problems(toml)
    assert [re.match(r"(rule \d: (answer \d: )?)?[a-z ']+", each)[0] for each in said] == [  # type: ignore[index]
        "rule 1: text",
        "rule 1: when",
        "rule 2: fault",
        "rule 3: answer 1: there is no 'a' here",
        "unmatched",
        "rule 2: has no 'when'",
    ]
    with pytest.raises(ReplyFileError) as caught:
        read(toml)
    assert str(caught.value).splitlines() == ["replies.toml: 6 problems", *(f"  {each}" for each in said)]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    with pytest.raises(ValueError, match=r"^replies\.toml: rules: is empty$"):
        read("rules = []")


@pytest.mark.parametrize("always", ["", "when = {}"])
def test_a_rule_that_always_answers_must_be_the_last(always: str) -> None:
    says = "has no 'when', so no rule after it ever answers: give it one, or put it last"
    assert problems(rule("when.equals = 'a'") + rule(always) + rule(always)) == (f"rule 2: {says}",)
    assert len(read(rule("when.equals = 'a'") + rule(always)).rules) == 2


def test_a_byte_order_mark_and_endings_of_windows_are_no_problem() -> None:
    content = b"\xef\xbb\xbf[[rules]]\r\ntext = 'Hi'\r\n"
    assert read_replies(content, "REPLIES.TOML") == read(rule("text = 'Hi'"))
    assert read_replies(b'\xef\xbb\xbf{"rules": [{"text": "Hi"}]}', "a.b.json") == read(rule("text = 'Hi'"))


def test_the_schema_can_be_named_in_the_file() -> None:
    assert read("'$schema' = 'replies.schema.json'\n" + rule("text = 'Hi'")).rules[0].text == "Hi"


# ── the schema ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_schema_that_is_kept_is_that_of_the_code() -> None:
    kept = json.loads((ROOT / "docs" / "replies.schema.json").read_text(encoding="utf-8"))
    assert kept == replies_schema(), "write it again: chatapi serve --replies-schema > docs/replies.schema.json"
    jsonschema.Draft202012Validator.check_schema(kept)


def test_each_field_of_the_schema_says_what_it_is() -> None:
    schema = replies_schema()
    for name, model in {"Replies": schema, **schema["$defs"]}.items():
        for field, described in model["properties"].items():
            assert described.get("description") or name == "ReplyUsage", (name, field)


def test_the_readme_names_every_field() -> None:
    page = README.partition("\n## Answers of your own\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_$]+)`", "\n".join(re.findall(r"^\| (.*?) \|", page, re.MULTILINE))))
    models = (Replies, Rule, Condition, ReplyToolCall)
    fields = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert fields - {"$schema", "name", "id", "arguments", "rules"} == named
    for name in ("$schema", "name", "id", "arguments", "[[rules]]"):
        assert f"`{name}`" in page


# ── any file ─────────────────────────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
words = texts.filter(bool)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def without_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {name: without_none(each) for name, each in value.items() if each is not None}
    return [without_none(each) for each in value if each is not None] if isinstance(value, list) else value


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


conditions = some(
    equals=texts,
    contains=words,
    matches=texts.map(lambda text: re.escape(text.replace("\b", ""))),  # a backspace is refused
    tool_result=words,
    model=words,
    chatroom_id=words,
).filter(bool)
calls = st.fixed_dictionaries(
    {"name": texts},
    optional={"id": texts, "arguments": texts | st.dictionaries(texts, values, max_size=3).map(without_none)},
)
fields = {
    "tool_calls": st.lists(calls, min_size=1, max_size=2),
    "finish_reason": texts,
    "usage": some(prompt_tokens=st.integers(0, 10**6), total_cost=st.floats(0, 10**6)),
    "delay": st.floats(0, 86400) | st.integers(0, 86400),
    "fault": st.sampled_from(sorted(FAULTS)) | st.just("truncate?after=3"),
}
answers = some(text=texts, **fields) | some(chunks=st.lists(texts, min_size=1, max_size=3), **fields)
several = st.fixed_dictionaries({"answers": st.lists(answers, min_size=1, max_size=3)})
conditional = st.tuples(answers | several, conditions).map(lambda pair: {**pair[0], "when": pair[1]})
documents = st.tuples(
    st.lists(conditional, max_size=3), answers | several, some(unmatched=st.sampled_from(["model", "refuse"]))
).map(lambda parts: {"rules": [*parts[0], parts[1]], **parts[2]})


SCHEMA = jsonschema.Draft202012Validator(replies_schema())


def toml(value: Any) -> str:
    """A value as TOML; a text is one as in JSON, which leaves DEL as it is."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(name)} = {toml(each)}' for name, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@given(documents)
def test_any_rules_are_the_same_from_toml_and_json_and_fit_the_schema(document: dict[str, Any]) -> None:
    from_json = read_replies(json.dumps(document).encode(), "a.json")
    from_toml = read_replies("\n".join(f"{name} = {toml(each)}" for name, each in document.items()).encode(), "a.toml")
    SCHEMA.validate(document)
    assert from_toml == from_json
    again = read_replies(from_json.model_dump_json(exclude_unset=True, by_alias=True).encode(), "a.json")
    assert again == from_json
    for said, was in zip(from_json.rules, document["rules"], strict=True):
        assert (said.text, said.chunks, said.fault) == (was.get("text"), was.get("chunks"), was.get("fault"))
        assert said.model_fields_set == set(was)


def assert_rules_or_the_one_error(content: bytes, name: str) -> None:
    """Whatever the rules are, a request gets an answer, or is refused where the file says so."""
    try:
        replies = read_replies(content, name)
    except ReplyFileError as error:
        said = error
    else:
        try:
            answer = RuleBook(replies, name).answer(Asked([Message.user("Hi")]))
        except UnmatchedError:
            assert replies.unmatched == "refuse"
        else:
            assert answer is not None or replies.unmatched == "model"
        return
    assert all(said.problems)
    assert str(said).startswith(f"{name}: ")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from(["a.toml", "a.json"]))
def test_any_bytes_are_rules_or_the_one_error(content: bytes, name: str) -> None:
    assert_rules_or_the_one_error(content, name)


@given(documents, st.data())
def test_a_file_with_anything_in_the_place_of_a_value_is_rules_or_the_one_error(
    document: dict[str, Any], data: st.DataObject
) -> None:
    def spoil(value: Any) -> Any:
        if isinstance(value, dict | list) and value and data.draw(st.integers(0, 4)):
            key = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
            value[key] = spoil(value[key])
            if isinstance(value, dict) and not data.draw(st.integers(0, 4)):
                value[data.draw(texts)] = value.pop(key)
            return value
        return data.draw(values | st.sampled_from(["(", "[[", "\ud800"]))

    assert_rules_or_the_one_error(json.dumps(spoil(document)).encode(), "a.json")


# ── which rule answers ───────────────────────────────────────────────────────────────────────────────────────────────

CALL = tool_call("get_weather", {"location": "Sendai"}, id="call_a")
OTHER = tool_call("get_time", {}, id="call_b")
WEATHER = [
    Message.user("The weather in Sendai?"),
    Message.assistant(tool_calls=[CALL, OTHER]),
    Message.tool("18 °C", tool_call_id="call_a"),
    Message.tool("noon", tool_call_id="call_b"),
]


def holds(when: str, *conversation: Message, **asked: Any) -> bool:
    book = RuleBook(read(rule(f"text = 'yes'\n{when}")), "replies.toml")
    answer = book.answer(Asked(conversation or [Message.user("The weather in Sendai?")], **asked))
    return answer is not None and answer.text == "yes"


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("", True),
        ("when.equals = 'The weather in Sendai?'", True),
        ("when.equals = 'The weather in Sendai'", False),
        ("when.equals = 'the weather in sendai?'", False),
        ("when.contains = 'weather'", True),
        ("when.contains = 'Weather'", False),
        ("when.matches = 'S\\w+i'", True),
        ("when.matches = '^S'", False),
        ("when.matches = '(?i)^THE'", True),
        ("when = { contains = 'weather', matches = 'rain' }", False),
        ("when = { contains = 'rain', matches = 'weather' }", False),
        ("when = { contains = 'weather', equals = 'weather' }", False),
        ("when.tool_result = 'get_weather'", False),
    ],
)
def test_a_condition_is_about_the_prompt(when: str, expected: bool) -> None:
    assert holds(when) is expected


def test_the_prompt_is_the_last_message_of_the_user_whatever_it_is_made_of() -> None:
    first, answer, last = Message.user("First"), Message.assistant("Yes?"), Message.user("Last")
    assert holds("when.equals = 'Last'", first, answer, last, answer)
    assert not holds("when.contains = 'First'", first, answer, last)
    parts = Message.model_validate(
        {"role": "user", "content": [{"type": "text", "text": "La"}, {"type": "image"}, {"type": "text", "text": "st"}]}
    )
    assert holds("when.equals = 'Last'", parts)
    assert holds("when.equals = ''", Message.system("Be brief."))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("when.tool_result = 'get_weather'", True),
        ("when.tool_result = 'get_time'", True),
        ("when.tool_result = 'get_news'", False),
        ("when = { tool_result = 'get_weather', contains = 'Sendai' }", True),
        ("when = { tool_result = 'get_weather', contains = 'Kyoto' }", False),
        ("when.contains = 'Sendai'", False),
        ("when.equals = 'The weather in Sendai?'", False),
        ("when.matches = 'Sendai'", False),
        ("when.model = 'large'", True),
        ("", True),
    ],
)
def test_a_rule_about_the_prompt_alone_does_not_hold_after_tools_have_answered(when: str, expected: bool) -> None:
    assert holds(when, *WEATHER) is expected
    assert holds("when.contains = 'And'", *WEATHER, Message.user("And tomorrow?"))


@pytest.mark.parametrize(
    ("wanted", "model", "expected"),
    [
        ("small", "small", True),
        ("small", None, False),
        ("large", None, True),
        ("anthropic/claude", "anthropic:claude", True),
        ("gpt-5", "openai/gpt-5", True),
        ("anthropic/claude", "anthropic/claude-2", False),
    ],
)
def test_a_condition_is_about_the_model_however_it_is_written(wanted: str, model: str | None, expected: bool) -> None:
    assert holds(f"when.model = '{wanted}'", model=model) is expected


def test_a_condition_is_about_the_chatroom() -> None:
    assert holds("when.chatroom_id = 'ch/1'", chatroom_id="ch/1")
    assert not holds("when.chatroom_id = 'ch/1'", chatroom_id="ch")
    assert not holds("when.chatroom_id = 'ch/1'")


def test_what_a_group_found_takes_the_place_of_its_name_and_nothing_else_changes() -> None:
    book = RuleBook(
        read(r"""
[[rules]]
when.matches = '(?P<who>\S+) likes (?P<what>\w+)(?P<how> much)?'
answers = [
    { text = 'So {who} likes {what}{how}: {"who": {1}} {{who}} {whom} \1 {}' },
    { chunks = ['{who}', ' and {what}'] },
    { tool_calls = [
        { name = 'like', arguments = { who = '{who}', more = [{ '{what}' = 1 }] } },
        { name = 'raw', arguments = '{"who": "{who}"' },
    ] },
]
"""),
        "replies.toml",
    )
    asked = Asked([Message.user('{what}"\\ likes tea')])
    assert book.answer(asked).text == 'So {what}"\\ likes tea: {"who": {1}} {{what}"\\} {whom} \\1 {}'
    assert book.answer(asked).text == ['{what}"\\', " and tea"]
    called = book.answer(asked).tool_calls
    assert json.loads(called[0].function.arguments) == {"who": '{what}"\\', "more": [{"tea": 1}]}
    assert called[1].function.arguments == '{"who": "{what}\\"\\\\"'


def test_a_text_without_groups_is_sent_as_it_is() -> None:
    book = RuleBook(read(rule("text = '{who} {0}'\nwhen.matches = '(H)i'")), "replies.toml")
    assert book.answer(Asked([Message.user("Hi")])).text == "{who} {0}"


def test_calls_have_ids_of_their_own_in_a_conversation() -> None:
    book = RuleBook(read(rule("tool_calls = [{ name = 'f' }, { name = 'f' }, { name = 'f', id = '' }]")), "a")
    ids = [
        call.id
        for conversation in ([Message.user("Hi")], [Message.user("Hi")] * 3)
        for call in book.answer(Asked(conversation)).tool_calls
    ]
    assert len(set(ids)) == 5
    assert ids[2] == ids[5] == ""
    assert book.answer(Asked([Message.user("Hi")])).tool_calls[0].function.arguments == "{}"


def test_each_rule_counts_its_own_answers_and_the_last_is_given_again() -> None:
    two = "answers = [{ text = '1' }, { text = '2' }]\n"
    book = RuleBook(read(rule(two + "when.equals = 'a'") + rule(two)), "replies.toml")
    said = [book.answer(Asked([Message.user(prompt)])).text for prompt in "abaabbb"]
    assert said == ["1", "1", "2", "2", "2", "2", "2"]


# ── through the client ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the reply file, and returns its path; each time with another time of change."""
    path, changes = tmp_path / "replies.toml", iter(range(1, 100))

    def write(toml: str) -> Path:
        path.write_text(toml, encoding="utf-8")
        os.utime(path, (0, next(changes)))
        return path

    return write


@pytest.fixture
async def running() -> AsyncIterator[RunningEmulator]:
    async with serve(Emulator(tokens_per_second=None, chatrooms=["ch_1"])) as running:
        yield running


def client_of(running: RunningEmulator | ChatServer, **options: Any) -> AsyncChatClient:
    return AsyncChatClient(running.base_url, operator_id="tn_1", token="t0ken", **{"retries": 0, **options})


@pytest.fixture
async def client(running: RunningEmulator) -> AsyncIterator[AsyncChatClient]:
    async with client_of(running) as client:
        yield client


EVERYTHING = rule("""
chunks = ["Let me ", "see. "]
tool_calls = [{ name = "get_weather", arguments = { location = "仙台" }, id = "call_1" }]
finish_reason = "length"
usage = { total_tokens = 7, total_cost = 0.5 }
""")


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_the_same_by_either_operation_streamed_or_not(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path], stream: bool
) -> None:
    running.emulator.load_replies(write(EVERYTHING))
    completions = [
        await client.chat_completion("Hi", stream=stream, n=2).get_final_completion(),
        await client.chat_completion_on_chatroom("ch_1", "Hi", stream=stream, n=2).get_final_completion(),
    ]
    for completion in completions:
        assert len(completion.choices) == 2
        for choice in completion.choices:
            assert (choice.message.text, choice.finish_reason) == ("Let me see. ", "length")
            assert choice.message.tool_calls == [tool_call("get_weather", {"location": "仙台"}, id="call_1")]
        assert completion.usage == Usage(total_tokens=7, total_cost=0.5)
    assert running.emulator.chatrooms["ch_1"][-1].text == "Let me see. "


async def test_chunks_come_as_they_are_written_and_a_text_by_its_tokens(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(write(rule("answers = [{ chunks = ['Hel', 'lo, you'] }, { text = 'Hello, you' }]")))
    assert [text async for text in client.chat_completion("Hi").text_stream] == ["Hel", "lo, you"]
    assert [text async for text in client.chat_completion("Hi").text_stream] == ["Hello", ",", " you"]


async def test_a_limit_of_tokens_and_a_tool_choice_do_not_change_what_is_written(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(write(rule("text = 'Several words of text'")))
    completion = await client.chat_completion("Hi", max_completion_tokens=1, tool_choice="any").get_final_completion()
    assert (completion.text, completion.choices[0].finish_reason) == ("Several words of text", "stop")


async def test_an_answer_without_a_text_is_the_built_in_models(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(
        write(rule("answers = [{ finish_reason = 'length' }, { usage = { total_tokens = 3 } }]"))
    )
    cut, counted = [await client.chat_completion("Hi").get_final_completion() for _ in range(2)]
    assert cut.text.startswith(MODEL)
    assert cut.choices[0].finish_reason == "length"
    assert counted.text == cut.text
    assert (counted.choices[0].finish_reason, counted.usage) == ("stop", Usage(total_tokens=3))


async def test_a_delay_comes_before_the_first_chunk(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(
        write(rule("text = 'Late'\ndelay = 0.2\nwhen.equals = 'Wait'") + rule("text = 'Now'"))
    )
    late, now = client.chat_completion("Wait"), client.chat_completion("Hi")
    assert (await late.get_final_text(), await now.get_final_text()) == ("Late", "Now")
    assert (late.stats.time_to_first_chunk or 0) >= 0.2 > (now.stats.time_to_first_chunk or 0)


async def test_first_refused_and_then_fine_is_what_a_retry_meets(
    running: RunningEmulator, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(write(rule("answers = [{ fault = 'status?code=429' }, { text = 'Fine' }]")))
    async with client_of(running, retries=QUICK) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Fine"
    assert len(running.emulator.requests) == 2


async def test_a_conversation_with_a_tool_ends(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(
        write(
            rule("when.contains = 'weather'\ntool_calls = [{ name = 'get_weather' }]")
            + rule("when.tool_result = 'get_weather'\ntext = 'It rains.'")
        )
    )
    history = [Message.user("The weather?")]
    message = await client.chat_completion(history).get_final_message()
    assert message.tool_calls is not None
    result = Message.tool("rain", tool_call_id=message.tool_calls[0].id)
    assert await client.chat_completion([*history, message, result]).get_final_text() == "It rains."
    # A chatroom keeps the call, so that the result alone is sent.
    message = await client.chat_completion_on_chatroom("ch_1", history).get_final_message()
    assert message.tool_calls is not None
    result = Message.tool("rain", tool_call_id=message.tool_calls[0].id)
    assert await client.chat_completion_on_chatroom("ch_1", [result]).get_final_text() == "It rains."


async def test_a_rule_is_for_a_model_or_a_chatroom(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(
        write(rule("when.model = 'x/y'\ntext = 'model'") + rule("when.chatroom_id = 'ch_1'\ntext = 'room'"))
    )
    assert await client.chat_completion("Hi", model="x:y").get_final_text() == "model"
    assert await client.chat_completion_on_chatroom("ch_1", "Hi").get_final_text() == "room"
    assert (await client.chat_completion("Hi").get_final_text()).startswith(MODEL)


async def test_what_no_rule_answers_is_refused_where_the_file_says_so(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    path = write("unmatched = 'refuse'\n" + rule("when.equals = 'Hi'\ntext = 'Hello'"))
    running.emulator.load_replies(path)
    assert await client.chat_completion("Hi").get_final_text() == "Hello"
    with pytest.raises(BadRequestError) as caught:
        await client.chat_completion("Bye").until_done()
    assert (caught.value.code, caught.value.message) == (
        "no_reply",
        f"no rule of {path} answers the prompt 'Bye' to the model 'large'; add one, or a last one without 'when', "
        'or leave out unmatched = "refuse"',
    )
    results = [Message.user("Hi"), Message.assistant(tool_calls=[CALL]), Message.tool("rain", tool_call_id="call_a")]
    with pytest.raises(
        BadRequestError, match="'Hi' after the result of get_weather to the model 'm' in the chatroom 'ch_1'"
    ):
        await client.chat_completion_on_chatroom("ch_1", results, model="m").until_done()
    assert running.emulator.chatrooms["ch_1"] == []


async def test_a_queued_answer_counts_for_more_and_a_rules_fault_for_more_than_the_requests(
    running: RunningEmulator, client: AsyncChatClient, write: Callable[[str], Path]
) -> None:
    running.emulator.load_replies(
        write(
            rule("when.equals = 'Cut'\nchunks = ['a', 'b']\nfault = 'truncate?after=2'") + rule("chunks = ['c', 'd']")
        )
    )
    running.emulator.script(ScriptedAnswer("Queued"))
    assert await client.chat_completion("Cut").get_final_text() == "Queued"
    for prompt, model, came in [("Cut", "fault/status", "a"), ("Hi", "fault/truncate?after=2", "c")]:
        with pytest.raises(StreamTruncatedError) as caught:
            await client.chat_completion(prompt, model=model).until_done()
        assert caught.value.partial is not None
        assert caught.value.partial.text == came
    with pytest.raises(RateLimitError):
        await client.chat_completion("Hi", extra_headers={"x-fault": "status?code=429"}).until_done()


def test_rules_give_the_faults_with_their_parameters() -> None:
    answer = RuleBook(read(rule("fault = 'truncate?after=3'")), "a").answer(Asked([Message.user("Hi")]))
    assert answer.fault == ChosenFault("truncate", {"after": 3})


# ── a file that changes ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_edit_counts_from_the_next_request_on_and_a_broken_one_changes_nothing(
    write: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "chatapi_async.emulator")
    path = write(rule("answers = [{ text = 'one' }, { text = 'two' }]"))
    monkeypatch.chdir(path.parent)
    async with serve(Emulator(tokens_per_second=None, replies=path.name)) as running, client_of(running) as client:

        async def ask() -> str:
            return await client.chat_completion("Hi").get_final_text()

        assert [await ask(), await ask()] == ["one", "two"]
        monkeypatch.chdir("/")
        write(rule("answers = [{ text = 'new' }, { text = 'newer' }]"))
        assert [await ask(), await ask()] == ["new", "newer"]
        write(rule("txt = 'broken'"))
        assert [await ask(), await ask()] == ["newer", "newer"]
        path.unlink()
        assert [await ask(), await ask()] == ["newer", "newer"]
        write(rule("text = 'mended'"))
        assert [await ask(), await ask()] == ["mended", "mended"]
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in levels] == ["INFO", "WARNING", "WARNING", "INFO"]
    assert levels[0][1] == levels[3][1] == "replies.toml has changed, and was read again"
    assert levels[1][1].startswith("replies.toml: rule 1: there is no 'txt' here, did you mean 'text'?")
    assert "No such file" in levels[2][1]
    for _, message in levels[1:3]:
        assert message.endswith("\nuntil it is mended, the rules from before answer")


@pytest.mark.parametrize(("text", "later"), [("two", 1), ("three", 0)], ids=["of the same size", "at the same time"])
def test_a_change_is_seen_by_the_time_or_by_the_size(tmp_path: Path, text: str, later: int) -> None:
    path, asked = tmp_path / "replies.toml", Asked([Message.user("Hi")])
    path.write_text(rule("text = 'one'"), encoding="utf-8")
    file, before = ReplyFile(path), path.stat().st_mtime_ns
    assert file.answer(asked).text == "one"
    path.write_text(rule(f"text = '{text}'"), encoding="utf-8")
    os.utime(path, ns=(before, before + later * 10**9))
    assert file.answer(asked).text == text


def test_a_change_is_seen_where_another_file_of_the_same_size_and_time_takes_its_place(tmp_path: Path) -> None:
    path, other, asked = tmp_path / "replies.toml", tmp_path / "other.toml", Asked([Message.user("Hi")])
    for each, text in ((path, "one"), (other, "two")):
        each.write_text(rule(f"text = '{text}'"), encoding="utf-8")
        os.utime(each, ns=(10**18, 10**18))
    file = ReplyFile(path)
    assert file.answer(asked).text == "one"
    other.replace(path)
    assert file.answer(asked).text == "two"


def test_a_file_that_is_wrong_from_the_start_is_an_error(tmp_path: Path, write: Callable[[str], Path]) -> None:
    with pytest.raises(FileNotFoundError):
        Emulator(replies=tmp_path / "none.toml")
    with pytest.raises(IsADirectoryError):
        Emulator(replies=tmp_path)
    with pytest.raises(ReplyFileError, match=re.escape(str(tmp_path / "replies.toml"))):
        Emulator(replies=write("rules = []"))


async def test_the_test_kit_takes_a_file_and_one_that_is_wrong_leaves_the_one_before(
    chatapi_server: ChatServer, write: Callable[[str], Path], tmp_path: Path
) -> None:
    chatapi_server.replies(write(rule("text = 'From the file'")))
    chatapi_server.reply("Queued")
    with pytest.raises(ValueError, match="rule 1: text"):
        chatapi_server.replies(write_other(tmp_path, '{"rules": [{"text": 3}]}'))
    async with client_of(chatapi_server) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Queued"
        assert await client.chat_completion("Hi").get_final_text() == "From the file"
        chatapi_server.replies(str(write_other(tmp_path, '{"rules": [{"text": "From JSON"}]}')))
        assert await client.chat_completion("Hi").get_final_text() == "From JSON"


def write_other(folder: Path, content: str) -> Path:
    path = folder / "other.json"
    path.write_text(content, encoding="utf-8")
    return path


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────────


def chatapi(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chatapi_async", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_serve_says_everything_that_is_wrong_a_line_each(write: Callable[[str], Path]) -> None:
    path = write(rule("txt = 'a'") + rule("fault = 'trunkate'"))
    done = chatapi("serve", "--port", "0", "--replies", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"chatapi: {path}: rule 1: there is no 'txt' here")
    assert lines[1].startswith(
        f"chatapi: {path}: rule 2: fault: there is no fault 'trunkate', did you mean 'truncate'?"
    )
    assert lines[2].startswith(f"chatapi: {path}: rule 1: has no 'when'")


@pytest.mark.heavy
def test_serve_says_that_a_file_cannot_be_read(tmp_path: Path) -> None:
    done = chatapi("serve", "--port", "0", "--replies", str(tmp_path / "none.toml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"chatapi: {tmp_path / 'none.toml'} cannot be read: No such file or directory\n"


@pytest.mark.heavy
def test_serve_prints_the_schema() -> None:
    done = chatapi("serve", "--replies-schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == replies_schema()


# ── the README ───────────────────────────────────────────────────────────────────────────────────────────────────────

EXAMPLE = README.partition("<!-- replies.toml -->\n```toml\n")[2].partition("```")[0]


@contextmanager
def serving(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Run ``chatapi serve --replies`` until Ctrl-C; its address, and in the end what it printed since."""
    printed: list[str] = []
    command = [sys.executable, "-m", "chatapi_async", "serve", "--port", "0", "--replies", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while "serving on" not in (line := process.stderr.readline()):
                assert line, "the server ended before it served"
            yield line.split()[2].rstrip(";"), printed
        finally:
            process.send_signal(signal.SIGINT)
            printed += process.stderr
    assert process.returncode == 0


async def test_the_readmes_file_answers_as_it_says_and_while_it_is_edited(write: Callable[[str], Path]) -> None:
    path = write(EXAMPLE)
    with serving(path) as (address, printed):
        async with AsyncChatClient(address, operator_id="tn_1", token="any", retries=QUICK) as client:

            async def ask(*messages: str | Message) -> Message:
                said = [Message.user(each) if isinstance(each, str) else each for each in messages]
                return await client.chat_completion(said).get_final_message()

            called = await ask("What is the weather in Sendai?")
            (call,) = called.tool_calls or ()
            assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Sendai"})
            result = Message.tool("rain", tool_call_id=call.id)
            assert (await ask("What is the weather in Sendai?", called, result)).text == "It rains, take an umbrella."
            assert (await ask("Are you there?")).text == "Now I am."
            with pytest.raises(StreamTruncatedError):
                await ask("Tell me a long story")
            assert (await ask("Anything else")).text == "I know the weather, and little else."

            write(rule("text = 'Edited'"))
            assert (await ask("Hi")).text == "Edited"
            write(rule("text = 'Broken"))
            assert (await ask("Hi")).text == "Edited"
    assert f"chatapi: {path} has changed, and was read again\n" in printed
    assert any(line.startswith(f"chatapi: {path}: is no TOML: ") for line in printed)
    assert not any("Traceback" in line for line in printed)
