"""Formulas in Markdown: the rules that find them, and LaTeX to MathML.

`\\( \\)` and `$ $` within a line, `\\[ \\]` and `$$ $$` within a line or over several. A dollar sign is more often a
price than a formula, so `$..$` must look like one (see `_single`). What latex2mathml cannot read is shown as source.
MathML is written here from the element tree, by allow-list: latex2mathml itself escapes nothing and passes `\\href` on.
It does not know LaTeX beyond what latex2mathml does, but for a few environments named in `_ENVIRONMENTS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape, unescape
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
_ENVIRONMENTS = [  # what models write, in what latex2mathml knows
    (re.compile(r"\\begin\{(?:aligned|align\*?|split|eqnarray\*?|alignat\*?\{\d+\})\}"), r"\\begin{array}{rlrlrl}"),
    (re.compile(r"\\end\{(?:aligned|align\*?|split|eqnarray\*?|alignat\*?)\}"), r"\\end{array}"),
    (re.compile(r"\\begin\{(?:gathered|gather\*?|multline\*?)\}"), r"\\begin{array}{c}"),
    (re.compile(r"\\end\{(?:gathered|gather\*?|multline\*?)\}"), r"\\end{array}"),
    (re.compile(r"\\(?:begin|end)\{equation\*?\}|\\(?:label|tag)\{[^{}]*\}|\\(?:nonumber|notag)\b"), ""),
    (re.compile(r"\\([dt])frac\b"), r"\\frac"),
    (re.compile(r"\\middle\s*\|"), r"\\mid "),
]
_CLOSERS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")


def mathml(latex: str, display: bool) -> str:
    """HTML of a formula: `<math>` of allowed elements and attributes, or its source in `<code>` where that fails."""
    if len(latex) <= MAX_FORMULA:
        from latex2mathml.converter import convert_to_element

        for pattern, better in _ENVIRONMENTS:
            latex = pattern.sub(better, latex)
        try:
            tree = convert_to_element(latex.strip(), display="block" if display else "inline")
            return "".join(_written(tree))
        except Exception:  # a parser of what models write: whatever it stumbles over, the source is still readable
            pass
    return f'<code class="formula">{escape(latex)}</code>'


def _written(element: Element) -> Iterator[str]:
    """An element as HTML. Texts hold character references as latex2mathml leaves them."""
    tag = element.tag if element.tag in MATH_TAGS else "mrow"
    given = ((n, v) for n, v in element.attrib.items() if n in MATH_ATTRIBUTES)
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
    """A formula's HTML; conversion is the slow part, so each one looks at the time."""
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
    return -1 if prose or inside.count("{") != inside.count("}") else end


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula on lines of its own; one that is not closed, as in half an answer, goes to the next blank line."""
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
