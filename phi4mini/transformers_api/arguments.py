"""Checks arguments of transformers' methods against `tables.py` and translates those of `generate` to our keywords.

Promises: an argument that is unknown or cannot be honoured raises a `BadInput` that names it and gives the reason; None
is "not given", as in transformers. It does not know models or tokenizers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.ids import flat
from phi4mini.transformers_api.tables import ABSENT, METHODS

_QUANT_OF_DTYPE = {"auto": None, "float32": "f32", "bfloat16": "bf16"}
_PASSED_ON = ("repetition_penalty", "min_new_tokens", "max_new_tokens", "seed", "rope")
_DRAWING = ("temperature", "top_k", "top_p", "min_p")
_DEFAULT_TOP_K = 50  # of transformers' GenerationConfig when sampling


class NotHere(BadInput, AttributeError):
    """An attribute of transformers that does not exist here: `hasattr` is False, and the message gives the reason."""


def not_here(of: object, name: str) -> AttributeError:
    """The error for a missing attribute, with the reason if `tables.ABSENT` has one."""
    if name in ABSENT:
        return NotHere(f"{name} is not here: {ABSENT[name]}")
    return AttributeError(f"{type(of).__name__!r} object has no attribute {name!r}")


def taken(method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that have an effect, None left out. Raises `BadInput` naming the first that cannot be honoured."""
    rules = METHODS[method]
    used = {}
    for name, value in arguments.items():
        if name not in rules:
            begun = [rule for rule in rules if rule.startswith(name)]
            near = (begun or difflib.get_close_matches(name, rules, 1, 0.0))[0]
            raise BadInput(f"{method} does not take {name!r} here; the nearest there is: {near!r}")
        rule = rules[name]
        if value is None:
            continue
        if rule.fate == "refused" and not any(_same(value, neutral) for neutral in rule.neutral):
            raise BadInput(f"{method}: {name}={_shown(value)} is not here: {rule.why}")
        if rule.fate == "used":
            used[name] = value
    return used


def _same(value: Any, neutral: Any) -> bool:
    if type(value).__name__ == "device":  # torch's
        return str(value) == neutral
    if isinstance(value, Mapping):
        return isinstance(neutral, Mapping) and {key: str(each) for key, each in value.items()} == neutral
    return type(value) is type(neutral) and bool(value == neutral)


def _shown(value: Any) -> str:
    """The value on one short line; the type for an object without a telling repr."""
    text = " ".join(repr(value)[:200].split())
    return f"{type(value).__name__} object" if text.startswith("<") else text[:60]


def whole(name: str, value: Any, least: int = 0) -> int:
    """The value as int. Raises `BadInput` naming it unless it is a whole number of at least `least`."""
    number = value.item() if hasattr(value, "item") else value
    if type(number) is not int or number < least:
        raise BadInput(f"{name} must be a whole number from {least} on, not {_shown(value)}")
    return number


def generation_arguments(arguments: Mapping[str, Any], prompt_tokens: int) -> dict[str, Any]:
    """Our sampling keywords for the arguments of transformers' `generate`. Raises `BadInput` naming the argument.

    Without `do_sample=True` temperature, top_k, top_p and min_p have no effect, as in transformers.
    """
    given = taken("generate", arguments)
    chosen = {name: given[name] for name in _PASSED_ON if name in given}
    if given.get("do_sample", False):
        drawing = {name: given[name] for name in _DRAWING if name in given}
        chosen |= {"temperature": 1.0, "top_k": _DEFAULT_TOP_K, "top_p": 1.0} | drawing
        if chosen["temperature"] == 0:
            raise BadInput("temperature 0 with do_sample=True draws nothing; use do_sample=False for greedy")
    chosen |= _lengths(given, prompt_tokens)
    if "eos_token_id" in given:
        chosen |= {"ignore_eos": True, "stop_ids": [id for id in flat(given["eos_token_id"]) if id >= 0]}
    if banned := _banned(given):
        chosen["banned_ids"] = banned
    if "stop_strings" in given:
        chosen["stop"] = _checked_texts(given["stop_strings"])
    return chosen


def _lengths(given: Mapping[str, Any], prompt_tokens: int) -> dict[str, int]:
    """Counts of new tokens; max_length and min_length, which count the prompt too, are converted. The maximum wins."""
    most, least = given.get("max_new_tokens"), given.get("min_new_tokens")
    if most is None and "max_length" in given:
        most = whole("max_length", given["max_length"]) - prompt_tokens
        if most < 1:
            raise BadInput(f"max_length {given['max_length']} leaves no room after {prompt_tokens} prompt tokens")
    if least is None and "min_length" in given:
        least = max(0, whole("min_length", given["min_length"]) - prompt_tokens)
    if most is not None and least is not None:
        least = min(whole("max_new_tokens", most), whole("min_new_tokens", least))
    return {n: count for n, count in (("max_new_tokens", most), ("min_new_tokens", least)) if count is not None}


def _checked_texts(given: Any) -> Any:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, (list, tuple, set)) or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"stop_strings takes a text or a list of texts, not {_shown(given)}")
    return given


def _banned(given: Mapping[str, Any]) -> list[int]:
    words = [flat(word) for word in given.get("bad_words_ids", ())]
    long = next((word for word in words if len(word) != 1), None)
    if long is not None:
        raise BadInput(f"generate: bad_words_ids takes words of one id here, {long!r:.60} has {len(long)}")
    return [*(word[0] for word in words), *flat(given.get("suppress_tokens", ()))]


def quant_of_dtype(dtype: Any) -> str | None:
    """The recipe for a torch dtype, given as text or as a dtype; None for no dtype or "auto"."""
    name = "auto" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in _QUANT_OF_DTYPE:
        known = ", ".join(_QUANT_OF_DTYPE)
        raise BadInput(f"torch_dtype {name!r:.60} is not here; there are {known}; quant= names a recipe")
    return _QUANT_OF_DTYPE[name]


def check_on_cpu(*places: Any, **named: Any) -> None:
    """Raise `BadInput` for a device other than the CPU and for a dtype other than float32."""
    for place in (*places, *named.values()):
        name = str(place).removeprefix("torch.")
        if place is not None and not isinstance(place, bool) and name not in ("cpu", "cpu:0", "float32"):
            raise BadInput(f"device or dtype {name!r:.60} is not here: this computes in float32 on the CPU")
