"""Formulas in Markdown: the rules that find them, and LaTeX to MathML.

`\\( \\)` and `$ $` within a line, `\\[ \\]` and `$$ $$` within a line or over several. A dollar sign is more often a
price than a formula, so `$..$` must look like a formula (see `_single`). Promises: a formula that latex2mathml cannot
read, or with a command that it does not know, is shown as source; MathML is written here from the element tree, by
allow-list, since latex2mathml escapes nothing and passes `\\href` on. Lines of a table become classes of its cells.
It knows the LaTeX that latex2mathml knows, and the few environments in `_ENVIRONMENTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape, unescape
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token


def _names(line: str) -> frozenset[str]:
    return frozenset(line.split())


MAX_FORMULA = 4_000  # characters; latex2mathml was measured at 2 to 38 us for one, so 0.15 s is the most
MATH_TAGS = _names(
    "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mmultiscripts "
    "mprescripts mtable mtr mtd mstyle mpadded mphantom menclose merror"
)
MATH_ATTRIBUTES = _names(
    "display displaystyle scriptlevel mathvariant mathsize mathcolor mathbackground stretchy fence form separator "
    "lspace rspace minsize maxsize largeop movablelimits symmetric accent accentunder linethickness notation width "
    "height depth voffset columnalign columnlines columnspacing rowlines rowspacing linebreak"
)
LINES = _names("line-left line-right line-above line-below")  # classes of cells; Chromium ignores the attributes
_ALIGNED = r"(?:aligned|align\*?|split|eqnarray\*?|align(?:ed)?at\*?)"
# What models write -> what latex2mathml knows. \class leaves a mark for `_read_marks`.
_ENVIRONMENTS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\\begin\{array\}\s*\{([lcr|\s]*\|[lcr|\s]*)\}"), lambda m: _lined(m[1])),
    (re.compile(r"\\hline\b"), r"\\class{hline}{}"),
    (re.compile(rf"\\begin\{{{_ALIGNED}\}}(?:\{{\d+\}}|\[[tbc]\])?"), r"\\begin{array}{rlrlrl}\\class{display}{}"),
    (re.compile(rf"\\end\{{{_ALIGNED}\}}"), r"\\end{array}"),
    (re.compile(r"\\(begin|end)\{dcases\}"), r"\\\1{cases}"),
    (re.compile(r"\\begin\{(?:gathered|gather\*?|multline\*?)\}"), r"\\begin{array}{c}"),
    (re.compile(r"\\end\{(?:gathered|gather\*?|multline\*?)\}"), r"\\end{array}"),
    (re.compile(r"\\(?:begin|end)\{equation\*?\}|\\(?:label|tag)\{[^{}]*\}|\\(?:nonumber|notag)\b"), ""),
    (re.compile(r"\\([dt])frac\b"), r"\\frac"),
    (re.compile(r"\\(arg|sgn)\b"), r"\\operatorname{\1}"),
    (re.compile(r"\\middle\s*\|"), r"\\mid "),
]
_CLOSERS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
_NAMED = re.compile(r"\\(?:begin\s*\{([^{}]*)\}|(math[a-z]+))")
_MORE_MATH = ("\\mathstrut", "\\mathchoice")  # of `\\math...` without a table of its own
_ESCAPED = re.compile(r"\\.")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")


def mathml(latex: str, display: bool) -> str:
    """HTML of a formula: `<math>` of allowed elements and attributes, or its source in `<code>` where that fails."""
    if len(latex) <= MAX_FORMULA:
        try:
            return "".join(_written(_tree(latex, display)))
        except Exception:  # a model may write anything, and latex2mathml may raise anything: show the source
            pass
    return f'<code class="formula">{escape(latex)}</code>'


def _tree(latex: str, display: bool) -> Element:
    """latex2mathml's elements. ValueError for a command or an environment that it would leave out."""
    from latex2mathml import commands
    from latex2mathml.converter import convert_to_element
    from latex2mathml.symbols_parser import SYMBOLS

    for pattern, better in _ENVIRONMENTS:
        latex = pattern.sub(better, latex)
    fonts = {*commands.CONVERSION_MAP, *commands.LOCAL_FONTS, *_MORE_MATH}
    for environment, font in _NAMED.findall(latex):
        if f"\\{environment or font}" not in (commands.MATRICES if environment else fonts):
            raise ValueError(environment or font)
    tree = convert_to_element(latex.strip(), display="block" if display else "inline")
    for element in tree.iter():
        if element.tag in ("mi", "mo") and (element.text or "").startswith("\\"):
            element.text = chr(int(SYMBOLS[str(element.text)], 16))  # `\\big\\rangle` is known, `\\ce` is not
        if element.tag == "mtable":
            _read_marks(element)
    return tree


def _lined(columns: str) -> str:
    """The beginning of an array with lines between its columns, without them and with a mark that names them."""
    columns = "".join(columns.split())
    return rf"\begin{{array}}{{{columns.replace('|', '')}}}\class{{{columns}}}{{}}"


def _read_marks(table: Element) -> None:
    """Take out the marks that `_ENVIRONMENTS` left in a table; cells get the classes of LINES for them."""
    columns = ""
    for row in list(table):
        kinds = _taken(row)
        columns = next((kind for kind in kinds if "|" in kind), columns)
        if "display" in kinds:
            table.set("displaystyle", "true")
        if "hline" in kinds and row is table[-1] is not table[0] and not any(len(cell) for cell in row):
            table.remove(row)  # what follows the last row is only the line under it
            _mark(table[-1], "line-below")
            return
        if "hline" in kinds:
            _mark(row, "line-above")
        for cell, sides in zip(row, _sides(columns), strict=False):
            _mark([cell], *sides)


def _taken(row: Element) -> set[str]:
    """Remove the marks from a row's cells and return them."""
    found = set()
    for cell in row:
        for mark in [child for child in cell if child.get("class")]:
            found.add(mark.attrib.pop("class"))
            if not len(mark):
                cell.remove(mark)
    return found


def _sides(columns: str) -> list[list[str]]:
    """Classes for the lines beside each column of `|c|c|`; a line between two columns is right of the first."""
    sides = [["line-right"] * (behind == "|") for c, behind in pairwise(columns + " ") if c != "|"]
    return [["line-left", *sides[0]], *sides[1:]] if sides and columns[0] == "|" else sides


def _mark(cells: Iterable[Element], *classes: str) -> None:
    for cell in cells:
        if classes:
            cell.set("class", " ".join([*cell.get("class", "").split(), *classes]))


def _written(element: Element) -> Iterator[str]:
    """An element as HTML. Texts hold character references as latex2mathml leaves them."""
    tag = element.tag if element.tag in MATH_TAGS else "mrow"
    allowed = MATH_ATTRIBUTES | {"class"} if tag == "mtd" else MATH_ATTRIBUTES
    given = ((n, v) for n, v in element.attrib.items() if n in allowed)
    yield f"<{tag}" + "".join(f' {name}="{escape(unescape(value))}"' for name, value in given) + ">"
    yield escape(unescape(element.text or ""))
    for child in element:
        yield from _written(child)
    yield f"</{tag}>"


def add_formulas(markdown: MarkdownIt) -> None:
    """Teach a parser the four ways of writing a formula; tokens are `formula`, with the LaTeX as their content."""
    markdown.inline.ruler.before("escape", "formula", _inline)
    markdown.block.ruler.before("fence", "formula_block", _block, {"alt": ["paragraph", "blockquote", "list"]})
    markdown.add_render_rule("formula", _render)


def _render(_: object, tokens: Sequence[Token], index: int, options: object, env: dict[str, Any]) -> str:
    """A formula's HTML. Conversion is the slow part, so the time is checked before each."""
    env["clock"].check()
    token = tokens[index]
    html = mathml(token.content, token.markup in ("$$", "\\["))
    return f'<div class="formula">{html}</div>\n' if token.block else html


def _inline(state: StateInline, silent: bool) -> bool:
    """A formula that begins here and ends in the same paragraph."""
    text, at = state.src, state.pos
    if text[at] not in "\\$":
        return False
    opener = text[at : at + 2]
    if opener in _CLOSERS:
        end = text.find(_CLOSERS[opener], at + 2)
        return end > at + 2 and _push(state, silent, opener, text[at + 2 : end], end + 2)
    end = _single(text, at) if text[at] == "$" else -1
    return end > 0 and _push(state, silent, "$", text[at + 1 : end], end + 1)


def _push(state: StateInline, silent: bool, markup: str, latex: str, end: int) -> bool:
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = latex, markup
    state.pos = end
    return True


def _single(text: str, at: int) -> int:
    """Position of the `$` that closes a formula opened at `at`, or -1 where this is more likely a price.

    Pandoc's rule (no space inside, no digit behind) and more: no letter before or behind, one line, braces that match,
    and no plain words in what begins like an amount ("$5 and then 10$").
    """
    before, first = text[at - 1 : at], text[at + 1 : at + 2]
    if not first or first.isspace() or first == "$" or before.isalnum() or before in ("$", "\\"):
        return -1
    end = text.find("$", at + 1, at + 1 + MAX_FORMULA)
    while end > 0 and text[end - 1] == "\\":
        end = text.find("$", end + 1, at + 1 + MAX_FORMULA)
    inside, behind = text[at + 1 : end], text[end + 1 : end + 2]
    if end < 0 or inside[-1:].isspace() or behind.isalnum() or behind == "$" or "\n" in inside or "`" in inside:
        return -1
    words = len(_WORD.findall(inside))
    prose = words > (0 if first.isdigit() else 1) and (first.isdigit() or "\\" not in inside)
    braces = _ESCAPED.sub("", inside)
    return -1 if prose or braces.count("{") != braces.count("}") else end


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula on its own lines; an unclosed one, as in a growing answer, goes to the next blank line."""
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]].strip()
    opener = first[:2]
    if opener not in ("$$", "\\["):
        return False
    closer, lines, line, closed = _CLOSERS[opener], [first[2:]], start, False
    while not closed:
        at = lines[-1].find(closer)
        closed = at >= 0
        if closed:
            if lines[-1][at + 2 :].strip(" .,;:"):
                return False  # text follows: a formula within a paragraph
            lines[-1] = lines[-1][:at] + lines[-1][at + 2 :].rstrip()
        elif line + 1 >= end or state.isEmpty(line + 1) or state.sCount[line + 1] < state.blkIndent:
            break
        else:
            line += 1
            lines.append(state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]])
    if silent:
        return True
    state.line = line + 1
    content = "\n".join(lines).strip()
    token = state.push("formula" if closed else "code_block", "math" if closed else "code", 0)
    token.content, token.markup, token.map, token.block = content, opener, [start, state.line], True
    return True
