"""The command line: `phi4mini COMMAND`. The model's text goes to stdout, everything else to stderr.

Promises: a command's module is imported when the command is called, so `phi4mini --help` stays under 150 ms; there are
four exit codes: 0 done, 1 a fault of phi4mini, 2 a fault of input or machine (one line names it), 130 Ctrl-C. It does
not know what any command does.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from phi4mini.errors import Phi4MiniError

COMMANDS: dict[str, tuple[str, str]] = {  # name -> (module of this package, one line of help)
    "chat": ("chat", "Talk with a model in the terminal."),
    "run": ("run", "Answer one prompt: argument, files and stdin together."),
    "serve": ("serve", "Serve the chat page and an OpenAI-compatible API."),
    "pull": ("models", "Download a model and make it ready to run."),
    "convert": ("models", "Write a checkpoint as one packed file, quantised."),
    "ls": ("models", "List the models on this machine."),
    "show": ("models", "Show what a model is made of."),
    "rm": ("models", "Delete a model from this machine."),
    "estimate": ("estimate", "Memory a model will take, before anything is loaded."),
    "bench": ("bench", "Measure prefill and decode against this machine's ceilings."),
    "tokenize": ("text", "Text to token ids, and back."),
    "render": ("text", "A conversation as the ids the model sees."),
    "doctor": ("doctor", "What this machine has, what is used of it, what is wrong."),
}
PREFIX = "PHI4MINI"  # of the environment twins
_EPILOG = f"""Models are named by hub id, folder, .gguf or .phi4 file, or `demo`.
Every option has an environment twin: --ctx-size is {PREFIX}_CTX_SIZE. The option wins.
{PREFIX}_LOG=debug tells which store, kernels and cached pages are used."""
SETTINGS = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": PREFIX, "max_content_width": 100}


class _Commands(click.Group):
    """A group that lists commands without importing them and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"phi4mini.cli.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from phi4mini import __version__

        click.echo(f"phi4mini {__version__}")
        ctx.exit()


@click.group(cls=_Commands, invoke_without_command=True, context_settings=SETTINGS, epilog=_EPILOG)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Phi-4-mini on your own CPU."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises for what a user or the machine did."""
    _open_closed_streams()
    if f"_{PREFIX}_COMPLETE" in os.environ:
        cli.main(prog_name="phi4mini")  # a shell completes a line; click answers and exits
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a character shows ?
    from phi4mini.cli.logs import to_stderr

    with to_stderr():
        return _outcome(sys.argv[1:] if args is None else list(args))


def _outcome(args: list[str]) -> int:
    """The exit code of a command, however it ends."""
    from phi4mini.cli.logs import use_level
    from phi4mini.errors import Phi4MiniError

    try:
        use_level()
        code = _invoke(args)
        sys.stdout.flush()
        return code
    except Phi4MiniError as error:
        return _refuse(error)
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        return _refuse(error.format_message().rstrip("."), f" (see {where.command_path} -h)" if where else "")
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        _leave_stdout()
        return 0
    except MemoryError:
        return _refuse("not enough memory; `phi4mini estimate` says what a model needs")
    except OSError as error:
        return _system_error(error)
    except Exception:
        return _fault()


def _open_closed_streams() -> None:
    """Open /dev/null for each stream that the caller has closed (`2>&-`). Otherwise the next file that is opened gets
    the stream's number, and messages are written into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere > number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 (stays open)


def _invoke(args: list[str]) -> int:
    """Call the command without click's own `main`, which ends with exit code 1 on a broken pipe."""
    try:
        with cli.make_context("phi4mini", args) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return code if isinstance(code, int) else 0


def _refuse(error: Phi4MiniError | str, hint: str = "") -> int:
    import logging

    from phi4mini.cli.logs import is_json

    text = f"{' '.join(str(error).split())}{hint}"
    logging.getLogger(__name__).error("%s", text) if is_json() else _line(text)
    return 2


def _system_error(error: OSError) -> int:
    """One line for a fault of the machine: a file, a full disk, a missing right. Any other is a fault of phi4mini."""
    if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
        return _fault()
    name = f"{error.filename}: " if error.filename is not None else "writing: "
    return _refuse(f"{name}{error.strerror}")


def _fault() -> int:
    import logging
    import traceback

    from phi4mini.cli.logs import is_json

    if is_json():
        logging.getLogger(__name__).critical("a fault of phi4mini itself", exc_info=True)
        return 1
    traceback.print_exc()
    _line("this is a fault of phi4mini itself; please report the lines above")
    return 1


def _line(text: str) -> None:
    """One line to stderr. A stderr that nobody reads is no error."""
    try:
        sys.stderr.write(f"phi4mini: {text}\n")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _leave_stdout() -> None:
    """Point stdout elsewhere after its reader has left, so that the interpreter's last flush raises nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
