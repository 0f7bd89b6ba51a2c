"""From a model's Markdown to HTML that is safe in the page: tables, formulas, highlighted code.

Promises: no script, style, event handler, form or request to another address gets through, whatever the text is: HTML
in it is shown as text, and the rendered HTML passes an allow-list as well. Time is bounded (BUDGET seconds of this
thread), and so is size (MAX_TEXT, MAX_TOKENS, MAX_HTML); a text beyond a bound comes back whole in `<pre>`. No text is
hidden: link definitions stay text. A growing answer renders sanely: an open fence is a code block. It does not know
where text comes from and uses no network: a picture is a link.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from phi4mini.server.page.formulas import LINES, MATH_ATTRIBUTES, MATH_TAGS, add_formulas

if TYPE_CHECKING:
    from collections.abc import Callable

    import nh3
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MAX_TEXT = 200_000  # characters
MAX_TOKENS = 30_000  # of Markdown, each about one element of the page
MAX_HTML = 1_000_000  # characters before the allow-list, which was measured at up to 0.14 s for them
MAX_NESTING = 40  # of quotes and lists
BUDGET = 0.5  # seconds of this thread's CPU time, so that a busy server does not turn answers into plain text
_BLOCKS = {"left", "center", "right", "code", "code-head", "plain", "table", "formula", "language", "copy", "picture"}
_TAGS = {
    "p",
    "br",
    "hr",
    "em",
    "strong",
    "s",
    "code",
    "pre",
    "a",
    "blockquote",
    "ul",
    "ol",
    "li",
    "div",
    "span",
    "button",
}
_TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_TASK = re.compile(r"\[([ xX])\]\s")


class _TooMuch(Exception):
    """The text needs more time or more elements than a page should take."""


def render(text: str) -> str:
    """Safe HTML of a Markdown text; `<pre class="plain">` with all of it where it is too long or takes too long."""
    text = _SURROGATE.sub("\ufffd", text)
    if len(text) <= MAX_TEXT:
        try:
            clock = Clock(BUDGET)
            parser = _parser()
            env: dict[str, Any] = {"clock": clock}
            tokens = parser.parse(text, env)
            clock.check()
            if sum(1 + len(t.children or ()) for t in tokens) <= MAX_TOKENS:
                html = parser.renderer.render(tokens, parser.options, env)
                if len(html) <= MAX_HTML:
                    return _cleaner().clean(html)
        except (_TooMuch, RecursionError):
            pass
    return f'<pre class="plain">{escape(text)}</pre>'


class Clock:
    """Raises once this thread has used up its budget of CPU seconds; `tick` reads the time at every 64th call."""

    def __init__(self, budget: float) -> None:
        self._end = time.thread_time() + budget
        self._ticks = 0

    def tick(self) -> None:
        """Count one step of a parser."""
        self._ticks += 1
        if self._ticks % 64 == 0:
            self.check()

    def check(self) -> None:
        """Read the time now."""
        if time.thread_time() > self._end:
            raise _TooMuch


@cache
def _parser() -> MarkdownIt:
    """CommonMark without HTML, with tables, strikethrough and formulas; a line break in the text is one on the page."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": MAX_NESTING + 4})
    parser.enable(["table", "strikethrough"]).disable(["html_block", "html_inline", "reference"])
    add_formulas(parser)
    parser.inline.ruler.before("text", "bounds", _tick)
    parser.block.ruler.before("table", "bounds", _bounds)
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.core.ruler.push("marks", _marks)
    rules: dict[str, Callable[..., str]] = {"fence": _code, "code_block": _code, "image": _picture}
    rules |= {"table_open": _table_open, "table_close": _table_close}
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    return parser


def _tick(state: Any, *_: object) -> bool:
    """A rule that matches nothing and checks the time: the parser tries it at every step."""
    state.env["clock"].tick()
    return False


def _bounds(state: Any, *_: object) -> bool:
    """The same for blocks, with a bound on nesting: beyond its own limit the parser would drop the rest of the text."""
    if state.level > MAX_NESTING:
        raise _TooMuch
    return _tick(state)


def _table(state: Any, start: int, end: int, silent: bool) -> bool:
    """The parser's own rule with a check of the time at each token: it reads all rows of a table in one step."""
    from markdown_it.rules_block import table

    push = state.push

    def timed_push(*token: Any) -> Token:
        state.env["clock"].tick()
        return push(*token)

    state.push = timed_push
    try:
        return table(state, start, end, silent)
    finally:
        del state.push


def _marks(state: Any) -> None:
    """Alignment as a class, since the page allows no style; `[ ]` and `[x]` of a task list as boxes without bullets."""
    for at, token in enumerate(state.tokens):
        if token.type in ("th_open", "td_open") and "style" in token.attrs:
            token.attrs = {"class": str(token.attrs["style"]).removeprefix("text-align:")}
        begun = [before.type for before in state.tokens[max(at - 2, 0) : at]]
        begins = token.type == "inline" and begun == ["list_item_open", "paragraph_open"]
        if begins and token.children and _task(token.children[0]):
            state.tokens[at - 2].attrs = {"class": "task"}


def _task(first: Token) -> bool:
    """Turn the `[ ]` at the beginning of an item into a box; False if there is none."""
    box = _TASK.match(first.content)
    if box:
        first.content = ("☐ " if box[1] == " " else "☑ ") + first.content[box.end() :]
    return box is not None


def _table_open(*_: object) -> str:
    return '<div class="table"><table>\n'


def _table_close(*_: object) -> str:
    return "</table></div>\n"


def _picture(_: object, tokens: Sequence[Token], index: int, options: object, env: object) -> str:
    """A picture as a link: loading it would tell another server that the answer was read."""
    token = tokens[index]
    label = escape(token.content or "picture")
    return f'<a class="picture" href="{escape(str(token.attrs.get("src", "")))}">{label}</a>'


def _code(_: object, tokens: Sequence[Token], index: int, options: object, env: dict[str, Any]) -> str:
    """A code block: its language and a copy button above, the text highlighted where the language is known."""
    token = tokens[index]
    language = (token.info.split() or [""])[0][:40].lower()
    head = f'<span class="language">{escape(language)}</span><button class="copy" type="button">Copy</button>'
    body = _highlighted(token.content, language, env["clock"])
    return f'<div class="code"><div class="code-head">{head}</div><pre><code>{body}</code></pre></div>\n'


def _highlighted(code: str, language: str, clock: Clock) -> str:
    """HTML of code, by pygments if it knows the language; classes `hl-...` of text.css."""
    from pygments import format as pygments_format
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code)
    timed = _timed(lexer.get_tokens(code), clock)
    return pygments_format(timed, HtmlFormatter(nowrap=True, classprefix="hl-"))


def _timed(tokens: Iterator[Any], clock: Clock) -> Iterator[Any]:
    for token in tokens:
        clock.tick()
        yield token


@cache
def _cleaner() -> nh3.Cleaner:
    """The allow-list. Relative addresses are dropped: from an answer they would lead to this server's own API."""
    import nh3
    from pygments.token import STANDARD_TYPES

    colours = {f"hl-{name}" for name in STANDARD_TYPES.values() if name}
    blocks = ("div", "span", "pre", "code", "th", "td", "a", "button")
    return nh3.Cleaner(
        tags=_TAGS | MATH_TAGS,
        clean_content_tags={"script", "style"},
        attributes={"a": {"href", "title"}, "ol": {"start"}, **{tag: set(MATH_ATTRIBUTES) for tag in MATH_TAGS}},
        tag_attribute_values={"button": {"type": {"button"}}},
        set_tag_attribute_values={"a": {"target": "_blank"}},
        allowed_classes={
            "mtd": set(LINES),
            "li": {"task"},
            **{tag: _BLOCKS | (colours if tag == "span" else set()) for tag in blocks},
        },
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
