"""The options that several commands share; an option means the same in every command.

The sampling options are made from the table of knobs (`llm/keywords.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from phi4mini.cli import SETTINGS
from phi4mini.cli.common import say
from phi4mini.errors import BadInput

if TYPE_CHECKING:
    from phi4mini.llm.keywords import Knob

DEFAULT_MODEL = "microsoft/Phi-4-mini-instruct"
_F = TypeVar("_F", bound=Callable[..., Any])
_Decorator = Callable[[_F], _F]


def command(**settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with -h and environment twins that do not repeat the command's name."""
    return click.command(context_settings=SETTINGS, **settings)


def given(name: str) -> bool:
    """True if the user set this option of the running command, on the command line or in the environment."""
    source = click.get_current_context().get_parameter_source(name)
    return source in (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)


def options(*some: _Decorator[Any]) -> _Decorator[Any]:
    """Several options as one decorator, in the order of the help."""

    def decorate(function: _F) -> _F:
        for option in reversed(some):
            function = option(function)
        return function

    return decorate


def _known_format(name: str | None) -> str | None:
    """Checked before anything is opened, fetched or listened on. Raises `BadInput` listing the names there are."""
    if name is not None:
        from phi4mini.chat import format_named

        format_named(name)
    return name


model_option = click.option(
    "-m",
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Hub id (ID:Q4_K_M for one of its GGUFs), folder or file.",
)
quant_option = click.option(  # no default: a recipe given for a packed file must be the file's own
    "-q", "--quant", help="f32, bf16, q8, q4, q4m, q4-head8.  [q4, or the recipe of a packed file]"
)
offline_option = click.option("--offline", is_flag=True, help="Use no network.")
chat_format_option = click.option(
    "--chat-format",
    metavar="NAME",
    callback=lambda _, __, name: _known_format(name),
    help="Chat format, such as phi or chatml.  [the model's own]",
)
json_option = click.option("--json", "as_json", is_flag=True, envvar="PHI4MINI_JSON", help="Print JSON.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
kv_option = click.option(
    "--kv", type=click.Choice(["int8", "f32"]), default="int8", show_default=True, help="KV cache format."
)
ctx_option = click.option("-c", "--ctx-size", type=int, help="Most tokens of prompt and answer.  [what memory allows]")
threads_option = click.option("-t", "--threads", type=int, help="Threads.  [physical cores allowed]")

engine_options = options(
    model_option,
    quant_option,
    kv_option,
    ctx_option,
    threads_option,
    click.option(
        "--rope",
        type=click.Choice(["auto", "short", "long"]),
        default="auto",
        show_default=True,
        help="LongRoPE factors: by length, or fixed.",
    ),
    chat_format_option,
    offline_option,
)

_REPEATED = {"logit_bias": "ID±VALUE", "stop": "TEXT"}  # knobs whose option may come several times -> its metavar


class _Within(click.ParamType[float]):
    """A number within a knob's bounds; the error names the option, the keyword and the bounds."""

    def __init__(self, knob: Knob) -> None:
        self.knob, self.name = knob, "integer" if knob.is_whole else "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = (click.INT if self.knob.is_whole else click.FLOAT).convert(value, param, ctx)
        low, high = self.knob.low, self.knob.high
        if low is not None and high is not None and not low <= number <= high:  # NaN is not within
            kind = "an integer" if self.knob.is_whole else "a number"
            self.fail(f"{self.knob.name} must be {kind} from {low} to {high}, not {number}", param, ctx)
        return number


def _option_of(knob: Knob) -> _Decorator[Any]:
    """The option of one row of the table of knobs."""
    if knob.type == "bool":
        return click.option(*knob.flags, is_flag=True, help=knob.help)
    if knob.name in _REPEATED:
        text = f"{knob.help} May be repeated."
        return click.option(*knob.flags, multiple=True, metavar=_REPEATED[knob.name], help=text)
    unset = f"{knob.unset}; {knob.range}" if knob.range else knob.unset
    return click.option(*knob.flags, type=_Within(knob), help=f"{knob.help}  [{unset}]")


def _sampling_knobs() -> dict[str, Knob]:
    """The rows that have an option, by the option's parameter; --rope is not among them, `engine_options` has it."""
    from phi4mini.llm.keywords import KNOBS  # a table; nothing heavy comes with it

    knobs = [knob for knob in KNOBS if knob.flags and knob.name != "rope"]
    return {knob.flags[-1].removeprefix("--").replace("-", "_"): knob for knob in knobs}


def sampling_options(function: _F) -> _F:
    """The options of `llm/keywords.py`, in its order."""
    return options(*map(_option_of, _sampling_knobs().values()))(function)


def sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of Model.stream from the values of `sampling_options` and --rope, checked before any model opens.

    An option that was not given is left out.
    """
    from phi4mini.llm.run import check_keywords

    chosen: dict[str, Any] = {"rope": values["rope"]}
    for option, knob in _sampling_knobs().items():
        value = values[option]
        if value is not None and value is not False and value != ():  # 0 is a value
            chosen[knob.name] = list(value) if knob.name == "stop" else value
    if "logit_bias" in chosen:
        chosen["logit_bias"] = dict(map(_bias, chosen["logit_bias"]))
    check_keywords(chosen)
    if not chosen.get("temperature"):
        for name in ("top_k", "top_p", "min_p"):
            if name in chosen:
                say(f"--{name.replace('_', '-')} has no effect at temperature 0, which is greedy; --temp sets another")
    return chosen


def _bias(text: str) -> tuple[int, float]:
    at = max(text.find("+"), text.find("-"))
    try:
        return int(text[:at]), float(text[at:])
    except ValueError:
        raise BadInput(f"--logit-bias {text!r} is not an id and a signed value, such as 1504+1.5 or 1504-9") from None
