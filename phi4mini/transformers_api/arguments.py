"""The arguments of transformers, and what they mean here: ours, no effect, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phi4mini.errors import BadInput

_QUANT_OF_DTYPE = {"auto": None, "float32": "f32", "bfloat16": "bf16"}
ON_CPU: tuple[Any, ...] = (None, "auto", "cpu", {"": "cpu"})

# Accepted with these values, which are what happens anyway; any other value is refused.
LOADING: dict[str, tuple[Any, ...]] = {
    "trust_remote_code": (True, False, None),
    "attn_implementation": (None, "eager", "sdpa", "flash_attention_2"),
    "low_cpu_mem_usage": (True, False, None),
    "use_safetensors": (True, None),
    "use_fast": (True, None),
}
GENERATING: dict[str, tuple[Any, ...]] = {
    "num_beams": (1, None),
    "num_return_sequences": (1, None),
    "use_cache": (True, None),
    "return_dict_in_generate": (False, None),
    "output_scores": (False, None),
    "clean_up_tokenization_spaces": (False, None),
}
_PASSED_ON = ("min_p", "repetition_penalty", "min_new_tokens", "max_new_tokens", "seed", "rope")
_DEFAULT_TOP_K = 50  # of transformers' GenerationConfig when sampling


def generation_arguments(arguments: Mapping[str, Any], prompt_tokens: int) -> dict[str, Any]:
    """Our sampling keywords from those of transformers' `generate`. Raises `BadInput` for what cannot be honoured.

    Without `do_sample=True` temperature, top_k and top_p have no effect, as in transformers.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    chosen = {name: given.pop(name) for name in _PASSED_ON if name in given}
    drawing = {name: given.pop(name) for name in ("temperature", "top_k", "top_p") if name in given}
    if given.pop("do_sample", False):
        chosen |= {"temperature": 1.0, "top_k": _DEFAULT_TOP_K, "top_p": 1.0} | drawing
        if chosen["temperature"] == 0:
            raise BadInput("temperature 0 with do_sample=True draws nothing; use do_sample=False for greedy")
    if "max_length" in given:
        room = given.pop("max_length") - prompt_tokens
        if "max_new_tokens" not in chosen:
            if room < 1:
                raise BadInput(f"max_length {room + prompt_tokens} leaves no room after {prompt_tokens} prompt tokens")
            chosen["max_new_tokens"] = room
    if "eos_token_id" in given:
        ends = given.pop("eos_token_id")
        chosen |= {"ignore_eos": True, "stop_ids": [ends] if isinstance(ends, int) else list(ends)}
    if "stop_strings" in given:
        chosen["stop"] = given.pop("stop_strings")
    refuse_unknown("generate", given, GENERATING)
    return chosen


def refuse_unknown(where: str, arguments: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise `BadInput` naming the first argument that is not in `neutral`, or is there with other values."""
    for name, value in arguments.items():
        if name not in neutral:
            raise BadInput(f"{where} does not take {name!r} here")
        if not any(type(value) is type(allowed) and value == allowed for allowed in neutral[name]):
            raise BadInput(f"{where}: {name}={value!r:.60} is not here; what there is: {neutral[name][0]!r}")


def quant_of_dtype(dtype: Any) -> str | None:
    """The recipe for a torch dtype, given as text or as the dtype itself ("torch.float32"); None for none or "auto"."""
    name = "auto" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in _QUANT_OF_DTYPE:
        known = ", ".join(_QUANT_OF_DTYPE)
        raise BadInput(f"torch_dtype {name!r:.60} is not here; there are {known}; quant= names a recipe")
    return _QUANT_OF_DTYPE[name]


def check_on_cpu(device: Any) -> None:
    """Raise `BadInput` for any device but the CPU."""
    if str(device) != "cpu":
        raise BadInput(f"device {str(device)!r:.60} is not here: this runs on the CPU")
