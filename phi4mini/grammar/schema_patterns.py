"""The patterns of a JSON schema, rewritten for llguidance so that they hold for the decoded string.

A schema's pattern is a regular expression of ECMA-262. llguidance reads Rust's syntax and turns the pattern into one
over the JSON text. This file corrects two differences. Syntax: `[a&&b]`, `[[a]`, `\\d` and `.` mean something else in
Rust. Escapes: where a class contains all control characters, llguidance admits every JSON escape in its place, also
`\\"` and `\\\\` if the class excludes them. A class that excludes `"` or `\\` therefore loses U+0000 too, so that
llguidance never takes it, or a union of such classes, for "all control characters".

Promises that the result matches only strings that the pattern matches, and all of these except strings that need
U+0000; that unsupported syntax (look-around, back references, word boundaries) is a `BadInput`. `\\A`, `\\z`, `(?i)`,
`(?s)` and `(?P<name>...)` of Python and Rust are understood too.
"""

from __future__ import annotations

import re

from phi4mini.errors import BadInput

_TOP = 0x10FFFF
_Range = tuple[int, int]
_SPACE = [(9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)]
_SPACE += [(0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]
_SETS: dict[str, list[_Range]] = {
    "d": [(48, 57)],
    "w": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "s": _SPACE,
}
_LINE_ENDS = [(10, 10), (13, 13), (0x2028, 0x2029)]
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_ANCHORS = {"A": "^", "z": "$", "Z": "$"}
_QUANTIFIER = re.compile(r"\{(\d*)(,?)(\d*)\}")
_GROUP = re.compile(r"\(\?(?:P?<([A-Za-z_$]\w*)>|([a-zA-Z]*)(?:-([a-zA-Z]*))?([:)]))")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|[ux]\{([0-9a-fA-F]{1,6})\}")
_PROPERTY = re.compile(r"[pP]\{(\^?[A-Za-z_]+(?:=[A-Za-z_]+)?)\}")
_NEVER = r"[^\x00-\x{10FFFF}]"


def rewritten(pattern: str) -> str:
    """The pattern for llguidance. Raises BadInput that names the pattern and its unsupported part."""
    return _Rewriter(pattern).all()


class _Set:
    """The characters between the brackets of a character class."""

    def __init__(self) -> None:
        self.ranges: list[_Range] = []
        self.properties: list[str] = []
        self.negated = False

    def holds(self, char: str) -> bool:
        return any(low <= ord(char) <= high for low, high in self.ranges) != self.negated

    def written(self) -> str:
        inside = "".join(_range(low, high) for low, high in _without_surrogates(self.ranges))
        inside += "".join(self.properties)
        text = f"[{'^' * self.negated}{inside}]" if inside else _NEVER if not self.negated else "(?s:.)"
        whole = self.holds('"') and self.holds("\\") and not self.properties
        return text if whole or not (self.holds("\0") or self.properties) else f"[{text}--\\x00]"


def _char(code: int) -> str:
    return chr(code) if code < 128 and chr(code).isalnum() else f"\\x{{{code:X}}}"


def _range(low: int, high: int) -> str:
    return _char(low) if low == high else f"{_char(low)}-{_char(high)}"


def _without_surrogates(ranges: list[_Range]) -> list[_Range]:
    """`ranges` without surrogates: a Unicode string has none."""
    cut = [part for low, high in ranges for part in ((low, min(high, 0xD7FF)), (max(low, 0xE000), high))]
    return [(low, high) for low, high in cut if low <= high]


def _others(ranges: list[_Range]) -> list[_Range]:
    """All characters outside `ranges`, which must be sorted and disjoint."""
    starts = [0, *(high + 1 for _, high in ranges)]
    ends = [*(low - 1 for low, _ in ranges), _TOP]
    return [(low, high) for low, high in zip(starts, ends, strict=True) if low <= high]


class _Rewriter:
    """One pass over a pattern; `all` returns the rewritten pattern."""

    def __init__(self, pattern: str) -> None:
        self._text, self._at = pattern, 0
        self._dots = [False]  # for each open group: True if a dot matches line ends (flag s)
        self._repeated = self._repeats = ""  # quantifier of the previous item, and of the current one

    def all(self) -> str:
        out = []
        while self._at < len(self._text):
            self._repeats = ""
            out.append(self._next())
            self._repeated = self._repeats
        return "".join(out)

    def _fault(self, what: str) -> BadInput:
        return BadInput(f"the pattern {self._text!r:.80}: {what}")

    def _take(self) -> str:
        if self._at == len(self._text):
            raise self._fault("invalid regular expression: it ends in the middle")
        self._at += 1
        return self._text[self._at - 1]

    def _match(self, expression: re.Pattern[str], back: int = 0) -> re.Match[str] | None:
        found = expression.match(self._text, self._at - back)
        if found:
            self._at = found.end()
        return found

    def _next(self) -> str:
        char = self._take()
        match char:
            case "\\":
                return self._escape()
            case "[":
                return self._class().written()
            case "(":
                return self._group()
            case ")":
                self._dots = self._dots[:-1] or [False]
                return char
            case "{":
                return self._repetition()
            case ".":
                return "(?s:.)" if self._dots[-1] else self._of(_LINE_ENDS, negated=True)
            case "*" | "+" | "?":
                return self._quantified(char)
            case "^" | "$" | "|":
                return char
        return self._literal(ord(char))

    def _quantified(self, written: str) -> str:
        if before := self._repeated:
            if written != "?" or before == "lazy":
                raise self._fault(f"a quantifier after another one ({written}) is not supported")
            written = ""  # lazy: the same texts match, only in another order
        self._repeats = "lazy" if before else written
        return written

    def _of(self, ranges: list[_Range], negated: bool = False) -> str:
        made = _Set()
        made.ranges, made.negated = list(ranges), negated
        return made.written()

    def _literal(self, code: int) -> str:
        if 0xD800 <= code <= 0xDFFF:
            raise self._fault("half a surrogate pair is no character")
        if code == 0:
            return _NEVER
        return _char(code)

    # ---- outside a class

    def _escape(self) -> str:
        char = self._take()
        if char in _ANCHORS:
            return _ANCHORS[char]
        if char in "bB":
            raise self._fault("look-around (a word boundary) is not supported")
        if char in "123456789" or (char == "k" and self._text[self._at : self._at + 1] == "<"):
            raise self._fault("backreferences are not supported")
        if char.lower() in _SETS:
            return self._of(_SETS[char.lower()], negated=char.isupper())
        if found := self._property(char):
            made = _Set()
            made.properties = [found]
            return made.written()
        return self._literal(self._code(char))

    def _property(self, char: str) -> str | None:
        if char not in "pP":
            return None
        found = self._match(_PROPERTY, back=1)
        if not found:
            raise self._fault(f"invalid regular expression: \\{char} without a property")
        return f"\\{found[0]}"

    def _code(self, char: str) -> int:
        """The code point of an escape whose first character, `char`, has been read."""
        if char in _CONTROLS:
            if char == "0" and self._text[self._at : self._at + 1].isdigit():
                raise self._fault("octal escapes are not supported")
            return _CONTROLS[char]
        if char == "c" and re.match("[A-Za-z]", self._text[self._at :]):
            return ord(self._take()) % 32
        if char in "xu":
            found = self._match(_HEX, back=1)
            if not found:
                raise self._fault(f"invalid regular expression: \\{char} without its digits")
            return self._paired(int(found[1] or found[2] or found[3], 16))
        if char.isascii() and char.isalnum():
            raise self._fault(f"invalid regular expression: unrecognized escape sequence \\{char}")
        return ord(char)

    def _paired(self, code: int) -> int:
        """The code point; if it is a high surrogate and a low one follows, the code point of the pair."""
        if code > _TOP:
            raise self._fault("invalid regular expression: there is no such character")
        low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
        if 0xD800 <= code < 0xDC00 and (found := self._match(low)):
            return 0x10000 + (code - 0xD800) * 0x400 + int(found[1], 16) - 0xDC00
        return code

    def _group(self) -> str:
        if not self._text.startswith("?", self._at):
            self._dots.append(self._dots[-1])
            return "(?:"
        found = self._match(_GROUP, back=1)
        if not found:
            raise self._fault("look-around (or a group that begins with it, like this one) is not supported")
        on, off = found[2] or "", found[3] or ""
        if set(on + off) - set("isu"):
            raise self._fault(f"the flags {on + off} are not supported")
        dots = ("s" in on or self._dots[-1]) and "s" not in off
        flags = "i" * ("i" in on) + "-i" * ("i" in off)
        if found[4] == ")":  # flags for the rest of the enclosing group
            self._dots[-1] = dots
            return f"(?{flags})" if flags else ""
        self._dots.append(dots)
        return f"(?{flags}:"

    def _repetition(self) -> str:
        found = self._match(_QUANTIFIER, back=1)
        if not found or not (found[1] or found[3]):
            return self._literal(ord("{"))
        return self._quantified(f"{{{found[1] or 0}{found[2]}{found[3]}}}")

    # ---- inside a class

    def _class(self) -> _Set:
        made = _Set()
        if self._text.startswith("^", self._at):
            made.negated = True
            self._at += 1
        if self._text.startswith("]", self._at):  # ends the class in ECMA-262; a literal ] in Python and Rust
            self._at += 1
            if "]" not in self._text[self._at :]:
                return made
            if made.negated:
                raise self._fault("[^]...] is read in two ways; write [^\\]...]")
            made.ranges.append((93, 93))
        while (char := self._take()) != "]":
            first = self._member(char, made)
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._member(self._take(), made)
                if first is not None and last is not None:
                    if first > last:
                        raise self._fault("invalid regular expression: a range whose end is before its beginning")
                    made.ranges.append((first, last))
                    continue
                made.ranges += [(45, 45)] if last is None else [(45, 45), (last, last)]  # no range: an end is a set
            if first is not None:
                made.ranges.append((first, first))
        return made

    def _member(self, char: str, made: _Set) -> int | None:
        """The next character of a class; None for a set such as \\d, which is added to `made`."""
        if char != "\\":
            return ord(char)
        char = self._take()
        if char.lower() in _SETS:
            known = _SETS[char.lower()]
            made.ranges += _others(known) if char.isupper() else known
            return None
        if found := self._property(char):
            made.properties.append(found)
            return None
        return 8 if char == "b" else self._code(char)
