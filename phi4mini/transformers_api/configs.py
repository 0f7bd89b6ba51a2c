"""A model's config under transformers' names: `model.config.num_hidden_layers`, `AutoConfig`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import taken
from phi4mini.transformers_api.tables import METHODS

if TYPE_CHECKING:
    from phi4mini.model.config import Config

_NAMES = {  # transformers' -> ours
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
}
_SAME = (
    *("vocab_size", "hidden_size", "intermediate_size", "head_dim", "max_position_embeddings"),
    *("original_max_position_embeddings", "rms_norm_eps", "rope_theta", "sliding_window", "tie_word_embeddings"),
    *("bos_token_id", "pad_token_id"),
)
_FIXED = {"hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "torch_dtype": "float32"}
_FIXED |= {"is_encoder_decoder": False, "dtype": "float32"}
_SETTABLE = ("pad_token_id", "use_cache", "_name_or_path")  # scripts set these; none changes an answer


class ModelConfig:
    """A model's numbers, under transformers' names and ours (`num_layers`, `eos_token_ids`); they cannot be changed."""

    def __init__(self, config: Config, name: str = "", eos_token_id: int | None = None) -> None:
        """`eos_token_id`: the tokenizer's end of text; config.json names it if it is one of the model's end ids."""
        ends = config.eos_token_ids
        one = eos_token_id if eos_token_id in ends else ends[0] if len(ends) == 1 else None
        self.__dict__.update(ours=config, _eos=one if one is not None else list(ends) or None)
        self.__dict__["_set"] = {"_name_or_path": name, "use_cache": True}

    def __getattr__(self, name: str) -> Any:
        """A number by transformers' name or ours."""
        if name.startswith("__") or name in ("ours", "_eos", "_set"):  # copy looks these up before they are set
            raise AttributeError(name)
        found = self.to_dict()
        if name in found:
            return found[name]
        if hasattr(self.ours, name):
            return getattr(self.ours, name)
        raise AttributeError(f"a model's config has no {name!r} here; it has {', '.join(sorted(found))}")

    def __setattr__(self, name: str, value: Any) -> None:
        """`pad_token_id`, which fills shorter rows of `generate`; `use_cache` has no effect. Numbers are refused."""
        if name not in _SETTABLE:
            raise BadInput(f"config.{name} cannot be set: a checkpoint's numbers are what they are")
        self._set[name] = value

    def to_dict(self) -> dict[str, Any]:
        """All values under transformers' names."""
        config: Config = self.ours
        family = "Phi3" if config.architecture == "phi3" else "Llama"
        found: dict[str, Any] = {"model_type": config.architecture, "architectures": [f"{family}ForCausalLM"]}
        found |= {name: getattr(config, name) for name in _SAME}
        found |= {theirs: getattr(config, ours) for theirs, ours in _NAMES.items()}
        found |= _FIXED | {"eos_token_id": self._eos, "rope_parameters": self._rope()}
        found |= {"rope_scaling": found["rope_parameters"], "partial_rotary_factor": self._partial()}
        return found | self._set

    def to_json_string(self, use_diff: bool = True) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def get(self, name: str, default: Any = None) -> Any:
        """As `getattr` with a default."""
        return getattr(self, name, default)

    def _partial(self) -> float:
        return float(self.ours.rotary_dim / self.ours.head_dim)

    def _rope(self) -> dict[str, Any]:
        config: Config = self.ours
        plain = {"rope_theta": config.rope_theta, "partial_rotary_factor": self._partial()}
        if config.short_factor is None or config.long_factor is None:
            return plain | {"rope_type": "default"}
        factors = {"short_factor": list(config.short_factor), "long_factor": list(config.long_factor)}
        original = config.original_max_position_embeddings
        return plain | factors | {"rope_type": "longrope", "original_max_position_embeddings": original}

    def __repr__(self) -> str:
        return f"ModelConfig {self.to_json_string()}"


class AutoConfig:
    """`from_pretrained` gives a `ModelConfig`."""

    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str, **others: Any) -> ModelConfig:
        """The config of a model by its name; the model is fetched and converted first if need be."""
        from phi4mini.llm.model import load_config, load_tokenizer
        from phi4mini.transformers_api.special import end_of_text

        used = taken("AutoConfig.from_pretrained", others)
        name, offline = str(pretrained_model_name_or_path), bool(used.get("local_files_only", False))
        return ModelConfig(load_config(name, offline), name, end_of_text(load_tokenizer(name, offline)[0]))


class BitsAndBytesConfig:
    """Not supported: creating one raises a `BadInput` that names the alternative."""

    def __init__(self, **_: Any) -> None:
        why = METHODS["AutoModelForCausalLM.from_pretrained"]["quantization_config"].why
        raise BadInput(f"BitsAndBytesConfig is not here: {why}")
