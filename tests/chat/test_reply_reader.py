"""The reader: every known form of a call, however the stream is cut; nothing lost, nothing leaked."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.chat import (
    CallArguments,
    CallBroken,
    CallEnd,
    CallStart,
    Event,
    Message,
    ReplyReader,
    TextDelta,
    ToolCall,
    parse_reply,
    render,
    reply_of,
)
from phi4mini.tokenizer import Tokenizer, phi4_mini
from tests.shared import SHARED, needs_shared

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"required": ["a"]}}}, {"name": "g"}]
F = '{"name": "f", "arguments": {"a": [1, "]}"], "b": {"c": "\\"x\\\\"}}}'
G = '{"name": "g", "arguments": "{\\"z\\": 1}"}'
CALL_F, CALL_G = ("f", {"a": [1, "]}"], "b": {"c": '"x\\'}}), ("g", {"z": 1})
OPEN, CLOSE = "<|tool_call|>", "<|/tool_call|>"

UNDERSTOOD = [
    ("plain text", "plain text", []),
    (f"{OPEN}[{F}]{CLOSE}", "", [CALL_F]),
    (f"{OPEN}[{F}]", "", [CALL_F]),
    (f"{OPEN}[{F}", "", [CALL_F]),
    (f"{OPEN}{F}{CLOSE}", "", [CALL_F]),
    (f"{OPEN}{F}{G}", "", [CALL_F, CALL_G]),
    (f"{OPEN}{F}, {G}{CLOSE}", "", [CALL_F, CALL_G]),
    (f"{OPEN} [{F},\n {G}] {CLOSE}", "", [CALL_F, CALL_G]),
    (f"{OPEN}[{F}]\n[{G}]{CLOSE}", "", [CALL_F, CALL_G]),
    (f"{OPEN}{F}{CLOSE}{OPEN}{G}{CLOSE}", "", [CALL_F, CALL_G]),
    (f"{OPEN}{F}\n{OPEN}{G}", "", [CALL_F, CALL_G]),
    (f"{OPEN}functools[{F}, {G}]{CLOSE}", "", [CALL_F, CALL_G]),
    (f"functools[{F}, {G}]", "", [CALL_F, CALL_G]),
    (f"\nfunctools[{F}] done", " done", [CALL_F]),
    (f"Let me look. functools[{F}] done", "Let me look.  done", [CALL_F]),
    (f"[{F}, {G}]", "", [CALL_F, CALL_G]),
    (f" \n[{F}] done", " done", [CALL_F]),
    (G, "", [CALL_G]),
    (f"Let me look.\n{OPEN}[{F}]{CLOSE} and so", "Let me look.\n and so", [CALL_F]),
    (f"{OPEN}[{F}] and so", " and so", [CALL_F]),
    (f"{OPEN}[]{CLOSE}nothing", "nothing", []),
    (f"{OPEN}[", "", []),
    (f'{OPEN}[{{"name": "g"}}]', "", [("g", {})]),
    (f'{OPEN}[{{"name": "g", "arguments": null}}, {{"name": "g", "arguments": ""}}]', "", [("g", {}), ("g", {})]),
    (f'{OPEN}{{"arguments": {{"q": 1}}, "name": "g"}}', "", [("g", {"q": 1})]),
    (f'{OPEN}{{"name": "g", "arguments": {{"text": "two\nlines\t"}}}}', "", [("g", {"text": "two\nlines\t"})]),
    (f'{OPEN}{{"type": "function", "function": {{"name": "g", "arguments": {{"k": 1}}}}}}', "", [("g", {"k": 1})]),
    (f'{OPEN}[{{"name": "other", "arguments": {{}}}}]{CLOSE}', "", [("other", {})]),  # reported, not hidden
    (
        f'{OPEN}[{{"name": "g", "arguments": {{"t": "a<|end|>{CLOSE}"}}}}]{CLOSE}',
        "",
        [("g", {"t": f"a<|end|>{CLOSE}"})],
    ),
]

LEFT_AS_TEXT = [
    f'{OPEN}[{{"name": "f", "arguments": {{"a": 1',  # broken off
    f'{OPEN}[{{"name": "f", "arguments": {{"a": 1,}}}}]',  # not JSON
    f'{OPEN}[{{"name": "f", "arguments": {{"a": NaN}}}}]',
    f'{OPEN}[{{"name": "f", "arguments": {{"a": "\\ud800"}}}}]',  # not text
    f'{OPEN}[{{"name": "f", "arguments": [1]}}]',
    f'{OPEN}[{{"name": "f", "arguments": "no object"}}]',
    f'{OPEN}[{{"name": "f", "name": "g", "arguments": {{}}}}]',  # which one?
    f'{OPEN}[{{"name": 7, "arguments": {{}}}}]',
    f'{OPEN}[{{"arguments": {{}}}}]',
    f'{OPEN}[{{"name": "f", "description": "the documentation echoed", "parameters": {{}}}}]',
    f'{OPEN}{{"name": "f", "arguments": {{"a": {"[" * 100}',
    f"{OPEN}I cannot do that.",
    f"{OPEN}[I cannot do that.]",
    f"{OPEN}{{f(1)}}",
    '[{"title": "a list of mine"}]',
    '{"name": "unknown", "arguments": {}}',
    f"A list [1] and {{x}} and functools and {F}",
    'functools[{"name": 1}]',
    "functools[",
    "functools",
    "[",
    '{"name": "f"',
    "   ",
]


def spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of the text with the call tokens as such and white space after them kept, as a model may write it."""
    marks = {OPEN: 200025, CLOSE: 200026}
    pieces = re.split(f"({'|'.join(map(re.escape, marks))})", text)
    return [id for piece in pieces for id in ([marks[piece]] if piece in marks else tokenizer.encode(piece))]


def shape(calls: list[ToolCall]) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in calls]


def check(events: list[Event]) -> None:
    """Starts, arguments and ends nest as promised; arguments joined are the call's JSON; ids are given once."""
    open_call: CallStart | None = None
    arguments = ""
    ids = []
    for event in events:
        if isinstance(event, CallStart):
            assert open_call is None
            open_call, arguments = event, ""
            ids.append(event.id)
        elif isinstance(event, TextDelta):
            assert open_call is None and event.text
        else:
            assert open_call is not None and event.index == open_call.index == len(ids) - 1
            arguments += event.delta if isinstance(event, CallArguments) else ""
            if isinstance(event, CallEnd):
                assert (event.call.id, event.call.name) == (open_call.id, open_call.name)
                assert json.loads(arguments) == event.call.arguments
            open_call = None if isinstance(event, (CallEnd, CallBroken)) else open_call
    assert open_call is None and len(set(ids)) == len(ids)


def read(
    tokenizer: Tokenizer, ids: list[int], tools: list[dict] | None = TOOLS, format: str | None = None
) -> list[Event]:
    reader = ReplyReader(tokenizer, format, tools)
    return [event for id in ids for event in reader.push(id)] + reader.finish()


@pytest.mark.parametrize(("text", "content", "calls"), UNDERSTOOD)
def test_understood(phi, text, content, calls):
    reply = parse_reply(text, TOOLS)
    assert (reply.content, shape(reply.tool_calls)) == (content, calls)
    if "a<|end|>" not in text:  # whose ids would be the control tokens
        events = read(phi, [*spelled(phi, text), 200020])
        check(events)
        reply = reply_of(events)
        assert (reply.content, shape(reply.tool_calls)) == (content, calls)


@pytest.mark.parametrize("text", LEFT_AS_TEXT)
def test_left_as_text(phi, text):
    expected = text.removeprefix(OPEN)
    assert (parse_reply(text, TOOLS).content, parse_reply(text, TOOLS).tool_calls) == (expected, [])
    events = read(phi, spelled(phi, text))
    check(events)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == expected


def test_one_good_call_survives_a_bad_one():
    reply = parse_reply(f'{OPEN}[{F}, {{"name": "g", "arguments": {{"a": 1,}}}}] hm', TOOLS)
    assert shape(reply.tool_calls) == [CALL_F]
    assert reply.content == ', {"name": "g", "arguments": {"a": 1,}}] hm'


def test_without_tools_only_what_is_marked_is_a_call():
    assert shape(parse_reply(f"{OPEN}[{F}]").tool_calls) == [CALL_F]
    assert shape(parse_reply(f"functools[{F}]").tool_calls) == [CALL_F]
    for text in (f"[{F}]", F, f"see functools[{F}]"):
        assert (parse_reply(text).content, parse_reply(text).tool_calls) == (text, [])


def test_arguments_come_as_they_grow(phi):
    ids = phi.encode(f'{OPEN}[{{"name": "g", "arguments": {{"text": "one two three four"}}}}]', parse_special=True)
    reader = ReplyReader(phi, tools=TOOLS, new_id=lambda: "call_1")
    steps = [reader.push(id) for id in ids]
    deltas = [event.delta for step in steps for event in step if isinstance(event, CallArguments)]
    assert "".join(deltas) == '{"text": "one two three four"}' and len(deltas) > 4
    assert steps.index([CallStart(0, "g", "call_1"), *next(s for s in steps if s)[1:]]) < len(steps) - 8


def test_a_call_that_breaks_off_is_taken_back(phi):
    text = '{"name": "g", "arguments": {"a": 1'
    events = read(phi, [*phi.encode(OPEN, parse_special=True), *phi.encode(text), 200020])
    assert [type(event) for event in events if not isinstance(event, CallArguments)] == [
        CallStart,
        CallBroken,
        TextDelta,
    ]
    assert reply_of(events).content == text


def test_control_tokens_never_come_out_as_text(phi):
    events = read(
        phi, [200019, *phi.encode("a"), 200023, 200024, 200027, 200028, 200018, 200040, *phi.encode("b"), 200020]
    )
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "ab"


def test_tokens_that_users_add_are_content():
    tokenizer = phi4_mini()
    shown, hidden = tokenizer.add_tokens(["<|shown|>"]) + tokenizer.add_tokens(["<|hidden|>"], special=True)
    assert reply_of(read(tokenizer, [shown, hidden])).content == "<|shown|>"


def test_text_is_not_cut_inside_a_character(phi):
    ids = phi.encode("🌍 é")
    pieces = [event.text for event in read(phi, ids) if isinstance(event, TextDelta)]
    assert "".join(pieces) == "🌍 é" and not any("\ufffd" in piece for piece in pieces)
    assert reply_of(read(phi, ids[:1])).content == "\ufffd"


def test_spelled_out_tags_in_plain_tokens_are_prose(phi):
    text = f"Write {OPEN}[{F}]{CLOSE} to call."
    assert reply_of(read(phi, phi.encode(text))).content == text


# ---- ChatML: tags are text

CHATML_UNDERSTOOD = [
    (f"<tool_call>{F}</tool_call>", "", [CALL_F]),
    (f"<tool_call>\n{F}\n</tool_call>\n<tool_call>[{G}]</tool_call>", "", [CALL_F, CALL_G]),
    (f"I look: <tool_call>{F}</tool_call> so", "I look:  so", [CALL_F]),
    (f"<tool_call>{F}", "", [CALL_F]),
    (f"<tool_call>[{F}", "", [CALL_F]),
    (F, "", [CALL_F]),
    ("<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", []),
    ("a <tool_cal", "a <tool_cal", []),
    ("<tool_call>", "<tool_call>", []),
    (f"<tool_call>{F}</tool_x", "</tool_x", [CALL_F]),
    ('<tool_call>{"name": "g", "arguments": {"t": "</tool_call>"}}</tool_call>', "", [("g", {"t": "</tool_call>"})]),
]


@pytest.mark.parametrize(("text", "content", "calls"), CHATML_UNDERSTOOD)
def test_chatml(chatml, text, content, calls):
    for reply in (parse_reply(text, TOOLS, "chatml"), reply_of(read(chatml, chatml.encode(text), format="chatml"))):
        assert (reply.content, shape(reply.tool_calls)) == (content, calls)


# ---- random

OPENINGS = [
    '{"name": "f", ',
    '"arguments": {',
    '"arguments": "',
    '"name": "zz"',
    "<tool_call>",
    "</tool_call>",
    "<tool",
]
PARTS = [OPEN, CLOSE, F, G, "functools", "functools[", "<|end|>", "text", "é🌍", "null", '{"a": 1}', *'[]{},"\\: \n1']
FRAGMENTS = st.sampled_from([*OPENINGS, *PARTS])


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(FRAGMENTS, max_size=14),
    cuts=st.randoms(use_true_random=False),
    tools=st.sampled_from([TOOLS, None]),
)
def test_any_stream_is_orderly_and_cutting_does_not_matter(pieces, cuts, tools):
    from phi4mini.chat.reply_calls import CallParser

    def run(parts: list[str]) -> list[Event]:
        parser = CallParser(
            {"f", "g"} if tools else set(), ("<tool_call>", "</tool_call>"), new_id=iter(map(str, range(99))).__next__
        )
        events = []
        for part in parts:
            marks = {OPEN: parser.open_mark, CLOSE: parser.close_mark}
            events += marks[part]() if part in marks else parser.text(part)
        return events + parser.end()

    def scattered(piece: str) -> list[str]:
        return [piece] if piece in (OPEN, CLOSE) else list(piece)

    whole, single = run(pieces), run([char for piece in pieces for char in scattered(piece)])
    check(whole)
    check(single)
    assert reply_of(whole) == reply_of(single)


@given(text=st.text(alphabet="abc é[{,\n<", max_size=30))
def test_prose_comes_out_as_it_is(phi, text):
    assert reply_of(read(phi, phi.encode(text))).content == text


NAMES = st.text(min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(st.text(max_size=4), JSON, max_size=3)), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(calls=CALLS, content=st.text(alphabet="ab é.", max_size=8))
def test_what_is_written_is_read_back(phi, calls, content):
    message = Message("assistant", content, tool_calls=tuple(ToolCall("", name, args) for name, args in calls))
    rendered = render([message], None, False, tokenizer=phi)
    events = read(phi, [id for id, mask in zip(rendered.ids, rendered.mask, strict=True) if mask])
    check(events)
    reply = reply_of(events)
    assert shape(reply.tool_calls) == calls
    assert reply.content == ("" if content.isspace() else content.lstrip(" "))


def bfcl_calls() -> list[list[tuple[str, dict[str, Any]]]]:
    """The expected calls of BFCL, each argument by its first possible answer."""
    found = []
    for path in sorted((SHARED / "data" / "bfcl").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            truth = json.loads(line).get("ground_truth") or []
            calls = [(name, {k: v[0] for k, v in args.items() if v}) for call in truth for name, args in call.items()]
            found += [calls] if calls else []
    return found


def glaive_calls() -> list[tuple[list[dict], Message]]:
    """Every assistant turn with calls of the tool-use conversations, and their tools."""
    rows = map(
        json.loads, (SHARED / "data" / "sft" / "toolcall_glaive_205.jsonl").read_text(encoding="utf-8").splitlines()
    )
    from phi4mini.chat import messages_from

    return [
        (row.get("tools") or [], message)
        for row in rows
        for message in messages_from(row["messages"])
        if message.tool_calls
    ]


@needs_shared
def test_real_calls_round_trip(phi):
    turns = [
        Message("assistant", "", tool_calls=tuple(ToolCall("", *call) for call in calls)) for calls in bfcl_calls()
    ]
    turns += [message for _, message in glaive_calls()]
    assert len(turns) > 500
    for turn in turns:
        rendered = render([turn], None, False, tokenizer=phi)
        events = read(phi, rendered.ids[1:], None)
        check(events)
        assert shape(reply_of(events).tool_calls) == shape(list(turn.tool_calls))


@needs_shared
def test_every_cut_of_a_real_call_is_orderly(phi):
    """A reply may end at any token: what came is read, nothing is lost, calls that were complete stay complete."""
    for calls in random.Random(0).sample(bfcl_calls(), 12):
        turn = Message("assistant", "Sure. ", tool_calls=tuple(ToolCall("", *call) for call in calls))
        ids = render([turn], None, False, tokenizer=phi).ids[1:-2]
        for end in range(len(ids) + 1):
            events = read(phi, ids[:end], None)
            check(events)
            reply = reply_of(events)
            assert shape(reply.tool_calls) == calls[: len(reply.tool_calls)]
            if not reply.tool_calls:
                hidden = {phi.id_of(OPEN)}
                shown = phi.decode([id for id in ids[:end] if id not in hidden])
                assert reply.content == shown or reply.content == shown.removesuffix("[")


@needs_shared
def test_whole_conversations_render_with_their_tools(phi):
    rows = map(
        json.loads, (SHARED / "data" / "sft" / "toolcall_glaive_205.jsonl").read_text(encoding="utf-8").splitlines()
    )
    for row in rows:
        rendered = render(row["messages"], row.get("tools"), False, tokenizer=phi)
        assert rendered.ids[-1] == phi.id_of("<|endoftext|>") and sum(rendered.mask) > 0
        assert rendered.ids.count(phi.id_of("<|tool|>")) == bool(row.get("tools"))
