"""The formats against the official templates run by Jinja, character by character; and their tool-enabled forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.chat import Message, ToolCall, format_named, format_of_template, format_of_tokenizer
from phi4mini.chat.templates import Phi, in_call_order
from phi4mini.errors import BadInput
from tests.tokenizer.vocabularies import small

ROLES = {
    "phi": ["system", "user", "assistant", "tool", "tool_response"],
    "phi-reasoning": ["system", "user", "assistant", "tool", "tool_response"],
    "phi-3.5": ["system", "user", "assistant"],
    "phi-3": ["system", "user", "assistant"],
    "phi-4": ["system", "user", "assistant"],
    "chatml": ["system", "user", "assistant", "tool"],
    "smollm": ["system", "user", "assistant", "tool"],
}


def written(name: str, messages: list[Message], functions: list[dict], add_generation_prompt: bool) -> str:
    return "".join(part.text for part in format_named(name).write(messages, functions, add_generation_prompt))


@pytest.mark.parametrize("name", ROLES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_text_is_the_official_templates(jinja, name, data):
    turns = st.tuples(st.sampled_from(ROLES[name]), st.text(max_size=8))
    messages = [{"role": role, "content": content} for role, content in data.draw(st.lists(turns, max_size=5))]
    for message in messages:
        if (
            name.startswith("phi")
            and name not in ("phi-3.5", "phi-3", "phi-4")
            and message["role"] == "system"
            and data.draw(st.booleans())
        ):
            message["tools"] = '[{"name": "f"}]'
    prompt = data.draw(st.booleans())
    ours = [Message(message["role"], message["content"], tools=message.get("tools")) for message in messages]
    assert written(name, ours, [], prompt) == jinja(name, messages, prompt)


KNOWN_BY_HASH = ("phi", "phi-reasoning", "phi-3.5", "smollm")  # the official files; the others are read


def test_templates_are_recognised_and_others_are_not(templates):
    for name in KNOWN_BY_HASH:
        template = templates[name]
        assert format_of_template(template) == format_of_template(template.replace("\n", "\r\n")) == name
        assert format_of_template(template.replace("\n", "\\n") + "\n") == name
        assert format_of_template(template + "{{ 7 * 7 }}") is None
    assert format_of_template(None) is None
    with pytest.raises(
        BadInput, match=r"unknown chat format 'alpaca'; known: phi, phi-reasoning, phi-3\.5, phi-3, phi-4, chatml"
    ):
        format_named("alpaca")


def test_format_by_the_tokens_there_are(phi, chatml):
    assert format_of_tokenizer(phi).name == "phi"
    for other in (chatml, small(control=()), small(control=(*Phi.tokens, "<|im_start|>")), small(control=Phi.needs)):
        with pytest.raises(BadInput, match="no chat format certain"):
            format_of_tokenizer(other)


FUNCTION = {"name": "weather", "description": "Température", "parameters": {"city": {"type": "str"}}}
CALLS = (ToolCall("1", "weather", {"city": "Paris"}), ToolCall("2", "weather", {"city": "Köln"}))
CONVERSATION = [
    Message("user", "q"),
    Message("assistant", "Let me see.", tool_calls=CALLS),
    Message("tool", "no data", tool_call_id="2"),
    Message("tool", '{"t": 7}', tool_call_id="1"),
    Message("assistant", "7 degrees"),
]


def test_phi_with_tools():
    assert written("phi", CONVERSATION, [FUNCTION], True) == (
        "<|system|>You are a helpful assistant with some tools."
        '<|tool|>[{"name": "weather", "description": "Température", "parameters": {"city": {"type": "str"}}}]'
        "<|/tool|><|end|>"
        "<|user|>q<|end|><|assistant|>Let me see."
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}, '
        '{"name": "weather", "arguments": {"city": "Köln"}}]<|/tool_call|><|end|>'
        '<|tool_response|>{"t": 7}<|end|><|tool_response|>"no data"<|end|>'
        "<|assistant|>7 degrees<|end|><|assistant|>"
    )


def test_phi_puts_tools_on_the_system_turn_there_is():
    text = written("phi", [Message("system", "Be kind."), Message("user", "q")], [FUNCTION], False)
    assert text.startswith('<|system|>Be kind.<|tool|>[{"name": "weather"')
    assert text.endswith("<|/tool|><|end|><|user|>q<|end|><|endoftext|>")
    with pytest.raises(BadInput, match=r"messages\[0\].tools and the tools argument are both given"):
        written("phi", [Message("system", "x", tools="[]")], [FUNCTION], True)


def test_phi_reasoning_with_tools():
    assert written("phi-reasoning", [Message("user", "q")], [{"name": "f"}], True) == (
        "<|system|>Your name is Phi, an AI math expert developed by Microsoft."
        ' You are a helpful assistant with some tools.<|tool|>[{"name": "f"}]<|/tool|><|end|>'
        "<|user|>q<|end|><|assistant|>"
    )


def test_chatml_with_tools():
    alone = written("chatml", CONVERSATION[:1], [{"name": "f"}], True)
    assert alone.startswith("<|im_start|>system\nYou can call these functions:\n<tools>")
    text = written("smollm", CONVERSATION[:3], [{"name": "f"}], True)
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\n\n"
        'You can call these functions:\n<tools>[{"name": "f"}]</tools>\n'
    )
    assert text.endswith(
        "<|im_start|>assistant\nLet me see.\n"
        '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>\n'
        '<tool_call>{"name": "weather", "arguments": {"city": "Köln"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nno data<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_a_format_has_no_words_for():
    with pytest.raises(BadInput, match=r"'phi-3.5' has no tools"):
        written("phi-3.5", [], [FUNCTION], True)
    with pytest.raises(BadInput, match=r"'phi-3.5' has no turn of role 'tool'"):
        written("phi-3.5", [Message("tool", "x")], [], True)
    with pytest.raises(BadInput, match="takes tools as an argument"):
        written("chatml", [Message("system", "x", tools="[]")], [], True)


def test_results_come_in_the_order_of_the_calls():
    ordered = in_call_order(CONVERSATION)
    assert [message.tool_call_id for message in ordered] == [None, None, "1", "2", None]
    twice = in_call_order(CONVERSATION * 2)
    assert twice == ordered * 2
    with pytest.raises(BadInput, match=r"messages\[1\].tool_call_id '9' answers no call"):
        in_call_order([CONVERSATION[1], Message("tool", "x", tool_call_id="9")])
    with pytest.raises(BadInput, match=r"messages\[1\].tool_call_id '1' answers no call"):
        in_call_order([Message("user", "q"), Message("tool", "x", tool_call_id="1")])
