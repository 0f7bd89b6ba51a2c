"""Tools in the ChatML formats, described and called in our own words."""

from __future__ import annotations

from tests.chat.templates.writing import CONVERSATION, written


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
