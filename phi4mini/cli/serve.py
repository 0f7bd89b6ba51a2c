"""serve: the chat page, and the APIs of OpenAI, Anthropic and Ollama, for one model."""

from __future__ import annotations

import faulthandler
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phi4mini.cli.common import ProgressLine, note_threads, say, size
from phi4mini.cli.options import command, engine_options, given, options
from phi4mini.errors import BadInput, NotFound

if TYPE_CHECKING:
    from phi4mini.llm.model import Model
    from phi4mini.server.service import Service
    from phi4mini.server.settings import Settings

_SECONDS = {"s": 1, "m": 60, "h": 3600}


class _Span(click.ParamType[float]):
    """A time such as 90, 90s, 5m, 1h, in seconds; -1 is for ever."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        unit = _SECONDS.get(value[-1:])
        try:
            return float(value[:-1]) * unit if unit else float(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 90s, 5m or 1h", param, ctx)


_listen_options = options(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", type=int, default=8080, show_default=True, help="0 takes any that is free."),
    click.option("--unix-socket", type=click.Path(path_type=Path), help="Listen on this socket file instead."),
    click.option("--api-key", multiple=True, help="A key that clients must send; safer in a file.", hidden=True),
    click.option("--api-key-file", type=click.Path(path_type=Path), help="A file with one key a line."),
    click.option("--allow-host", multiple=True, metavar="NAME", help="Accept this Host header as well."),
    click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="Accept web pages of this origin."),
)
_work_options = options(
    click.option(
        "-np", "--parallel", type=click.IntRange(min=1), default=8, show_default=True, help="Most requests in one pass."
    ),
    click.option("--queue", type=int, help="Most waiting requests of one key.  [4 x parallel]"),
    click.option("--kv-tokens", type=int, help="KV cache for all requests, in tokens.  [131072, or what fits]"),
    click.option("--prefix-cache/--no-prefix-cache", default=True, show_default=True, help="Keep prompts on disk."),
    click.option(
        "--prefix-cache-size",
        type=click.FloatRange(min=0, min_open=True),
        default=8.0,
        show_default=True,
        help="Most GB of prompts on disk.",
    ),
    click.option(
        "--keep-alive", type=_Span(), default=-1, help="Unload the model after so long without a request.  [never]"
    ),
    click.option("--timeout", type=_Span(), help="Most time for a request.  [no limit]"),
    click.option("--drain", type=_Span(), default=30, show_default=True, help="Time for requests to end on SIGTERM."),
    click.option("--strict", is_flag=True, help="Refuse unknown fields."),
    click.option("--json", "as_json", is_flag=True, help="Log as JSON, a line each."),
    click.option("--no-supervise", is_flag=True, help="Do not restart the server if its process dies."),
)
_LIMITS = ("header_deadline", "body_deadline", "write_deadline", "ping")  # seconds
_COUNTS = ("body_limit", "connections")
_limit_options = options(  # hidden: tests and docs/operation.md use them
    *(click.option(f"--{name.replace('_', '-')}", type=_Span(), hidden=True) for name in _LIMITS),
    *(click.option(f"--{name.replace('_', '-')}", type=int, hidden=True) for name in _COUNTS),
)


@command()
@engine_options
@_listen_options
@_work_options
@_limit_options
def serve(**values: Any) -> int:
    """Serve the chat page at / and the API at /v1."""
    from phi4mini.cli.logs import use_json
    from phi4mini.cli.supervise import supervise
    from phi4mini.server.http.listener import bind

    if values["as_json"]:
        use_json()
    if click.get_current_context().get_parameter_source("api_key") == click.core.ParameterSource.COMMANDLINE:
        say("--api-key can be seen by every user of this machine (ps); use --api-key-file or PHI4MINI_API_KEY")
    _say_what_has_no_effect(values)
    settings = _settings(values)
    if values["rope"] != "auto":
        raise BadInput("serve takes --rope from each request (the field rope), not for all")
    listener = bind(settings)
    if not values["no_supervise"] and (code := supervise()) is not None:
        return code
    _serve(settings, listener, values)
    say("stopped")
    return 0


def _say_what_has_no_effect(values: dict[str, Any]) -> None:
    if values["unix_socket"] is not None:
        for name in filter(given, ("host", "port")):
            say(f"--{name} has no effect: --unix-socket is what is listened on")
    if not values["prefix_cache"] and given("prefix_cache_size"):
        say("--prefix-cache-size has no effect: --no-prefix-cache keeps no prompt on disk")


def _serve(settings: Settings, listener: socket.socket, values: dict[str, Any]) -> None:
    """Serve until a signal stops it."""
    faulthandler.enable()  # after a crash of native code stderr shows the Python stack
    try:
        from phi4mini.server.serve import serve as run
        from phi4mini.server.service import Service
    except ModuleNotFoundError as error:
        raise NotFound(f"serving needs {error.name}; install it with: pip install 'phi4mini[serve]'") from None
    note_threads(values["threads"])
    after = None if values["keep_alive"] < 0 else values["keep_alive"]
    service = Service(settings, _opener(values), after)
    run(service, listener, lambda: _greet(service, listener))


def _settings(values: dict[str, Any]) -> Settings:
    from phi4mini.server.settings import Settings

    queue = values["queue"] if values["queue"] is not None else 4 * values["parallel"]
    limits = {name: values[name] for name in (*_LIMITS, *_COUNTS) if values[name] is not None}
    return Settings(
        host=values["host"],
        port=values["port"],
        unix_socket=values["unix_socket"],
        keys=(*values["api_key"], *_keys(values["api_key_file"])),
        hosts=values["allow_host"],
        origins=values["allow_origin"],
        places=values["parallel"],
        queue=queue,
        request_deadline=values["timeout"],
        drain=values["drain"],
        strict=values["strict"],
        json_logs=values["as_json"],
        **limits,
    )


def _keys(path: Path | None) -> list[str]:
    """The keys of a file, one a line; empty lines and lines that start with # are skipped."""
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise BadInput(f"{path} holds no API key")
    return keys


def _opener(values: dict[str, Any]) -> Callable[[], Model]:
    """A function that opens the model: at the start, and again after it was unloaded."""
    from phi4mini.files import cache_home
    from phi4mini.llm.model import load

    cache = (cache_home() / "prefix", int(values["prefix_cache_size"] * 1e9)) if values["prefix_cache"] else None

    def opened() -> Model:
        with ProgressLine() as progress:
            return load(
                values["model"],
                quant=values["quant"],
                kv=values["kv"],
                threads=values["threads"],
                ctx=values["ctx_size"],
                kv_tokens=values["kv_tokens"],
                places=values["parallel"],
                prefix_cache=cache,
                offline=values["offline"],
                progress=progress,
                chat_format=values["chat_format"],
            )

    return opened


def _greet(service: Service, listener: socket.socket) -> None:
    """Print the address, the model and the KV cache's limit."""
    facts, settings = service.facts, service.settings
    address = listener.getsockname()
    if settings.unix_socket is not None:
        where = f"unix:{settings.unix_socket}"
    else:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        where = f"http://{host}:{address[1]}"
    say(f"{facts.id}, {facts.quant}, {facts.threads} threads, context of {facts.ctx} tokens")
    say(f"KV cache: at most {facts.kv_tokens} tokens, {size(facts.kv_tokens * facts.kv_token_bytes)}")
    say(f"{where}  (process {os.getpid()}; Ctrl-C stops it)")
