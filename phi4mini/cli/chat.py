"""chat: a conversation with a line editor and answers in Markdown. Without a terminal, a line of stdin is a turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from phi4mini.cli.common import argument_text, decode, open_model, say
from phi4mini.cli.options import command, engine_options, sampling, sampling_options
from phi4mini.errors import Phi4MiniError

if TYPE_CHECKING:
    from phi4mini.cli.session import Session


@command()
@click.option("-sys", "--system", help="System message.")
@click.option("--no-markdown", is_flag=True, help="Show the model's text as it is.")
@engine_options
@sampling_options
def chat(system: str | None, no_markdown: bool, **values: Any) -> None:
    """Talk with a model. /help lists what can be typed; Ctrl-C stops an answer, Ctrl-D leaves."""
    from phi4mini.cli.session import Session

    checked = None if system is None else argument_text(system, "--system")
    chosen = sampling(values)
    with open_model(values) as model:
        session = Session(model, checked, chosen)
        say(f"{model.name}, {model.engine.facts.threads} threads, up to {model.engine.ctx} tokens. /help for help.")
        _talk(session, markdown=not no_markdown)


def _talk(session: Session, markdown: bool) -> None:
    from phi4mini.cli.markdown import printer
    from phi4mini.cli.session import explain

    for line in _typed() if sys.stdin.isatty() else _lines():
        if line.startswith("/"):
            if not session.command(line.rstrip()):
                return
        elif line.strip():
            try:
                session.ask(line, partial(printer, markdown))
            except Phi4MiniError as error:
                say(explain(error))


def _lines() -> Iterator[str]:
    """Turns from a pipe."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        yield decode(line, f"line {number} of stdin").rstrip("\r\n")


def _typed() -> Iterator[str]:
    """Turns from the line editor, until Ctrl-D. Ctrl-C clears a line; on an empty line it leaves."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.output import create_output

    editor: PromptSession[str] = PromptSession(
        history=_history(),
        auto_suggest=AutoSuggestFromHistory(),
        multiline=True,
        key_bindings=_keys(),
        prompt_continuation="... ",
        output=create_output(always_prefer_tty=True),
    )
    while True:
        try:
            yield editor.prompt(">>> ")
        except EOFError:
            return
        except KeyboardInterrupt:
            if not editor.default_buffer.text:
                raise


def _history() -> Any:
    """The lines typed in earlier conversations, in the cache folder; only their owner may read the file."""
    from prompt_toolkit.history import FileHistory

    from phi4mini.files import cache_home

    path = cache_home() / "chat_history"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    return FileHistory(str(path))


def _keys() -> Any:
    """Enter sends, Alt-Enter starts a new line; pasted text keeps its lines."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys
