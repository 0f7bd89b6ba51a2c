"""An assistant's turn in its parts: order, groups of calls, and a broken call's text once."""

from __future__ import annotations

import pytest

from phi4mini.chat import Message, ToolCall
from phi4mini.chat.assistant_turn import texts_and_calls
from phi4mini.chat.messages import call_of

A, B = ToolCall("1", "f", {}), ToolCall("2", "f", {})
CUT = call_of("3", "f", '{"a": "cu', "here")
HEAD = '{"name": "f", "arguments": {"a": "cu'


def test_content_comes_before_calls_unless_an_order_is_known():
    assert texts_and_calls(Message("assistant", "x", tool_calls=(A, B))) == ["x", [A, B]]
    assert texts_and_calls(Message.of_parts([A, "x", B, A, "y"])) == [[A], "x", [B, A], "y"]
    assert texts_and_calls(Message("assistant", "")) == [""]
    turn = Message.of_parts(["x", A, "y"])
    assert (turn.content, turn.tool_calls) == ("xy", (A,))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([HEAD, CUT], [[CUT]]),
        ([f"[{HEAD}", CUT], [[CUT]]),
        ([f"Let me see.[{HEAD}", CUT], ["Let me see.", [CUT]]),
        ([f"Let me see. [{HEAD}", CUT], ["Let me see.", [CUT]]),
        ([f"functools[{HEAD}", CUT], [[CUT]]),
        ([f"<call>{HEAD}", CUT], [[CUT]]),
        ([A, CUT, f", {HEAD}"], [[A, CUT]]),
        ([f", {HEAD}", A, CUT], [[A, CUT]]),
        ([CUT, f"[{HEAD}"], [[CUT]]),
        ([f"[{HEAD} and more", CUT], [f"[{HEAD} and more", [CUT]]),
        (["other text", CUT], ["other text", [CUT]]),
        ([HEAD, A], [HEAD, [A]]),
    ],
)
def test_a_broken_call_that_is_also_text_is_said_once(said, expected):
    assert texts_and_calls(Message.of_parts(said), "<call>") == expected
