"""What a chat template would write, found by reading it: Jinja never runs it.

`TemplateText` follows the few things that a plain template is made of: texts and fields of messages joined together,
loops over the messages, conditions on roles and on what is there. Promises that anything else (a filter, a call, a
slice, a macro, arithmetic) makes the answer None, never a guess; that `generation` markers and comments change nothing;
that template and time are bounded. White space around tags goes as HF transformers sets Jinja up.
Knows no formats (`templates.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

_MOST_CHARACTERS = 1 << 16
_OPENING = re.compile(r"\{[{%#]")
_INSIDE = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+]?[%}]\}|[^'"]""", re.DOTALL)
_WORD = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<name>[A-Za-z_]\w*)|(?P<number>\d+)|(?P<sign>[=!<>]=|\S))""",
    re.DOTALL,
)
_FIELD = re.compile(r"NAME(?:\.NAME|\[TEXT\])")
_FIRST = re.compile(r"NAME\[NUMBER\](?:\.NAME|\[TEXT\])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_SILENT = ("generation", "endgeneration")
_PROMPT = "add_generation_prompt"
_THERE = (" is not none", " is defined")
_TAKEN = ("messages", "loop", "tools", _PROMPT)  # names that stand for something already
_NO_PROMPT = (f"not{_PROMPT}isdefined", f"{_PROMPT}isnotdefined")  # conditions under which it gets a default

_Words = list[tuple[str, str]]  # (kind, text) of each word inside a tag
Turn = tuple[str, str]  # role and content


class _Unclear(Exception):
    """The template does something that is not followed here."""


@dataclass
class _Loop:
    """`for name in messages`."""

    name: str
    body: list[_Node] = field(default_factory=list)


@dataclass
class _Choice:
    """An if with its elifs and else (whose condition is empty)."""

    branches: list[tuple[_Words, list[_Node]]]


@dataclass(frozen=True)
class _Put:
    """Text, or the words of an expression; with a `name` the expression is what that variable stands for."""

    value: str | _Words
    name: str = ""


_Node = _Loop | _Choice | _Put


@dataclass(frozen=True)
class _State:
    """Where in a conversation the reading is."""

    turns: Sequence[Turn]
    prompt: bool
    variables: Mapping[str, str]
    message: str = ""  # the loop's variable
    turn: Turn | None = None
    first: bool = False


class TemplateText:
    """A template that has been read; `of` says what it writes."""

    def __init__(self, template: str) -> None:
        self._tree: list[_Node] | None = None
        if len(template) <= _MOST_CHARACTERS:
            with suppress(_Unclear, RecursionError):
                self._tree = _tree(template.replace("\r\n", "\n").replace("\r", "\n"))

    def of(self, turns: Sequence[Turn], add_generation_prompt: bool, **variables: str) -> str | None:
        """What it writes for a conversation (role and content of each turn, no tools); None where that is not clear.

        `variables`: such as eos_token; one that is used and not given makes the answer None.
        """
        with suppress(_Unclear, RecursionError):
            return None if self._tree is None else _write(self._tree, _State(turns, add_generation_prompt, variables))
        return None


# ---- writing


def _write(nodes: Sequence[_Node], state: _State) -> str:
    written = []
    for node in nodes:
        if isinstance(node, _Put) and node.name:
            if isinstance(node.value, str) or node.name == state.message:
                raise _Unclear
            made = _expression(node.value, state)
            state = replace(state, variables={**state.variables, node.name: made})
        elif isinstance(node, _Put):
            written.append(node.value if isinstance(node.value, str) else _expression(node.value, state))
        elif isinstance(node, _Loop):
            if state.turn is not None or node.name in state.variables:
                raise _Unclear
            for i, turn in enumerate(state.turns):
                inside = replace(state, message=node.name, turn=turn, first=i == 0)
                written.append(_write(node.body, inside))
        else:
            taken = (body for condition, body in node.branches if _holds(condition, state))
            written.append(_write(next(taken, ()), state))
    return "".join(written)


def _expression(words: _Words, state: _State) -> str:
    """Texts and fields joined by + or ~. `raise_exception(...)` is for conversations that are not asked about."""
    if words and words[0][1] == "raise_exception":
        raise _Unclear
    return "".join(_operand(operand, state) for operand in _split(words, "+", "~"))


def _operand(words: _Words, state: _State) -> str:
    if len(words) == 1:
        kind, value = words[0]
        if kind == "NAME" and value not in state.variables:
            raise _Unclear
        return value if kind == "TEXT" else state.variables[value] if kind == "NAME" else _unclear()
    if inner := _within_brackets(words):
        return _expression(inner, state)
    kinds = "".join(kind for kind, _ in words)
    turn = None
    if _FIELD.fullmatch(kinds) and words[0][1] == state.message:
        turn = state.turn
    elif _FIRST.fullmatch(kinds) and words[0][1] == "messages" and words[2][1] == "0" and state.turns:
        turn = state.turns[0]
    name = words[-1 if kinds.endswith("NAME") else -2][1] if turn else ""
    if turn is None or name not in ("role", "content"):
        raise _Unclear
    return turn[0] if name == "role" else turn[1]


def _holds(words: _Words, state: _State) -> bool:
    """Whether a condition holds; an empty one is an else."""
    if not words:
        return True
    if len(alternatives := list(_split(words, "or"))) > 1:
        return any(_holds(part, state) for part in alternatives)
    if len(parts := list(_split(words, "and"))) > 1:
        return all(_holds(part, state) for part in parts)
    if inner := _within_brackets(words):
        return _holds(inner, state)
    if words[0] == ("NAME", "not"):
        return not _holds(words[1:], state)
    for sign, wanted in (("==", True), ("!=", False)):
        if len(sides := list(_split(words, sign))) == 2:
            return (_operand(sides[0], state) == _operand(sides[1], state)) is wanted
    return _is_there(words, state)


def _is_there(words: _Words, state: _State) -> bool:
    """Conditions without a comparison: no message has tools, every one has text."""
    said, message = _said(words), state.message
    if said == _PROMPT:
        return state.prompt
    if said == "loop.first" and state.turn is not None:
        return state.first
    if said in ("tools", f"'tools' in {message}", *(f"{message}.tools{rest}" for rest in ("", *_THERE))):
        return False
    if said in (f"{_PROMPT} is defined", f"{message}.content is string"):
        return True
    if said.endswith(_THERE):
        return _operand(words[: -2 if said.endswith("defined") else -3], state) is not None
    return bool(_operand(words, state))


def _said(words: _Words) -> str:
    """Words in one spelling: `m['a']` is `m.a`."""
    text = " ".join(repr(value) if kind == "TEXT" else value for kind, value in words)
    return re.sub(r" \[ '(\w+)' \]| \. (\w+)", lambda found: f".{found[1] or found[2]}", text)


def _unclear() -> str:
    raise _Unclear


# ---- words


def _words(body: str) -> _Words:
    """(kind, text) of every word: TEXT with its escapes resolved, NAME, NUMBER, or a sign as its own kind."""
    words = []
    for found in _WORD.finditer(body.strip()):
        kind = found.lastgroup or ""
        value = found[kind]
        words.append((value if kind == "sign" else kind.upper(), _unescaped(value) if kind == "text" else value))
    return words


def _unescaped(quoted: str) -> str:
    def meant(found: re.Match[str]) -> str:
        return _ESCAPES.get(found[1]) or _unclear()

    return re.sub(r"\\(.)", meant, quoted[1:-1], flags=re.DOTALL)


def _split(words: _Words, *at: str) -> Iterator[_Words]:
    """The parts between these signs or names, outside brackets."""
    depth = 0
    part: _Words = []
    for kind, value in words:
        depth += (kind in ("(", "[", "{")) - (kind in (")", "]", "}"))
        if not depth and kind != "TEXT" and value in at:
            yield part
            part = []
        else:
            part.append((kind, value))
    yield part


def _within_brackets(words: _Words) -> _Words:
    """What one pair of brackets around everything encloses; else nothing."""
    if len(words) < 3 or words[0][0] != "(" or words[-1][0] != ")":
        return []
    depth = 0
    for kind, _ in words[1:-1]:
        depth += (kind in ("(", "[", "{")) - (kind in (")", "]", "}"))
        if depth < 0:
            return []  # `(a) + (b)`
    return words[1:-1]


# ---- the tree


def _tree(template: str) -> list[_Node]:
    """The nodes of a template. Raises `_Unclear` for a tag that is not followed here."""
    root: list[_Node] = []
    open_nodes: list[tuple[_Node | None, list[_Node]]] = [(None, root)]
    for kind, body in _parts(template):
        if kind == "text":
            open_nodes[-1][1].append(_Put(body))
        elif kind == "{{":
            open_nodes[-1][1].append(_Put(_words(body)))
        elif kind == "{%":
            _take(_words(body), open_nodes)
        elif kind != "{#":
            raise _Unclear
    if len(open_nodes) != 1:
        raise _Unclear
    return root


def _take(words: _Words, open_nodes: list[tuple[_Node | None, list[_Node]]]) -> None:
    """One `{% ... %}`: it opens a node, goes on in one, or closes it."""
    tag, node = (words[0][1] if words else ""), open_nodes[-1][0]
    if tag in ("elif", "else", "endif") and isinstance(node, _Choice):
        open_nodes.pop()
        if tag != "endif":
            node.branches.append((words[1:], []))
            open_nodes.append((node, node.branches[-1][1]))
    elif tag == "endfor" and isinstance(node, _Loop):
        open_nodes.pop()
    elif tag == "if":
        choice = _Choice([(words[1:], [])])
        open_nodes[-1][1].append(choice)
        open_nodes.append((choice, choice.branches[0][1]))
    elif tag == "for" and [value for _, value in words[2:]] == ["in", "messages"] and words[1][1] not in _TAKEN:
        loop = _Loop(words[1][1])
        open_nodes[-1][1].append(loop)
        open_nodes.append((loop, loop.body))
    elif tag == "set" and len(words) > 3 and words[2][0] == "=":
        _set(words[1][1], words[3:], node, open_nodes[-1][1])
    elif tag not in _SILENT:
        raise _Unclear


def _set(name: str, value: _Words, node: _Node | None, body: list[_Node]) -> None:
    """A variable. One that is set in a branch would outlive it, which is not followed, but for the usual default."""
    if isinstance(node, _Choice):
        if "".join(word for _, word in node.branches[-1][0]).strip("()") not in _NO_PROMPT or name != _PROMPT:
            raise _Unclear
    elif name in _TAKEN:
        raise _Unclear
    else:
        body.append(_Put(value, name))


# ---- text and tags


def _parts(template: str) -> Iterator[tuple[str, str]]:
    """("text" | "{{" | "{%" | "{#" | "?", body) one after the other, white space around tags gone as Jinja takes it."""
    template = template.removesuffix("\n")
    at, strip, fresh = 0, False, True  # strip: the tag before takes white space; fresh: the text begins a line
    while True:
        found = _OPENING.search(template, at)
        text = template[at : found.start()] if found else template[at:]
        if strip:
            text = text.lstrip()
        if found is None:
            yield "text", text
            return
        kind, end = found[0], _end_of(template, found)
        if end is None:
            yield "?", ""
            return
        first, last = template[found.end() : found.end() + 1], template[end - 3]
        yield "text", _before(text, kind, first, fresh)
        yield kind, template[found.end() + (first in ("-", "+")) : end - 2 - (last in ("-", "+"))]
        at, strip, fresh = end, last == "-", False
        if kind != "{{" and last != "+" and template.startswith("\n", at):
            at, fresh = at + 1, True  # trim_blocks


def _before(text: str, kind: str, sign: str, fresh: bool) -> str:
    """The text before a tag: `-` takes all white space, and a tag alone on its line the blanks before it."""
    if sign == "-":
        return text.rstrip()
    if kind == "{{" or sign == "+":
        return text
    line = text.rpartition("\n")
    alone = not line[2].strip() and (line[1] or fresh)
    return line[0] + line[1] if alone else text  # lstrip_blocks


def _end_of(template: str, opening: re.Match[str]) -> int | None:
    """Where the tag that begins there ends; a closing mark inside a string does not end it. None: nowhere."""
    if opening[0] == "{#":
        end = template.find("#}", opening.end())
        return None if end < 0 else end + 2
    closing = "}}" if opening[0] == "{{" else "%}"
    at = opening.end()
    while found := _INSIDE.match(template, at):
        at = found.end()
        if found[0].endswith(closing) and found[0][0] not in "'\"":
            return at
    return None
