"""An answer can be sent back as history (rows RQ1, RQ4): in every dialect, streamed or whole, cut anywhere.

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

from phi4mini.chat import Event, Message, ReplyReader, format_named, render, reply_of
from phi4mini.llm.results import Reply
from phi4mini.server.dialects.answer_parts import Parts, closed_parts, joined
from phi4mini.server.dialects.anthropic import messages
from phi4mini.server.dialects.openai.chat import _ChatWriter
from phi4mini.server.dialects.openai.responses_output import ResponseWriter
from tests.server.conversations import DIALECTS, GO, MARKS, TOOLS, rendered, tokenizer_of, turns_of
from tests.server.process import CHAT, asking


def ids_of(format: str, pieces: Iterable[str]) -> list[int]:
    """Ids of pieces of text, of which those that are the format's control tokens are control tokens."""
    tokenizer, made, text = tokenizer_of(format), [], ""
    for piece in [*pieces, ""]:
        control = piece in format_named(format).tokens
        if control or not piece:
            made, text = [*made, *tokenizer.encode(text)], ""
        made += [tokenizer.id_of(piece)] if control else []
        text += "" if control else piece
    return made


def read(format: str, ids: list[int]) -> list[Event]:
    reader = ReplyReader(tokenizer_of(format), format, TOOLS)
    return [event for id in ids for event in reader.push(id)] + reader.finish()


# ---- what a client has of an answer, as JSON


def of_chat(events: list[Event], streamed: bool) -> str:
    completion = _ChatWriter(None, SimpleNamespace(runs=[None]), False)
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
    answer = ResponseWriter(call, None, choices)
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
    asked = render(GO, TOOLS, spoken, tokenizer=tokenizer_of(format), format=format).ids
    asked = asked if spoken or format == "chatml" else asked[:-1]  # less the token that ends a finished conversation
    assert again[: len(asked)] == asked
    end = tokenizer_of(format).id_of(format_named(format).stop_tokens[0])
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
    assert tokenizer_of(format).decode(again).startswith(tokenizer_of(format).decode(said))
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
    decode = tokenizer_of(format).decode
    assert decode(again).startswith(decode([*rendered(format, GO), *ids]))
    assert decode(again).count("uno") == 1


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
