"""`GenerationConfig` and `set_seed`: the defaults of `generate`.

Promises: a config holds no value that `generate` would refuse; arguments of a call win over its `generation_config`,
which wins over the model's own config, read from generation_config.json, as in transformers.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import not_here, taken
from phi4mini.transformers_api.tables import GENERATING

_OF_A_CALL = (
    "inputs",
    "input_ids",
    "attention_mask",
    "generation_config",
    "streamer",
    "stopping_criteria",
    "tokenizer",
)
_FIELDS = tuple(name for name in GENERATING if name not in _OF_A_CALL)
_NOT_OURS = ("transformers_version", "_from_model_config")  # written into files, of no effect in transformers either
_MAX_SEED = 2**53
_log = logging.getLogger(__name__)


class GenerationConfig:
    """Defaults of `generate`: its arguments as attributes, None if not set."""

    def __init__(self, **values: Any) -> None:
        """Raises `BadInput` for a name or value that `generate` would refuse."""
        self.__dict__["_values"] = {}
        self.update(**{name: value for name, value in values.items() if name not in _NOT_OURS})
        if unknown := next((name for name in values if name not in (*_FIELDS, *_NOT_OURS)), None):
            raise BadInput(f"a GenerationConfig does not take {unknown!r} here")

    @classmethod
    def from_pretrained(cls, pretrained_model_name: str, **values: Any) -> GenerationConfig:
        """A model's generation_config.json, or its end ids without that file; `values` win."""
        from phi4mini.llm.model import generation_defaults, load_config

        found = generation_defaults(str(pretrained_model_name))
        made = cls.from_file(found) if found else cls(**ends_of(load_config(str(pretrained_model_name))))
        made.update(**values)
        return made

    @classmethod
    def from_file(cls, found: Mapping[str, Any]) -> GenerationConfig:
        """From the content of a generation_config.json. A value that `generate` refuses is left out with a warning."""
        made = cls()
        for name, value in found.items():
            try:
                unknown = name not in _NOT_OURS and made.update(**{name: value})
            except BadInput as error:
                _log.warning("generation_config.json: left out: %s", error)
            else:
                if unknown:
                    _log.warning("generation_config.json: left out: %s, which is unknown here", name)
        return made

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **values: Any) -> GenerationConfig:
        """From a dict; `values` win."""
        return cls(**{**config_dict, **values})

    def update(self, **values: Any) -> dict[str, Any]:
        """Set the known names and return the rest, as transformers does. Raises `BadInput` for a refused value."""
        known = {name: value for name, value in values.items() if name in _FIELDS}
        taken("generate", known)
        self._values.update(known)
        return {name: value for name, value in values.items() if name not in known}

    def to_dict(self) -> dict[str, Any]:
        """The values that are set."""
        return {name: value for name, value in self._values.items() if value is not None}

    def to_diff_dict(self) -> dict[str, Any]:
        """The same as `to_dict`: it holds no defaults."""
        return self.to_dict()

    def to_json_string(self, use_diff: bool = True) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def __getattr__(self, name: str) -> Any:
        """A value, or None if it is not set."""
        if name in _FIELDS:
            return self.__dict__["_values"].get(name)
        raise not_here(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a value. Raises `BadInput` for what `generate` would refuse."""
        if self.update(**{name: value}):
            raise BadInput(f"a GenerationConfig does not take {name!r} here")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"GenerationConfig {self.to_json_string()}"


def ends_of(config: Any) -> dict[str, Any]:
    """The special ids of a model's `Config` under the names of a generation_config.json."""
    ids = {"bos_token_id": config.bos_token_id, "pad_token_id": config.pad_token_id}
    return ids | {"eos_token_id": list(config.eos_token_ids) or None}


def layered(own: GenerationConfig, given: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in force: the call's own over its `generation_config` over the model's; None is "not given"."""
    if given is not None and not isinstance(given, (GenerationConfig, Mapping)):
        raise BadInput(f"generation_config must be a GenerationConfig or a dict, not {type(given).__name__}")
    middle = given if isinstance(given, GenerationConfig) else GenerationConfig(**given or {})
    said = {name: value for name, value in arguments.items() if value is not None}
    merged = own.to_dict() | middle.to_dict() | said
    for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        for layer in (said, middle.to_dict(), own.to_dict()):
            if new in layer or whole in layer:  # the first layer that sets either length decides
                merged = {name: value for name, value in merged.items() if name not in (new, whole)}
                merged |= {name: layer[name] for name in (new, whole) if name in layer}
                break
    return merged


class _Seeds:
    """The random generator of seeds, after `set_seed`."""

    source: random.Random | None = None


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Draw the seeds of later calls without `seed=` from this seed, in the order of the calls."""
    if not isinstance(seed, int):
        raise BadInput(f"a seed is an integer, not {seed!r:.40}")
    _Seeds.source = random.Random(seed)


def next_seed() -> int | None:
    """The next seed after `set_seed`; None before it, which means a random seed."""
    return None if _Seeds.source is None else _Seeds.source.randrange(_MAX_SEED)
