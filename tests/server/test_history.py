"""What the server said can be sent back, in every dialect, streamed or whole, cut anywhere.

The answers are made of ids, read by the reader and written by each dialect's own functions; the client puts a stream
together as the SDKs do. What stands in for a run only says that the answer was cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.chat import Event, Message, ReplyReader, format_named, messages_from, render, reply_of
from phi4mini.errors import BadInput
from phi4mini.results import Reply
from phi4mini.server import blocks, items, messages
from phi4mini.server.bodies import parsed
from phi4mini.server.chat import _Completion
from phi4mini.server.history import chat_turns, tools_of
from phi4mini.server.parts import Parts, closed_parts, joined
from phi4mini.server.response_events import ResponseAnswer
from phi4mini.tokenizer import Tokenizer
from tests.server.process import CHAT, asking
from tests.tokenizer.vocabularies import small

PARAMETERS = {"type": "object", "properties": {"a": {}}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}]
GO = [{"role": "user", "content": "go"}]
DIALECTS = ["chat", "responses", "messages"]
MARKS = {"phi": ("<|tool_call|>", "<|/tool_call|>"), "chatml": ("<tool_call>", "</tool_call>")}
TOKENIZERS = {"phi": Tokenizer.phi4_mini(), "chatml": small()}


def ids_of(format: str, pieces: Iterable[str]) -> list[int]:
    """Ids of pieces of text, of which those that are the format's control tokens are control tokens."""
    tokenizer, made, text = TOKENIZERS[format], [], ""
    for piece in [*pieces, ""]:
        control = piece in format_named(format).tokens
        if control or not piece:
            made, text = [*made, *tokenizer.encode(text)], ""
        made += [tokenizer.id_of(piece)] if control else []
        text += "" if control else piece
    return made


def read(format: str, ids: list[int]) -> list[Event]:
    reader = ReplyReader(TOKENIZERS[format], format, TOOLS)
    return [event for id in ids for event in reader.push(id)] + reader.finish()


# ---- what a client has of an answer, as JSON


def of_chat(events: list[Event], streamed: bool) -> str:
    completion = _Completion(None, SimpleNamespace(runs=[None]), False)
    if not streamed:
        reply = reply_of(events)
        return msgspec.json.encode(completion._choice(0, Reply(reply.content, reply.tool_calls)).message).decode()
    said: dict[str, Any] = {"role": "assistant", "content": ""}
    for event in joined(events):
        delta = completion._delta(0, event) or {}
        said["content"] += delta.get("content", "")
        for call in delta.get("tool_calls", ()):
            calls = said.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                calls.append(call)
            else:
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]
    return json.dumps(said)


def of_responses(events: list[Event], streamed: bool) -> str:
    run = SimpleNamespace(stopped=False, logprobs_from=lambda start: [])
    run.request = SimpleNamespace(finish_reason="length")
    choices = SimpleNamespace(runs=[run], events=[events])
    call = SimpleNamespace(service=SimpleNamespace(now=lambda: 0))
    answer = ResponseAnswer(call, None, choices)
    if not streamed:
        return json.dumps([answer.item(part) for part in closed_parts(events)])
    parts, done = Parts(), []
    for step in [step for event in joined(events) for step in parts.push(event)] + parts.finish():
        for sent in answer._events(step):
            event = json.loads(sent.partition(b"\ndata: ")[2])
            done += [event["item"]] if event["type"] == "response.output_item.done" else []
    return json.dumps(done)


def of_messages(events: list[Event], streamed: bool) -> str:
    if not streamed:
        return msgspec.json.encode([messages._block(part) for part in closed_parts(events)]).decode()
    parts, made = Parts(), []
    for step in [step for event in joined(events) for step in parts.push(event)] + parts.finish():
        event = json.loads(messages._step(step).partition(b"\ndata: ")[2])
        if event["type"] == "content_block_start":
            made.append(event["content_block"] | {"json": ""})
        elif event["type"] == "content_block_delta":
            made[-1]["text"] = made[-1].get("text", "") + event["delta"].get("text", "")
            made[-1]["json"] += event["delta"].get("partial_json", "")
    return f"[{', '.join(map(_assembled, made))}]"


def _assembled(block: dict[str, Any]) -> str:
    """A block as the SDK has it at the end; of broken JSON it keeps what it could read, here nothing."""
    if block["type"] == "text":
        return json.dumps({"type": "text", "text": block["text"]})
    try:
        json.loads(block["json"])
    except ValueError:
        block["json"] = "{}"
    head = json.dumps({key: block[key] for key in ("type", "id", "name")})
    return f'{head[:-1]}, "input": {block["json"]}}}'


SAID = {"chat": of_chat, "responses": of_responses, "messages": of_messages}


def sent_back(dialect: str, said: str, backwards: bool = False) -> list[Message]:
    """The turns of a body that holds an answer as it came, a result for each of its calls, and one more question."""
    answer = json.loads(said)
    if dialect == "chat":
        ids = [call["id"] for call in answer.get("tool_calls") or ()]
        results = [{"role": "tool", "tool_call_id": id, "content": "ok"} for id in ids]
    elif dialect == "responses":
        ids = [item["call_id"] for item in answer if item["type"] == "function_call"]
        results = [{"type": "function_call_output", "call_id": id, "output": "ok"} for id in ids]
    else:
        ids = [block["id"] for block in answer if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": id, "content": "ok"} for id in ids]
    results = results[::-1] if backwards else results
    if dialect == "messages":
        said, results = f'{{"role": "assistant", "content": {said}}}', [{"role": "user", "content": results}]
    elif dialect == "responses":
        said = said[1:-1]
    listed = ", ".join(filter(None, [json.dumps(GO[0]), said, *map(json.dumps, results), json.dumps(GO[0])]))
    return turns_of(dialect, listed)


def turns_of(dialect: str, listed: str, ignored: list[str] | None = None) -> list[Message]:
    """The turns of a body's conversation, which is given as JSON between the brackets."""
    ignore = (ignored if ignored is not None else []).extend
    if dialect == "responses":
        return messages_from(items.turns_from(parsed(f'{{"input": [{listed}]}}'.encode())["input"], None, ignore))
    given = parsed(f'{{"messages": [{listed}]}}'.encode())["messages"]
    return messages_from(chat_turns(given, ignore) if dialect == "chat" else blocks.turns_from(given, None, ignore))


def rendered(format: str, turns: list[Any]) -> list[int]:
    return render(turns, TOOLS, tokenizer=TOKENIZERS[format], format=format).ids


# ---- our own answers

FRAGMENTS = [
    *(
        '{"name": "f", "arguments": {"a": ',
        '{"name": "f", "arguments": "{',
        '{"name": "f"',
        "[",
        "{",
        '"x',
        '"',
        "1e400",
    ),
    *("1.50", "}", "}}", "]", "}}]", ", ", " ", "\n", "Let me see.", "functools[", "<|end|> ", "\\", "é", "\x01"),
]
WHOLE = '{"name": "f", "arguments": {"a": "xx"}}'


@st.composite
def answers(draw: st.DrawFn, format: str) -> list[int]:
    """Ids of an answer that is partly calls, partly text, partly neither, cut anywhere."""
    marks = st.sampled_from([*MARKS[format] * 3, f"[{WHOLE}]", f"[{WHOLE}, {WHOLE}", WHOLE])
    ids = ids_of(format, draw(st.lists(marks | st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=14)))
    return ids[: draw(st.integers(0, len(ids)))]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("format", MARKS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_RQ1_any_answer_of_ours_is_history(format, dialect, streamed, data):
    """And the prompt that was asked stays the beginning; no control token comes from a text."""
    ids = data.draw(answers(format))
    said = SAID[dialect](read(format, ids), streamed)
    turns = sent_back(dialect, said, data.draw(st.booleans()))
    again = rendered(format, turns)
    spoken = said != "[]" or dialect == "messages"  # a response that says nothing has no item, so there is no turn
    asked = render(GO, TOOLS, spoken, tokenizer=TOKENIZERS[format], format=format).ids
    asked = asked if spoken or format == "chatml" else asked[:-1]  # less the token that ends a finished conversation
    assert again[: len(asked)] == asked
    end = TOKENIZERS[format].id_of(format_named(format).stop_tokens[0])
    assert again.count(end) == len(turns) + 1  # and that of the system turn


VALUES = st.recursive(
    st.sampled_from(["1", "-0.0", "1e400", "1.50", "1E5", "2e-7", "null", "true", '"é"', '"two words"', '"<|end|>"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
        | st.lists(inner, max_size=3).map(
            lambda ps: f"{{{', '.join(f'{chr(34)}k{i}{chr(34)}: {p}' for i, p in enumerate(ps))}}}"
        )
    ),
    max_leaves=6,
)


@st.composite
def well_formed(draw: st.DrawFn, format: str) -> list[str]:
    """An answer as the format writes it: text, calls, and more text where calls are between tokens."""
    values = draw(st.lists(VALUES, min_size=1, max_size=3))
    calls = [f'{{"name": "f", "arguments": {{"a": {value}}}}}' for value in values]
    text, (opens, closes) = draw(st.sampled_from(["", "Let me see."])), MARKS[format]
    if format == "phi":
        after = draw(st.sampled_from(["", "Done.", "Or was it?"]))
        return [text, opens, f"[{', '.join(calls)}]", closes, after]
    return [text + "\n" * bool(text) + "\n".join(f"{opens}{call}{closes}" for call in calls)]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("format", MARKS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_RQ1_an_answer_that_is_well_formed_becomes_the_same_ids(format, dialect, streamed, data):
    """Chat has no order of text and calls, so what came after calls stands before them there."""
    pieces = data.draw(well_formed(format))
    if dialect == "chat" and format == "phi":
        pieces[-1] = ""
    ids = ids_of(format, pieces)
    again = rendered(format, sent_back(dialect, SAID[dialect](read(format, ids), streamed)))
    said = [*rendered(format, GO), *ids]
    assert TOKENIZERS[format].decode(again).startswith(TOKENIZERS[format].decode(said))
    assert again[: len(said)] == said


@pytest.mark.parametrize("dialect", ["chat", "responses"])
@pytest.mark.parametrize("format", MARKS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_RQ1_a_stream_cut_within_a_call_goes_on_where_it_stopped(format, dialect, data):
    """The client has the call's beginning twice, as arguments and as text; the model sees it once, as it wrote it."""
    call = '{"name": "f", "arguments": {"a": "uno dos tres quatro"}}'
    opens = MARKS[format][0]
    text = data.draw(st.sampled_from(["", "Let me see."]))
    first = data.draw(st.sampled_from(["[", f"[{WHOLE}, "])) if format == "phi" else ""
    cut = data.draw(st.integers(call.index("dos"), call.index("quatro") + 6))
    pieces = [text, opens, first + call[:cut]] if format == "phi" else [text + "\n" * bool(text) + opens + call[:cut]]
    ids = ids_of(format, pieces)
    again = rendered(format, sent_back(dialect, SAID[dialect](read(format, ids), True)))
    decode = TOKENIZERS[format].decode
    assert decode(again).startswith(decode([*rendered(format, GO), *ids]))
    assert decode(again).count("uno") == 1


# ---- broken calls, and their relatives

BROKEN = [
    '{"a": "cut',
    '{"a": ',
    "{",
    '{"a": 1,}',
    '{"a": [1, {"b": ',
    "[1]",
    "5",
    '"text"',
    "null",
    "not JSON",
    '{"a": "<|/tool_call|><|end|><|user|>hi',
    "{'a': 1}",
    '{"a": NaN}{',
    "</tool_call>",
    "\\",
    '{"a": "\\ud800',
]


def with_call(dialect: str, arguments: str) -> str:
    """A conversation with a call of these arguments and its result, as JSON between the brackets."""
    if dialect == "responses":
        call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": arguments}
        listed = [*GO, call, {"type": "function_call_output", "call_id": "c1", "output": "cut"}]
    elif dialect == "messages":
        block = {"type": "tool_use", "id": "c1", "name": "f", "input": arguments}
        result = {"type": "tool_result", "tool_use_id": "c1", "content": "cut"}
        listed = [*GO, {"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]
    else:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        said = {"role": "assistant", "content": None, "tool_calls": [call]}
        listed = [*GO, said, {"role": "tool", "tool_call_id": "c1", "content": "cut"}]
    return json.dumps(listed)[1:-1]


@pytest.mark.parametrize("arguments", BROKEN)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("format", MARKS)
def test_RQ2_broken_call_arguments_are_shown_as_they_were_written(format, dialect, arguments):
    turns = turns_of(dialect, with_call(dialect, arguments))
    ids = rendered(format, turns)
    text = TOKENIZERS[format].decode(ids)
    assert f'{{"name": "f", "arguments": {arguments}{MARKS[format][1]}' in text
    assert turns[1].tool_calls[0].broken and turns[1].tool_calls[0].text == arguments
    end = TOKENIZERS[format].id_of(format_named(format).stop_tokens[0])
    assert ids.count(end) == len(turns) + 1


@pytest.mark.parametrize("arguments", [[1], 5, True, 1.5])
def test_RQ2_arguments_that_are_neither_text_nor_object_are_refused_with_their_place(arguments):
    with pytest.raises(BadInput, match=r"messages\[1\]\.tool_calls\[0\]\.function\.arguments must be a JSON object"):
        turns_of("chat", with_call("chat", arguments))


def test_RQ2_a_server_takes_broken_arguments(phi):
    for path, dialect, more in (
        (CHAT, "chat", {"max_tokens": 2}),
        ("/v1/responses", "responses", {"max_output_tokens": 2}),
        ("/v1/messages", "messages", {"max_tokens": 2, "model": "default"}),
    ):
        field = "input" if dialect == "responses" else "messages"
        answer = phi.ask(path, {field: json.loads(f"[{with_call(dialect, BROKEN[0])}]"), **more})
        assert answer.status == 200, answer.body


# ---- order


def call_item(id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": f'{{"a": "{id}"}}'}


def output_item(id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": f"result {id}"}


def use(id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "f", "input": {"a": id}}


def result(id: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": f"result {id}"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def said(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


NOTE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "noted"}]}
ORDERS = [  # dialect, conversation, roles, what the model sees in this order
    ("messages", [*GO, said(use("c1"), text("noted")), user(result("c1"))], "uat", ["c1", "noted", "result c1"]),
    ("messages", [*GO, said(text("a"), use("c1"), text("b"), use("c2")), user(result("c2"), result("c1"))], "uatt",
     ['"a"', "c1", "b", "c2", "result c1", "result c2"]),
    ("messages", [*GO, said(use("c1")), user(text("wait"), result("c1"))], "uaut", ["c1", "wait", "result c1"]),
    ("messages", [*GO, said(use("c1")), user(text("wait")), user(result("c1"))], "uaut", ["c1", "wait", "result c1"]),
    ("messages", [*GO, said(), user()], "uau", []),
    ("messages", [*GO, said(use("c1")), user({**result("c1"), "content": []})], "uat", ["c1"]),
    ("messages", [*GO, said(use("c1")), user({**result("c1"), "content": None}), user()], "uatu", ["c1"]),
    ("responses", [*GO, call_item("c1"), {"role": "user", "content": "wait"}, output_item("c1")], "uaut",
     ["c1", "wait", "result c1"]),
    ("responses", [*GO, call_item("c1"), call_item("c2"), output_item("c2"), output_item("c1")], "uatt",
     ["c1", "c2", "result c1", "result c2"]),
    ("responses", [*GO, call_item("c1"), NOTE, output_item("c1")], "uat", ["c1", "noted", "result c1"]),
    ("responses", [*GO, NOTE, call_item("c1"), output_item("c1")], "uat", ["noted", "c1", "result c1"]),
    ("responses", [*GO, call_item("c1"), output_item("c1"), call_item("c2"), output_item("c2")], "uatat",
     ["c1", "result c1", "c2", "result c2"]),
    ("responses", [*GO, {**NOTE, "content": []}, {"role": "user", "content": []}], "uau", []),
    ("chat", [*GO, {"role": "assistant", "tool_calls": [
        {"id": id, "function": {"name": "f", "arguments": json.dumps({"a": id})}} for id in ("c1", "c2")]},
        {"role": "user", "content": "wait"}, {"role": "tool", "tool_call_id": "c2", "content": "result c2"},
        {"role": "tool", "tool_call_id": "c1", "content": "result c1"}], "uautt",
     ["c1", "c2", "wait", "result c1", "result c2"]),
    ("chat", [*GO, {"role": "assistant", "content": []}, {"role": "user", "content": []}], "uau", []),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "conversation", "roles", "order"), ORDERS, ids=range(len(ORDERS)))
@pytest.mark.parametrize("format", MARKS)
def test_RQ3_text_and_calls_and_results_stay_where_they_were(format, dialect, conversation, roles, order):
    turns = turns_of(dialect, json.dumps(conversation)[1:-1])
    assert "".join(turn.role[0] for turn in turns) == roles
    shown, at = TOKENIZERS[format].decode(rendered(format, turns)).partition("go")[2], 0
    for part in order:
        at = shown.index(part.strip('"'), at) + 1


def test_RQ3_a_result_without_a_call_before_it_is_refused_by_the_place_that_was_sent():
    for dialect, conversation, told in (
        (
            "messages",
            [*GO, said(use("c1")), user(text("x"), result("zz"))],
            r"messages\[2\]\.content\[1\]\.tool_call_id",
        ),
        ("responses", [*GO, output_item("zz")], r"input\[1\]\.tool_call_id"),
        ("responses", [output_item("c1"), call_item("c1")], r"input\[0\]\.tool_call_id"),
    ):
        with pytest.raises(BadInput, match=told):
            rendered("phi", turns_of(dialect, json.dumps(conversation)[1:-1]))


# ---- numbers

NUMBERS = ["1e400", "-1e400", "1.50", "1E5", "1e5", "-0.0", "0.1000000000000000055", "1e-400", "100000000000000000000"]
NUMBERS += ["123456789012345678901234567890", "2.0", "5e-324"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("form", ['{{"name": "f", "arguments": {{"a": {0}}}}}',
                                  '{{"type": "function", "function": {{"name": "f", "arguments": {{"a": {0}}}}}}}',
                                  '{{"arguments": {{"a": {0}}}, "name": "f"}}',
                                  '{{"name": "f", "arguments": "{{\\"a\\": {0}}}"}}'])  # fmt: skip
def test_RQ4_a_number_is_the_text_that_was_written(form, number):
    """Also where arguments are wrapped, come before the name, or are a JSON text; in each dialect, there and back."""
    written = f'{{"a": {number}}}'
    events = read("phi", ids_of("phi", [MARKS["phi"][0], f"[{form.format(number)}]", MARKS["phi"][1]]))
    assert [call.json for call in reply_of(events).tool_calls] == [written]
    for dialect in DIALECTS:
        for streamed in (False, True):
            told = SAID[dialect](events, streamed)
            assert (written if dialect == "messages" else json.dumps(written)) in told.replace('":{', '": {')
            (call,) = sent_back(dialect, told)[1].tool_calls
            assert call.json == written and "Infinity" not in told


def test_RQ4_numbers_out_of_range_elsewhere_are_named(demo):
    for body in (asking(temperature=0) | {"temperature": "@"}, asking() | {"logit_bias": {"5": "@"}}):
        answer = demo.ask(CHAT, json.dumps(body).replace('"@"', "1e400").encode())
        assert answer.status == 400 and answer.json["error"]["param"] in ("temperature", "logit_bias[5]")
    assert (
        demo.ask(
            CHAT, json.dumps(asking(max_tokens=1)).replace('"temperature": 0', '"temperature": 0.50').encode()
        ).status
        == 200
    )


# ---- what else is in histories


HELD = [  # dialect, item, what is left of it, what is named
    ("chat", {"role": "assistant", "content": None}, "", []),
    ("chat", {"role": "assistant"}, "", []),
    ("chat", {"role": "assistant", "content": "a", "reasoning_content": "hm"}, "a", ["messages.reasoning_content"]),
    ("chat", {"role": "assistant", "content": "a", "reasoning": "hm"}, "a", ["messages.reasoning"]),
    ("chat", {"role": "assistant", "content": "a", "reasoning_content": None, "refusal": None}, "a", []),
    ("chat", said({"type": "thinking", "thinking": "hm"}, text("a")), "a", ["messages.content.thinking"]),
    ("chat", said({"type": "refusal", "refusal": "no"}), "no", []),
    ("responses", {"type": "message", "role": "assistant", "content": None}, "", []),
    ("responses", {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, "no", []),
    ("messages", said({"type": "thinking", "thinking": "hm", "signature": "s"}, text("a")), "a",
     ["messages.content.thinking"]),
    ("messages", said({"type": "redacted_thinking", "data": "x"}, text("a")), "a",
     ["messages.content.redacted_thinking"]),
    ("messages", said({"type": "thinking", "thinking": "hm"}), "", ["messages.content.thinking"]),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "item", "content", "named"), HELD, ids=range(len(HELD)))
def test_RQ11_null_contents_and_thoughts_are_taken_or_named(dialect, item, content, named):
    ignored: list[str] = []
    turns = turns_of(dialect, json.dumps([*GO, item, *GO])[1:-1], ignored)
    assert [turn.content for turn in turns] == ["go", content, "go"] and ignored == named


def test_RQ11_a_null_result_is_an_empty_one_and_a_reasoning_item_none():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]}
    null = {"role": "tool", "tool_call_id": "c", "content": None}
    assert turns_of("chat", json.dumps([*GO, call, null])[1:-1])[2].content == ""
    null = {"type": "function_call_output", "call_id": "c1", "output": None}
    assert turns_of("responses", json.dumps([call_item("c1"), null])[1:-1])[1].content == ""
    ignored: list[str] = []
    between = {"type": "reasoning", "summary": [], "encrypted_content": None}
    turns = turns_of("responses", json.dumps([*GO, between, call_item("a"), between, call_item("b")])[1:-1], ignored)
    assert len(turns) == 2 and len(turns[1].tool_calls) == 2, "calls beside it are one turn, as they were made"
    assert set(ignored) == {"input.reasoning"}
    with pytest.raises(BadInput, match=r"messages\[0\]\.content is missing or null"):
        turns_of("chat", '{"role": "user", "content": null}')


def test_RQ11_a_server_names_what_it_left_out(demo):
    thought = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    answer = demo.ask(CHAT, {"messages": [*GO, thought, *GO], "max_tokens": 1})
    assert answer.status == 200 and "messages.reasoning_content" in answer.headers["x-ignored-fields"]


# ---- functions, from before there were tools

FUNCTION = {"name": "f", "parameters": PARAMETERS}


def test_RQ12_functions_and_their_results_are_tools_and_theirs():
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1.50}'}}
    told = {"role": "function", "name": "f", "content": "ok"}
    turns = turns_of("chat", json.dumps([*GO, call, told, call, told])[1:-1])
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [turn.tool_call_id for turn in turns if turn.role == "tool"] == ["function_call_1", "function_call_3"]
    modern = [{"id": "x", "function": {"name": "f", "arguments": '{"a": 1.50}'}}]
    as_tools = [{"role": "assistant", "tool_calls": modern}, {"role": "tool", "tool_call_id": "x", "content": "ok"}]
    assert rendered("phi", turns[:3]) == rendered("phi", [*GO, *as_tools])
    with pytest.raises(BadInput, match=r"messages\[1\]\.name: no function_call of 'f'"):
        turns_of("chat", json.dumps([*GO, told])[1:-1])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", "auto"),
        ("none", "none"),
        ({"name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"name": "g"}, 400),
        ("required", 400),
        ("f", 400),
        ({}, 400),
        ({"function": {"name": "f"}}, 400),
        (5, 400),
    ],
)
def test_RQ12_function_call_is_tool_choice(choice, expected):
    if expected == 400:
        with pytest.raises(Exception, match="function_call must be none, auto or"):
            tools_of([FUNCTION], choice)
    else:
        assert tools_of([FUNCTION], choice) == ([{"type": "function", "function": FUNCTION}], expected)


def test_RQ12_who_sends_functions_gets_a_function_call(demo):
    asked = {
        "functions": [FUNCTION | {"parameters": {"type": "object", "properties": {}}}],
        "function_call": {"name": "f"},
    }
    whole = demo.ask(CHAT, asking("Go", 60, **asked))
    (choice,) = whole.json["choices"]
    assert choice["finish_reason"] == "function_call" and choice["message"]["function_call"]["name"] == "f"
    assert "tool_calls" not in choice["message"] and "x-ignored-fields" not in whole.headers
    deltas = [event["choices"][0] for event in demo.ask(CHAT, asking("Go", 60, **asked, stream=True)).events[:-1]]
    parts = [delta["delta"]["function_call"] for delta in deltas if "function_call" in delta["delta"]]
    assert parts[0]["name"] == "f" and deltas[-1]["finish_reason"] == "function_call"
    assert "".join(part["arguments"] for part in parts) == choice["message"]["function_call"]["arguments"]
    told = {"role": "function", "name": "f", "content": "ok"}
    after = {"messages": [*GO, choice["message"], told], "max_tokens": 1, "functions": asked["functions"]}
    assert demo.ask(CHAT, after).status == 200
    wrong = demo.ask(CHAT, asking("Go", 1, functions=[{"name": ""}]))
    assert wrong.json["error"]["message"].startswith("functions[0].name") and wrong.status == 400


# ---- parts of text

JOINED = [
    ("chat", {"role": "user", "content": [text("a"), text("b")]}, "a\nb"),
    ("chat", {"role": "system", "content": [text("a"), text("b"), text("c")]}, "a\nb\nc"),
    ("chat", {"role": "developer", "content": [text("a"), text("")]}, "a\n"),
    ("chat", {"role": "user", "content": [text("a")]}, "a"),
    ("chat", {"role": "assistant", "content": [text("a"), text("b")]}, "a\nb"),
    ("messages", user(text("a"), text("b")), "a\nb"),
    ("messages", user(text("a\n"), text("b")), "a\n\nb"),
    ("messages", {"role": "system", "content": [text("a"), text("b")]}, "a\nb"),
    ("messages", said(text("a"), text("b")), "ab"),
    ("responses", {"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}, "a\nb"),
    ("responses", {"role": "developer", "content": [{"type": "input_text", "text": t} for t in "abc"]}, "a\nb\nc"),
    ("responses", {"role": "assistant", "content": [{"type": "output_text", "text": t} for t in "ab"]}, "ab"),
]


@pytest.mark.parametrize(("dialect", "message", "content"), JOINED, ids=range(len(JOINED)))
def test_RQ13_text_parts_are_joined_by_a_line_end(dialect, message, content):
    """But for what an assistant said in blocks or items, which followed each other."""
    (turn,) = turns_of(dialect, json.dumps(message))
    assert turn.content == content


def test_RQ13_parts_of_results_too():
    parts = [text("a"), text("b")]
    turns = turns_of("messages", json.dumps([said(use("c1")), user({**result("c1"), "content": parts})])[1:-1])
    assert turns[1].content == "a\nb"
    output = {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [{"type": "input_text", "text": t} for t in "ab"],
    }
    assert turns_of("responses", json.dumps([call_item("c1"), output])[1:-1])[1].content == "a\nb"


# ---- on the wire


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("new", [3, 8, 14, 20, 26, 33, 41])
def test_RQ1_on_the_wire_wherever_max_tokens_ends_it(phi, new, stream):
    """Two calls are asked for; the answer and a result for each call that the client sees go back."""
    schema = {"type": "object", "properties": {"a": {"enum": ["xxxxxxxx"]}}, "required": ["a"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    body = {"messages": GO, "tools": tools, "tool_choice": "required", "max_tokens": new, "stream": stream}
    answer = phi.ask(CHAT, body)
    assert answer.status == 200, answer.body
    if stream:
        said = {"role": "assistant", "content": "", "tool_calls": []}
        for delta in (event["choices"][0]["delta"] for event in answer.events[:-1] if event["choices"]):
            said["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    said["tool_calls"].append(call)
                else:
                    said["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    else:
        said = answer.json["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "ok"} for c in said.get("tool_calls") or ()]
    again = phi.ask(CHAT, {"messages": [*GO, said, *results, *GO], "tools": tools, "max_tokens": 1})
    assert again.status == 200, again.body
