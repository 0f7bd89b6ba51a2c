"""The options that commands share: of the same name, they mean the same in every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from phi4mini.cli import SETTINGS
from phi4mini.cli.common import say
from phi4mini.errors import BadInput

DEFAULT_MODEL = "microsoft/Phi-4-mini-instruct"
_F = TypeVar("_F", bound=Callable[..., Any])
_Decorator = Callable[[_F], _F]


def command(**settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with -h and environment twins that do not repeat the command's name."""
    return click.command(context_settings=SETTINGS, **settings)


def given(name: str) -> bool:
    """Whether who called the command under way set an option, on the command line or in the environment."""
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
    help="Hub id (one of its GGUFs: ID:Q4_K_M), folder, file.",
)
quant_option = click.option(  # no default: what is asked of a packed file must be what it is
    "-q", "--quant", help="f32, bf16, q8, q4, q4m, q4-head8.  [q4, or what a packed file has]"
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

sampling_options = options(
    click.option("-n", "--predict", type=click.IntRange(min=1), help="Most new tokens.  [until the context is full]"),
    click.option("--temp", type=float, help="Temperature; 0 is greedy.  [0]"),
    click.option("--top-k", type=int, help="Draw from the k best tokens only.  [off]"),
    click.option("--top-p", type=float, help="Draw from this probability mass only.  [off]"),
    click.option("--min-p", type=float, help="Drop tokens below this share of the best.  [off]"),
    click.option("-s", "--seed", type=int, help="Seed: the same seed, the same text.  [drawn]"),
    click.option("--repeat-penalty", type=float, help="Penalty on tokens seen before.  [off]"),
    click.option("--presence-penalty", type=float, help="Subtracted once from tokens used.  [off]"),
    click.option("--frequency-penalty", type=float, help="Subtracted per use of a token.  [off]"),
    click.option("--logit-bias", multiple=True, metavar="ID±VALUE", help="Bias of a token, such as 1504+1.5."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated."),
    click.option("--ignore-eos", is_flag=True, help="Go on past the model's own end."),
)
_SAMPLING_NAMES = {  # option -> keyword of Model
    "predict": "max_new_tokens",
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "seed": "seed",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


def sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of Model.stream from the values of `sampling_options` and --rope, checked before any model opens."""
    from phi4mini.llm.run import parameters

    chosen = {ours: values[name] for name, ours in _SAMPLING_NAMES.items() if values[name] is not None}
    chosen["rope"] = values["rope"]
    if values["logit_bias"]:
        chosen["logit_bias"] = dict(map(_bias, values["logit_bias"]))
    if values["stop"]:
        chosen["stop"] = list(values["stop"])
    if values["ignore_eos"]:
        chosen["ignore_eos"] = True
    parameters(chosen)
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
