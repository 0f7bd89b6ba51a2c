"""What is a call and what only looks like one: `parameters` for `arguments`, names of tools in lists."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.chat import CallEnd, CallStart, Event, ParsedReply, ReplyReader, parse_reply, reply_of
from phi4mini.chat.reply_calls import CallParser

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"required": ["a"]}}}, {"name": "g"}]
OPEN, CLOSE = "<|tool_call|>", "<|/tool_call|>"
CALL = ("g", {"z": 1})
PARAMETERS = [
    f'{OPEN}[{{"name": "g", "parameters": {{"z": 1}}}}]{CLOSE}',
    f'{OPEN}{{"name": "g", "parameters": {{"z": 1}}}}',
    f'{OPEN}{{"parameters": {{"z": 1}}, "name": "g"}}{CLOSE}',
    f'{OPEN}{{"name": "g", "parameters": "{{\\"z\\": 1}}"}}{CLOSE}',
    f'{OPEN}{{"type": "function", "name": "g", "parameters": {{"z": 1}}}}{CLOSE}',
    f'{OPEN}{{"type": "function", "function": {{"name": "g", "parameters": {{"z": 1}}}}}}{CLOSE}',
    f'{OPEN}{{"id": "x", "name": "g", "parameters": {{"z": 1}}}}{CLOSE}',
    f'{OPEN}functools[{{"name": "g", "parameters": {{"z": 1}}}}]{CLOSE}',
    'functools[{"name": "g", "parameters": {"z": 1}}]',
    '[{"name": "g", "parameters": {"z": 1}}]',
    ' {"name": "g", "parameters": {"z": 1}}',
    '{"parameters": {"z": 1}, "name": "g"}',
]
NO_CALLS = [
    '[{"name": "f"}, {"name": "g"}]',
    '{"name": "g"}',
    '[{"name": "g", "id": "7"}] are the tools.',
    '{"name": "g", "type": "person"}',
    '[{"name": "g", "age": 3}]',
    '[{"name": "g", "description": "what it does"}]',
    '[{"name": "g", "parameters": {"type": "object", "properties": {"z": {}}}}]',
    f'{OPEN}[{{"name": "g", "parameters": {{"type": "object", "properties": {{}}}}}}]',
    f'{OPEN}[{{"name": "other", "parameters": {{"z": 1}}}}]',
    f'{OPEN}[{{"parameters": {{"z": 1}}, "name": "other"}}]',
    f'{OPEN}[{{"name": "g", "arguments": {{}}, "parameters": {{"type": "object"}}, "name": "g"}}]',
    f'{OPEN}[{{"name": "g", "parameters": {{}}, "arguments": {{"z": 1}}}}]',
    '{"name": "g", "parameters": "z"}',
    'The tools are [{"name": "g", "arguments": {}}].',
    '{"function": {"name": "g"}}',
]


def pieces(text: str) -> list[str]:
    return re.split(f"({re.escape(OPEN)}|{re.escape(CLOSE)})", text)


def events(text: str, sizes: list[int]) -> list[Event]:
    """Of a text that comes in pieces of these sizes; what is beyond them comes at once."""
    parser = CallParser({"f", "g"}, None, new_id=iter(map(str, range(99))).__next__)
    found: list[Event] = []
    for piece in pieces(text):
        if piece in (OPEN, CLOSE):
            found += parser.open_mark() if piece == OPEN else parser.close_mark()
            continue
        while piece:
            size = sizes.pop(0) if sizes else len(piece)
            found += parser.text(piece[:size])
            piece = piece[size:]
    return found + parser.end()


def through_tokens(phi, text: str) -> ParsedReply:
    marks = {OPEN: 200025, CLOSE: 200026}
    ids = [id for piece in pieces(text) for id in ([marks[piece]] if piece in marks else phi.encode(piece))]
    reader = ReplyReader(phi, tools=TOOLS)
    return reply_of([event for id in [*ids, 200020] for event in reader.push(id)] + reader.finish())


def shape(reply: ParsedReply) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in reply.tool_calls]


@pytest.mark.parametrize("text", PARAMETERS)
def test_SC4_parameters_are_the_arguments_of_a_known_tool(phi, text):
    for reply in (parse_reply(text, TOOLS), through_tokens(phi, text), reply_of(events(text, [1] * len(text)))):
        assert (reply.content.strip(), shape(reply)) == ("", [CALL])
    assert CALL not in shape(parse_reply(text)), "without tools nobody knows what parameters are"


@pytest.mark.parametrize("text", NO_CALLS)
def test_SC4_a_tools_name_in_a_list_is_no_call(phi, text):
    for reply in (parse_reply(text, TOOLS), through_tokens(phi, text), reply_of(events(text, [1] * len(text)))):
        assert (reply.content, shape(reply)) == (text.removeprefix(OPEN), [])


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.sampled_from([*PARAMETERS, *NO_CALLS, "so ", "\n"]), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 12), max_size=40),
)
def test_SC4_however_the_stream_is_cut_it_is_read_the_same(texts, sizes):
    whole, cut = events("".join(texts), []), events("".join(texts), list(sizes))
    assert reply_of(whole) == reply_of(cut)
    marks = [[event for event in found if isinstance(event, (CallStart, CallEnd))] for found in (whole, cut)]
    assert marks[0] == marks[1]
