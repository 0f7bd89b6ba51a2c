"""JSON as it was written: texts of numbers, and values found as text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mini.chat.verbatim_json import Number, member, number, plain, to_json
from phi4mini.errors import BadInput

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = ["1e400", "-1e400", "1.50", "1E5", "1e5", "1e+5", "-0.0", "0.10", "1e-400", "2.0", "0.30000000000000004"]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_keeps_its_text_only_where_python_would_write_another(text):
    value = number(text)
    assert value == float(text) and isinstance(value, Number) == (repr(float(text)) != text)
    assert to_json({"a": [value]}) == f'{{"a": [{text}]}}'
    assert type(plain([{"a": value}])[0]["a"]) is float


@given(VALUES)
def test_without_numbers_of_ones_own_it_is_json_as_ever(value):
    assert to_json(value) == json.dumps(value, ensure_ascii=False)
    kept = to_json([number("1e400"), value])
    assert kept == f"[1e400, {json.dumps(value, ensure_ascii=False)}]"


@given(st.dictionaries(st.text(max_size=3), VALUES, min_size=1, max_size=4), st.sampled_from([None, 0, 2]))
def test_a_member_is_found_as_it_was_written(value, indent):
    text = json.dumps(value, indent=indent)
    for name, inner in value.items():
        found = member(text, name)
        assert found is not None and json.loads(found) == inner and found in text
    assert member(text, "no such name") is None


def test_of_two_equal_names_the_last_one_counts_and_what_is_no_json_is_refused():
    assert member('{"a": 1.50, "b": {"a": 3}, "a" : [ 2 ] }', "a") == "[ 2 ]"
    with pytest.raises(BadInput, match="cannot be written as JSON"):
        to_json({"a": float("inf")})
    with pytest.raises(BadInput, match="cannot be written as JSON"):
        to_json("\ud800")


def test_json_is_the_model_cards():
    assert to_json({"a": "é", "b": [1, None]}) == '{"a": "é", "b": [1, null]}'
    for bad in (float("nan"), {1, 2}, "\ud800"):
        with pytest.raises(BadInput, match="cannot be written as JSON"):
            to_json(bad)
