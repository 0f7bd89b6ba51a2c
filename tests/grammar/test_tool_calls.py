"""Tool calls as grammars: in the form that `chat` writes and reads, arguments after their schemas."""

from __future__ import annotations

import random

import pytest

from phi4mini.chat import Message, ReplyReader, ToolCall, format_named, reply_of
from phi4mini.errors import BadInput
from phi4mini.tokenizer.phi4 import END
from tests.grammar.following import admits, allowed, allows, spells, wander

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Köln"]}}, "required": ["city"]}
WEATHER = {"name": "weather", "parameters": {**CITY, "additionalProperties": False}}
NOW = {"type": "function", "function": {"name": "now", "description": "The time."}}
SHAPE = {"type": "object", "properties": {"kind": {"$ref": "#/$defs/kind"}}, "required": ["kind"]}
DRAW = {
    "name": 'draw "it"',
    "parameters": {**SHAPE, "$defs": {"kind": {"const": "disc"}}, "additionalProperties": False},
}
TOOLS = [WEATHER, NOW, DRAW]
NAMES = {"weather", "now", 'draw "it"'}


def calls_in(phi, ids, chat_format):
    reader = ReplyReader(phi, chat_format, TOOLS)
    reply = reply_of([event for id in ids for event in reader.push(id)] + reader.finish())
    return reply.content, [(call.name, call.arguments) for call in reply.tool_calls]


def proper(call) -> bool:
    name, arguments = call
    if name == "weather":
        return arguments in ({"city": "Rome"}, {"city": "Köln"})
    return arguments == {"now": {}, 'draw "it"': {"kind": "disc"}}[name]


@pytest.mark.parametrize("chat_format", ["phi", "phi-reasoning", "chatml"])
@pytest.mark.parametrize("parallel", [False, True])
def test_E8_required_is_a_call_and_nothing_else(phi, grammars, chat_format, parallel):
    counts = set()
    for seed in range(12):
        constraint = grammars.tool_calls(TOOLS, chat_format, required=True, parallel=parallel)
        content, calls = calls_in(phi, wander(constraint, seed), chat_format)
        assert content == "" and all(map(proper, calls)) and len(calls) >= 1
        counts.add(min(len(calls), 2))
    assert counts == ({1, 2} if parallel else {1})


@pytest.mark.parametrize("chat_format", ["phi", "chatml"])
@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("parallel", [False, True])
def test_E8_named_is_one_call_of_that_function(phi, grammars, chat_format, name, parallel):
    for seed in range(6):
        constraint = grammars.tool_calls(TOOLS, chat_format, required=name, parallel=parallel)
        content, [call] = calls_in(phi, wander(constraint, seed), chat_format)
        assert content == "" and call[0] == name and proper(call)


def test_E8_what_is_refused(grammars):
    for tools, required, expected in [
        (TOOLS, "wether", r"'wether' is not among the tools \(weather, now"),
        ([], True, "there are no tools"),
        ([WEATHER, WEATHER], True, "'weather' is given twice"),
        ([{"name": f"f{i}"} for i in range(129)], True, "129 tools; at most 128"),
        ([{"name": "f", "parameters": {"type": "array"}}], True, "'f': its parameters are of type 'array'"),
        ([{"name": "f", "parameters": {"$ref": "#"}}], True, "'f': the schema is circular"),
        ([{"name": "f", "parameters": {"properties": {"a": {"type": "str"}}}}], True, "Invalid type: str"),
    ]:
        with pytest.raises(BadInput, match=expected):
            grammars.tool_calls(tools, "phi", required=required, parallel=True)
    with pytest.raises(BadInput, match=r"'phi-3.5' has no tools"):
        grammars.tool_calls(TOOLS, "phi-3.5", required=True, parallel=True)


def test_E8_128_tools_and_48_optional_arguments(phi, grammars):
    many = [{"name": f"f{i}", "parameters": CITY} for i in range(128)]
    assert wander(grammars.tool_calls(many, "phi", required=True, parallel=True), 0, most=30)
    optional = {f"o{i}": {"type": "null"} for i in range(48)}
    tools = [{"name": "f", "parameters": {"type": "object", "properties": optional}}]
    constraint = grammars.tool_calls(tools, "phi", required=True, parallel=False)
    constraint.accept(phi.id_of("<|tool_call|>"))
    assert spells(constraint, phi, '[{"name": "f", "arguments": {"o3": null, "o47": null, "more": [1]}}]')
    assert allowed(constraint) == [phi.id_of("<|/tool_call|>")]


@pytest.mark.parametrize("chat_format", ["phi", "chatml"])
def test_calls_as_chat_writes_them_are_admitted(phi, grammars, chat_format):
    """What a history teaches is what a constraint demands."""
    calls = [
        ToolCall("1", "weather", {"city": "Köln"}),
        ToolCall("2", "now", {}),
        ToolCall("3", 'draw "it"', {"kind": "disc"}),
    ]
    written = format_named(chat_format).write([Message("assistant", "", tool_calls=tuple(calls))], (), False)
    said = [segment for segment in written if segment.learn and segment.text][:-1]  # all but the end of the turn
    constraint = grammars.tool_calls(TOOLS, chat_format, required=True, parallel=True)
    for segment in said:
        if segment.control:
            assert allowed(constraint) == [phi.id_of(segment.text)]
            constraint.accept(phi.id_of(segment.text))
        else:
            assert spells(constraint, phi, segment.text)
    assert allows(constraint, END)


@pytest.mark.parametrize("chat_format", ["phi", "chatml"])
def test_auto_is_free_text_until_a_call_opens(phi, grammars, chat_format):
    def auto():
        return grammars.tool_calls(TOOLS, chat_format, required=False, parallel=False)

    for text in ("", 'Rome < Köln, {"name": 1} <tool', "a\n\nb </tool_call> 🦊"):
        assert admits(auto(), phi, text)
    constraint, said = auto(), phi.encode("Let me see.\n")
    opening = [phi.id_of("<|tool_call|>")] if chat_format == "phi" else phi.encode("<tool_call>")
    for id in [*said, *opening]:
        assert allows(constraint, id)
        constraint.accept(id)
    ids = [*said, *opening, *wander(constraint, 5)]
    assert constraint.done
    content, [call] = calls_in(phi, ids, chat_format)
    assert content.strip() == "Let me see." and proper(call)


def test_auto_in_tags_constrains_however_the_tag_is_cut(phi, grammars):
    """`<tool_call>` as ordinary tokens: any cut of it opens the call."""
    dice = random.Random(3)
    for _ in range(10):
        constraint = grammars.tool_calls(TOOLS, "chatml", required=False, parallel=False)
        rest = "ok <tool_call>"
        while rest:
            cut = dice.randint(1, len(rest))
            ids = phi.encode(rest[:cut])
            for id in ids:
                assert allows(constraint, id)
                constraint.accept(id)
            rest = rest[cut:]
        assert phi.decode(constraint.forced()).startswith('{"')
