"""A conversation in the terminal: its messages, its settings, and the commands that begin with a slash.

Promises: a turn that fails leaves the conversation as it was; no message is ever dropped to make room. It prints status
only; a `Printer` shows the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4mini.cli.common import read_json, say
from phi4mini.cli.run import speed, stops_on_interrupt
from phi4mini.errors import BadInput, Phi4MiniError, TooLong

if TYPE_CHECKING:
    from phi4mini.cli.markdown import Printer
    from phi4mini.llm.model import Model
    from phi4mini.llm.results import Reply

_HELP = """/help              this list
/clear             forget the conversation; the system message stays
/system TEXT       set the system message and begin anew; without TEXT, show it
/set NAME VALUE    change a setting, such as /set temperature 0.7; without NAME, show all
/save FILE         write the conversation as JSON
/load FILE         go on with a saved conversation
/stats             speed of the last answer, and how full the context is
/bye               leave (or Ctrl-D)
Enter sends, Alt-Enter begins a new line, Ctrl-C stops the answer."""


class Session:
    """One conversation with one model."""

    def __init__(self, model: Model, system: str | None, sampling: Mapping[str, Any]) -> None:
        self.model = model
        self.system = system
        self.sampling = self._checked(dict(sampling))
        self.turns: list[Any] = []  # messages after the system message
        self.last: Reply | None = None

    @property
    def messages(self) -> list[Any]:
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*head, *self.turns]

    def ask(self, text: str, printer: Callable[[], Printer]) -> None:
        """One turn: print the answer and keep it, even if it was stopped. A refused turn leaves no trace."""
        self.turns.append({"role": "user", "content": text})
        try:
            reply = self._answer(printer)
        except BaseException:
            self.turns.pop()
            raise
        self.last = reply
        self.turns.append({"role": "assistant", "content": reply.content})
        if reply.finish_reason == "abort":
            say("(stopped; Ctrl-C again leaves)")
        elif reply.finish_reason == "length":
            say("(cut: -n or the context ends here; /clear begins anew)")

    def _answer(self, printer: Callable[[], Printer]) -> Reply:
        stream = self.model.stream(self.messages, **self.sampling)
        shown: Printer | None = None  # made with the first piece: an error before it needs a clean line
        try:
            with stops_on_interrupt(stream.stop):
                for piece in stream:
                    shown = shown or printer()
                    shown.add(piece if isinstance(piece, str) else "")
        finally:
            if shown is not None:
                shown.end()
        return stream.result

    def command(self, line: str) -> bool:
        """Carry out a slash command; False if it leaves. An error is printed, not raised."""
        name, _, rest = line[1:].partition(" ")
        does = getattr(self, f"_do_{name}", None) if name.isascii() and name.isalpha() else None
        if name in ("bye", "exit", "quit"):
            return False
        if does is None:
            say(f"there is no /{name}; /help lists the commands")
            return True
        try:
            does(rest.strip())
        except (Phi4MiniError, OSError) as error:
            say(str(error))
        return True

    def _do_help(self, _: str) -> None:
        say(_HELP)

    def _do_clear(self, _: str) -> None:
        self.turns.clear()
        say("(a new conversation)")

    def _do_system(self, text: str) -> None:
        if not text:
            say(self.system or "(no system message)")
            return
        self.system = text
        self._do_clear("")

    def _do_set(self, text: str) -> None:
        name, _, value = text.partition(" ")
        if not name:
            say("\n".join(f"{key} = {setting!r}" for key, setting in self.sampling.items()) or "(nothing set)")
            return
        self.sampling = self._checked({**self.sampling, name: _value(value.strip())})
        say(f"{name} = {self.sampling[name]!r}")

    def _checked(self, sampling: dict[str, Any]) -> dict[str, Any]:
        from phi4mini.llm.run import check_keywords

        check_keywords(sampling)
        return sampling

    def _do_save(self, path: str) -> None:
        from phi4mini.files import atomic_write

        if not path:
            raise BadInput("/save needs a file name")
        with atomic_write(Path(path).expanduser()) as file:
            file.write(json.dumps({"messages": self.messages}, ensure_ascii=False, indent=2).encode() + b"\n")
        say(f"saved {len(self.turns)} messages in {path}")

    def _do_load(self, path: str) -> None:
        if not path:
            raise BadInput("/load needs a file name")
        value = read_json(str(Path(path).expanduser()))
        messages = value.get("messages") if isinstance(value, dict) else value
        self.model.render(messages)  # type: ignore[arg-type]  # raises if this is no conversation
        listed = list(messages)  # type: ignore[arg-type]
        head = listed and listed[0].get("role") == "system"
        self.system, self.turns = (listed[0]["content"], listed[1:]) if head else (None, listed)
        say(f"loaded {len(self.turns)} messages")

    def _do_stats(self, _: str) -> None:
        if self.last is None:
            say("(no answer yet)")
            return
        used = len(self.model.render(self.messages).ids)
        say(f"{speed(self.last.generation)}\ncontext {used} of {self.model.engine.ctx} tokens")


def _value(text: str) -> Any:
    """A setting's value: parsed if it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def explain(error: Phi4MiniError) -> str:
    """The message for an error of a turn, with the remedy if there is one."""
    if isinstance(error, TooLong):
        return (
            f"the conversation has {error.prompt_tokens} tokens and the context holds {error.limit}; "
            "nothing was sent: /clear begins anew, a larger -c holds more"
        )
    return str(error)
