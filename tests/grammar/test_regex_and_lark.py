"""Regular expressions and Lark grammars that are wrong or hostile: one line, in bounded time; schemas inside Lark."""

from __future__ import annotations

import re
import time

import pytest

from tests.grammar.following import admits, refused, wander


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("(", "invalid regular expression: unclosed group"),
        ("(?=a)b", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        ("(" * 4000 + ")" * 96, "invalid regular expression|cannot be used"),
        ("a" * 5000, "5000 characters; .* 4096"),
        (".*a?" * 1000, "too complex"),
    ],
)
def test_E2_patterns_that_are_refused(grammars, pattern, expected):
    refused(lambda: grammars.json_schema({"type": "string", "pattern": pattern}), expected)
    refused(lambda: grammars.regex(pattern), expected)


@pytest.mark.parametrize("pattern", ["(a+)+$", "((a{1,1000}){1,1000})", "(a|b)*a(a|b){20}", r"(\w{1,1000}\W){1,1000}"])
def test_E2_patterns_that_ruin_backtracking_engines_work(phi, grammars, pattern):
    start = time.perf_counter()
    constraint = grammars.regex(pattern)
    ids = wander(constraint, 0, most=30)
    assert time.perf_counter() - start < 5  # thirty masks as well; the slowest of them some 20 ms
    if constraint.done:
        assert re.fullmatch(pattern, phi.decode(ids))


@pytest.mark.parametrize("pattern", [None, 3, "", b"a", "\ud800"])
def test_E2_what_is_no_pattern(grammars, pattern):
    refused(lambda: grammars.regex(pattern), "the pattern")
    refused(lambda: grammars.lark(pattern), "the grammar")


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ("start: foo", 'unknown name: "foo"'),
        ("x: /a/", "start"),
        ("start: start start", "nothing can satisfy it"),
        ('start: ""', "nothing but the empty text"),
        ("start: " + "(" * 8000, "too deeply nested"),
        ("start: r0\n" + "".join(f'r{i}: "x" r{i + 1}\n' for i in range(3000)) + 'r3000: "y"', "the most is|at most"),
        ('start: %json {"type": "integer", "multipleOf": 1000003}', "multipleOf"),
        ('start: %json {"type": "array", "uniqueItems": true}', "uniqueItems"),
        ('start: "x"\ny: %json {"type": ', "%json in line 2 is not JSON"),
        ("start: x\nx[temperature=0.5]: /a+/", "sets temperature"),
        ("start: <|no_such_token|>", "no_such_token"),
    ],
)
def test_grammars_that_are_refused(grammars, grammar, expected):
    refused(lambda: grammars.lark(grammar), expected)


def test_a_grammar_with_a_schema_inside(phi, grammars):
    grammar = (
        'start: "answer: " %json {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]} "."'
    )
    assert admits(grammars.lark(grammar), phi, 'answer: {"n": 12, "m": null}.')
    assert not admits(grammars.lark(grammar), phi, 'answer: {"n":12}.')
