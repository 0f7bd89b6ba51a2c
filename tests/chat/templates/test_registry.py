"""Every format against its official template run by Jinja, character by character; and a name that is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.chat import Message, format_named, format_names
from phi4mini.errors import BadInput
from tests.chat.templates.writing import written

ROLES = {
    "phi": ["system", "user", "assistant", "tool", "tool_response"],
    "phi-reasoning": ["system", "user", "assistant", "tool", "tool_response"],
    "phi-3.5": ["system", "user", "assistant"],
    "phi-3": ["system", "user", "assistant"],
    "phi-4": ["system", "user", "assistant"],
    "chatml": ["system", "user", "assistant", "tool"],
    "smollm": ["system", "user", "assistant", "tool"],
}


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


def test_every_format_is_tested_against_a_template():
    assert set(ROLES) == set(format_names())


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        BadInput, match=r"unknown chat format 'alpaca'; known: phi, phi-reasoning, phi-3\.5, phi-3, phi-4, chatml"
    ):
        format_named("alpaca")
