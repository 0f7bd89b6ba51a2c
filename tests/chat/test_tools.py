"""Tools as functions, and calls checked against them."""

from __future__ import annotations

import pytest

from phi4mini.chat import ToolCall, check_call, functions_of
from phi4mini.errors import BadInput

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}, "required": ["city"]}}


def test_openai_form_and_bare_form_are_one():
    wrapped = {"type": "function", "function": {**WEATHER, "strict": True}}
    assert functions_of([wrapped]) == functions_of([WEATHER]) == [WEATHER]
    assert functions_of(None) == []


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ("weather", "must be a list of functions, got str"),
        ([3], r"tools\[0\] must be an object"),
        ([{"type": "web_search"}], r"tools\[0\].type is 'web_search'; only functions"),
        ([{"type": "function", "function": {}}], r"tools\[0\].function.name must be"),
        ([{"name": ""}], r"tools\[0\].function.name must be"),
        ([{"name": "f", "parameters": [1]}], r"tools\[0\].function.parameters must be an object"),
        ([{"name": "f"}, {"name": "f"}], "the function 'f' is given twice"),
    ],
)
def test_refused_with_its_place(tools, told):
    with pytest.raises(BadInput, match=told):
        functions_of(tools)


def test_check_call():
    assert check_call(ToolCall("1", "weather", {"city": "Paris"}), [WEATHER]) is None
    assert (
        check_call(ToolCall("1", "weather", {}), [WEATHER])
        == "the call of 'weather' lacks the required argument 'city'"
    )
    assert "the model called 'wether', which is not among the tools (weather)" in str(
        check_call(ToolCall("1", "wether", {}), [WEATHER])
    )
    assert check_call(ToolCall("1", "f", {}), [{"name": "f", "parameters": {"required": 3}}]) is None
