"""Tools in the formats of Phi models: where they are written, and which formats refuse them."""

from __future__ import annotations

import pytest

from phi4mini.chat import Message
from phi4mini.errors import BadInput
from tests.chat.templates.writing import CONVERSATION, FUNCTION, written


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
