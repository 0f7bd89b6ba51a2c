"""Patterns of schemas by membership: a string is admitted, however it is spelled, if and only if the pattern finds it.

The oracle is Python's `re` on the decoded string. Where ECMA-262 means something else than Python (`\\d`, `\\s`, `.`,
`$`), the generators write both: a pattern for the schema, and the same one for `re`.
"""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadInput
from phi4mini.grammar.schema_patterns import rewritten
from tests.shared import SHARED, needs_shared

SPACE = "\\t-\\r \\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff"


def canonical(text: str) -> str:
    """As a grammar writes it: what need not be escaped is not."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def spellings(text: str) -> list[str]:
    """One text as JSON in other ways."""

    def escaped(char: str, form: str = "04x") -> str:
        units = char.encode("utf-16-be")
        return "".join(f"\\u{int.from_bytes(units[at : at + 2]):{form}}" for at in range(0, len(units), 2))

    found = [json.dumps(text), "".join(map(escaped, text)), "".join(escaped(char, "04X") for char in text)]
    for only in ('"', "\\", "\n"):
        found.append("".join(escaped(char) if char == only else canonical(char)[1:-1] for char in text))
    found.append("".join("\\/" if char == "/" else canonical(char)[1:-1] for char in text))
    return [one for one in [found[0], *(f'"{one}"' for one in found[1:])] if one != canonical(text)]


def judge(spelled, pattern: str, matches, texts) -> None:
    """Every text in every spelling; the one that a grammar writes is admitted exactly when the text matches."""
    schema = {"type": "string", "pattern": pattern}
    for text in texts:
        expected = bool(matches(text))
        if "\0" not in text or not expected:  # a set without a quote or a backslash loses U+0000
            assert spelled(schema, canonical(text)) == expected, (pattern, text)
        for other in spellings(text):
            assert json.loads(other) == text
            if not expected:
                assert not spelled(schema, other), (pattern, other)


AWKWARD = [
    "",
    "a",
    '"',
    "\\",
    'a"b',
    "a\\b",
    "a\nb",
    "\x01",
    "\x1f\x7f",
    "\0",
    "/",
    'é"',
    "🦊\\",
    "a b",
    "7",
    "\\\\",
    "\\n",
    '\\"',
]
LEFT_OUT = [  # classes that leave out a quote, a backslash, or both
    '^[^"]*$',
    r"^[^\\]*$",
    '^[^<>:"|?*]+$',
    r'^[^"\\]+$',
    r'^[^"\s]+$',
    r'^[^"\x00-\x1f]*$',
    r"^[\x00-\x1f]+$",
    r"^[\x00-\x21#-\x7f]*$",
    r"^(?:[\x00-\x1f]|[a-z])*$",
    r"^(?:[\x00-\x1e]|\x1f|[^\x00-\x60])*$",
    r"^[^\n\"]*$",
    r"^[^\\/:*?\"<>|\r\n]+$",
    r"^[^\u0022]*$",
    r"^[^\x5c]*$",
    r"^[\0-\x09\x0b-\x1fa]*$",
    r'[^"]$',
    r'^[^"]',
    r'^([^"\\]|\\.)*$',
    r"^\D*[^\W\d]\S*$",
    r"^[\s\w]*$",
    r"^[^!-~]*$",
    r'^(?:x|[^"]*)$',
]


@pytest.mark.parametrize("pattern", LEFT_OUT)
def test_SC1_a_pattern_that_leaves_out_quotes_or_backslashes(spelled, pattern):
    python = pattern.replace(r"\W\d", r"\W0-9").replace(r"\S", f"[^{SPACE}]").replace(r"\s", SPACE)
    python = re.sub(r"\$$", r"\\Z", python)
    judge(spelled, pattern, re.compile(python, re.ASCII).search, AWKWARD)


def test_SC1_a_name_that_a_pattern_leaves_out_is_no_name(spelled):
    schema = {"type": "object", "patternProperties": {'^[^"]+$': {"type": "integer"}}, "additionalProperties": False}
    assert spelled(schema, '{"a\\\\b": 1}')
    for name in ('"a\\"b"', '"a\\u0022b"', '"\\""'):
        assert not spelled(schema, f"{{{name}: 1}}"), name


@pytest.mark.parametrize("name", ["ab", "a\\u0062", "\\u0061b", "\\u0061\\u0062", "a\\/", "a\\n"])
def test_SC1_a_name_cannot_be_spelled_past_its_pattern(spelled, name):
    for more in ({"type": "string"}, True):
        schema = {"type": "object", "patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": more}
        assert not spelled(schema, f'{{"{name}": "x"}}')
        assert spelled(schema, '{"a\\n": 1}')


REAL = {  # pattern -> texts that match and texts that do not
    r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$": (["a.b+c@d-e.org"], ["a@b", '"a"@b.de', "a@b.c"]),
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-[\da-z-]+(?:\.[\da-z-]+)*)?(?:\+[\dA-Za-z.-]+)?$": (
        ["1.0.0", "0.12.3-rc.1+b7"],
        ["01.0.0", "1.0", "1.0.0-"],
    ),
    r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$": (["2024-02-29"], ["2024-13-01", "24-01-01", "２024-01-01"]),
    r"^(?:[01]\d|2[0-3]):[0-5]\d$": (["23:59"], ["24:00", "7:05"]),
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$": (
        ["123e4567-e89b-12d3-a456-426614174000"],
        ["123e4567-e89b-62d3-a456-426614174000"],
    ),
    r"^#(?:[0-9a-fA-F]{3}){1,2}$": (["#fff", "#00FF7f"], ["#ffff", "fff"]),
    r"^[a-z][a-z0-9]*(?:_[a-z0-9]+)*$": (["snake_case_1"], ["Snake", "_a", "a__b"]),
    r"^[A-Z][A-Z0-9_]*$": (["MAX_2"], ["max", "2MAX"]),
    r"^(?:/[^/\0]+)+/?$": (["/usr/local/"], ["usr", "//"]),
    r'^[^<>:"/\\|?*\x00-\x1f]+$': (["report (1).txt"], ['a"b', "a\\b", "a/b", "a\tb"]),
    r"^[A-Za-z]:\\(?:[^\\/:*?\"<>|\r\n]+\\)*[^\\/:*?\"<>|\r\n]*$": (["C:\\a b\\c.txt"], ["C:/a", 'C:\\"', "C:\\\\\\"]),
    r"^\.?\/?[\w\-./]+\.(?:py|ts|tsx)$": (["./src/a-b.tsx"], ["a.js", "a b.py"]),
    r"^https?:\/\/[^\s/$.?#].[^\s]*$": (["https://a.b/c?d=1"], ["ftp://a", "http://a b c"]),
    r"^[a-z0-9]+(?:-[a-z0-9]+)*$": (["a-slug-1"], ["A", "a--b"]),
    r"^\+[1-9]\d{1,14}$": (["+4915112345678"], ["+0123", "0123"]),
    r"^[\p{L}\p{M}' -]+$": (["Zoë O'Neil"], ["R2", 'Zoë"']),
    r"^(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}$": (["192.168.0.1"], ["256.0.0.1"]),
    r"^[0-9a-f]{7,40}$": (["c874224"], ["c87422", "C874224"]),
    r"^refs\/(?:heads|tags)\/[^\s~^:?*\[\\]+$": (["refs/heads/a-b"], ["refs/heads/a\\b", "refs/x/a"]),
    r"^@[a-z0-9-~][a-z0-9-._~]*\/[a-z0-9-~][a-z0-9-._~]*$": (["@a/b.c"], ["a/b", "@A/b"]),
    r"^arn:aws:[a-z0-9-]+:[a-z0-9-]*:\d{12}:.+$": (["arn:aws:iam::123456789012:role/x"], ["arn:aws:iam::1:x"]),
    r"^[A-Z]{2}\d{2}[A-Z0-9]{1,30}$": (["DE89370400440532013000"], ["de89"]),
    r"^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$": (["-0.5e+10"], ["01", "1.", "+1"]),
    r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$": (["", "YQ==", "YWJj"], ["YQ=", "YQ"]),
    r"^P(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?:\d+H)?(?:\d+M)?(?:\d+S)?)?$": (["P1DT2H"], ["1D"]),
    r"^toolu_[a-zA-Z0-9]+$": (["toolu_01A"], ["toolu_", "call_1"]),
    r"(^|,)x(,|$)": (["x", "a,x", "x,b", "a,x,b"], ["ax", "xb", ""]),
    r"^$|^\S+$": (["", "ab"], ["a b", " "]),
    r"^(?i:get|post)$": (["GET", "Post"], ["put"]),
    r"\S": (["a", " a "], ["", "  \n"]),
    r"[&&a]|[[b]": (["&", "b", "["], ["c", ""]),
    r"^.{1,3}$": (["äöü", "🦊"], ["", "abcd", "a\n"]),
    r"^[^\s\"'`]+$": (["a\\b"], ['a"', "a'b", "a b"]),
    r"\.json\Z": (["a.json"], ["a.jsonl"]),
    r"^\s*(?<key>[\w.]+)\s*=\s*(?<value>[^\"]*)$": (["a.b = c"], ['a = "c"', "= c"]),
}


@pytest.mark.parametrize("pattern", REAL)
def test_SC1_patterns_of_the_real_world(spelled, pattern):
    good, bad = REAL[pattern]
    judge(spelled, pattern, lambda text: text in good, [*good, *bad])


# ---- patterns made at random, for the schema and for `re`

CHARS = st.sampled_from([*"abz059_ -./,:#'\"\\^[]{}()&é\n\x01", "\u2028", "🦊"])


def _quoted(char: str, in_class: bool = False) -> str:
    return f"\\{char}" if char in ("\\[]^-&" if in_class else "\\[]^$.|?*+(){}/") else char


SETS = [("\\d", "0-9"), ("\\w", "0-9A-Z_a-z"), ("\\s", SPACE), ("\\x22", '"'), ("\\u005c", "\\\\"), ("\\n", "\\n")]
SETS += [("\\0-\\x1f", "\\x00-\\x1f"), ("!-~", "!-~"), ("a-f", "a-f"), ("&&", "\\&")]
OPPOSITES = [("\\D", "^0-9"), ("\\W", "^0-9A-Z_a-z"), ("\\S", f"^{SPACE}"), (".", "^\\n\\r\\u2028\\u2029")]
MEMBERS = st.sampled_from(SETS) | CHARS.map(lambda char: (_quoted(char, True), re.escape(char)))


@st.composite
def classes(draw) -> tuple[str, str]:
    members = draw(st.lists(MEMBERS, min_size=1, max_size=4))
    negated = draw(st.sampled_from(["", "^"]))
    return tuple(f"[{negated}{''.join(member[i] for member in members)}]" for i in (0, 1))  # type: ignore[return-value]


LITERALS = CHARS.map(lambda char: (_quoted(char), re.escape(char)))
ATOMS = classes() | LITERALS | st.sampled_from(OPPOSITES).map(lambda pair: (pair[0], f"[{pair[1]}]"))


def _more(inner):
    quantifier = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?", "{,2}"])
    group = st.tuples(inner, st.sampled_from(["(", "(?:"])).map(lambda it: tuple(f"{it[1]}{one})" for one in it[0]))
    return (
        st.tuples(group | ATOMS, quantifier).map(lambda it: tuple(one + it[1] for one in it[0]))
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: tuple(map("".join, zip(*parts, strict=True))))
        | st.lists(inner, min_size=2, max_size=3).map(
            lambda parts: tuple(f"(?:{'|'.join(p)})" for p in zip(*parts, strict=True))
        )
    )


PATTERNS = st.tuples(
    st.recursive(ATOMS, _more, max_leaves=5), st.sampled_from(["", "^"]), st.sampled_from([("", ""), ("$", "\\Z")])
).map(lambda it: (f"{it[1]}{it[0][0]}{it[2][0]}", f"{it[1]}{it[0][1]}{it[2][1]}"))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(both=PATTERNS, texts=st.lists(st.text(CHARS, max_size=5), min_size=2, max_size=4), data=st.data())
def test_SC1_any_pattern_holds_for_the_decoded_text(spelled, both, texts, data):
    pattern, python = both
    compiled = re.compile(python)
    try:
        spelled({"type": "string", "pattern": pattern}, "")
    except BadInput as error:
        assert re.search("nsatisfiable|too complex", str(error)), (pattern, str(error))
        return
    texts.append(
        data.draw(st.from_regex(compiled, fullmatch=True, alphabet=CHARS)) if data.draw(st.booleans()) else '"'
    )
    judge(spelled, pattern, compiled.search, texts)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"^(?!\.)a", "look-around"),
        (r"(?<=a)b", "look-around"),
        (r"\bword\b", "word boundary"),
        (r"(a)\1", "backreferences"),
        (r"(?<q>a)\k<q>", "backreferences"),
        (r"a++", "a quantifier after another"),
        (r"a**", "a quantifier after another"),
        (r"[^]a]", "read in two ways"),
        (r"\e", "unrecognized escape"),
        (r"\ud83d", "half a surrogate"),
        (r"\01", "octal"),
        (r"[b-a]", "end is before its beginning"),
        (r"(?m)^a", "flags"),
        ("[a", "ends in the middle"),
        ("\\", "ends in the middle"),
    ],
)
def test_SC1_patterns_that_cannot_be_followed_are_refused_by_name(pattern, why):
    with pytest.raises(BadInput, match=why) as caught:
        rewritten(pattern)
    assert "\n" not in str(caught.value) and repr(pattern) in str(caught.value)


@needs_shared
def test_SC1_patterns_of_real_schemas(spelled):
    """Every pattern of the real schemas, on texts that it was not made for."""
    text = (SHARED / "data/jsonschema/jsonschemabench_200.jsonl").read_text("utf-8")
    found = {
        json.loads(f'"{one}"') for one in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', text) for one in [one[1:-1]]
    }
    judged = 0
    for pattern in sorted(found):
        try:
            spelled({"type": "string", "pattern": pattern}, "")
        except BadInput:
            continue
        python = re.sub(r"(?<!\\)\$", r"\\Z", pattern)
        judge(
            spelled,
            pattern,
            re.compile(python, re.ASCII).search,
            ["", "a", "A-1", '"', "\\", "a/b", "2024-01-01", "a@b.de"],
        )
        judged += 1
    assert judged > 20
