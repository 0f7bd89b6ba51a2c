"""Results in the order of their calls; tools and roles that a format does not have."""

from __future__ import annotations

import pytest

from phi4mini.chat import Message
from phi4mini.chat.templates.chat_format import in_call_order
from phi4mini.errors import BadInput
from tests.chat.templates.writing import CONVERSATION, FUNCTION, written


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
