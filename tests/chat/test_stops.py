"""Stop strings: the same cut however the text arrives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mini.chat import StopMatcher
from phi4mini.errors import BadInput


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    out = "".join(matcher.push(piece) for piece in pieces) + matcher.flush()
    return out, matcher.matched


@pytest.mark.parametrize(
    ("stops", "text", "out", "matched"),
    [
        (["END"], "an ENDing", "an ", "END"),
        (["END"], "an EN", "an EN", None),
        (["\n\n"], "a\n\n\nb", "a", "\n\n"),
        (["aab"], "aaab", "a", "aab"),
        (["abcd", "bc"], "abcd", "a", "bc"),  # the one complete first
        (["bcd", "abcd"], "xabcd", "x", "abcd"),  # of two that end together the longer
        ([], "abc", "abc", None),
    ],
)
def test_cut(stops, text, out, matched):
    assert run(stops, [text]) == (out, matched)
    assert run(stops, list(text)) == (out, matched)


@given(
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    pieces=st.lists(st.text("abc", max_size=5), max_size=8),
)
def test_pieces_do_not_matter(stops, pieces):
    text = "".join(pieces)
    assert run(stops, pieces) == run(stops, [text])
    ends = {end: stop for stop in stops for end in range(len(text) + 1) if text[:end].endswith(stop)}
    first = min(ends, default=None)
    longest = max((stop for stop in stops if first is not None and text[:first].endswith(stop)), key=len, default=None)
    assert run(stops, pieces) == (text if first is None else text[: first - len(longest or "")], longest)


def test_nothing_that_may_be_a_stop_string_leaks():
    matcher = StopMatcher(["<stop>"])
    assert matcher.push("a<st") == "a"
    assert matcher.push("op") == ""
    assert matcher.push("x") == "<stopx"
    assert matcher.push("<stop> more") == ""
    assert matcher.matched == "<stop>" and matcher.push("and more") == "" and matcher.flush() == ""


@pytest.mark.parametrize("stops", [[""], [None], ["a", 3]])
def test_refused(stops):
    with pytest.raises(BadInput, match="stop strings must be non-empty text"):
        StopMatcher(stops)
