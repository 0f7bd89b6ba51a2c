"""Every number of the model, checked when a `Config` is made, so that later code need not check again.

Promises: a wrong number in a config file (negative, huge, of a wrong type, a factor list of the wrong length, heads
that do not divide) is refused with one line before anything is allocated. longrope.py has the rotary positions. This
file does not know files, weights, kernels or text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from phi4mini.errors import BadCheckpoint, BadInput
from phi4mini.model.config_json import FAMILIES, LARGEST_FACTOR, WHOLE_NUMBERS, positive, read_fields, short, whole
from phi4mini.model.longrope import LongRope

KvFormat = Literal["int8", "f32"]

_MOST_PARAMETERS = 1 << 38  # 275 billion: more than any model of these families, less than what overflows a size
_FLOATS = (("rms_norm_eps", 1.0), ("rope_theta", 1e12))  # largest values

# fmt: off
_PHI4_MINI_LONG_FACTOR = (
    1.0, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649,
    2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533,
    5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651,
    14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03,
    32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
)
# fmt: on


@dataclass(frozen=True)
class Config(LongRope):
    """The numbers of one Phi-3 or Llama shaped model. Raises `BadCheckpoint` when they contradict each other."""

    architecture: Literal["phi3", "llama"]  # the family: names of tensors, and which options exist
    vocab_size: int  # rows of the embedding table, free rows included
    hidden_size: int  # width of the residual stream
    intermediate_size: int  # width of the MLP between gate_up and down
    num_layers: int  # decoder blocks
    num_heads: int  # query heads
    num_kv_heads: int  # key and value heads, each shared by num_heads / num_kv_heads query heads
    head_dim: int  # width of one head
    rotary_dim: int  # leading dimensions of a head that are rotated; the rest pass through
    rms_norm_eps: float  # added to the mean square before its root
    rope_theta: float  # base of the rotary wavelengths
    max_position_embeddings: int  # longest context, tokens
    original_max_position_embeddings: int  # LongRoPE: tokens up to which the short factors hold
    short_factor: tuple[float, ...] | None  # LongRoPE divisors up to that length, rotary_dim / 2; None: plain RoPE
    long_factor: tuple[float, ...] | None  # LongRoPE divisors beyond that length, rotary_dim / 2
    sliding_window: int | None  # a query sees this many last tokens, itself included; None: all
    tie_word_embeddings: bool  # the output head is the embedding table
    bos_token_id: int | None  # begin of text, if the family has one
    eos_token_ids: tuple[int, ...]  # any of these ends generation
    pad_token_id: int | None  # filler id of batches, if there is one
    attention_factor: float | None = None  # LongRoPE's mscale when the file states it; None: from scale_factor
    scale_factor: float | None = None  # LongRoPE's stretch when the file states it; None: max / original positions

    def __post_init__(self) -> None:
        if self.architecture not in FAMILIES:
            raise BadCheckpoint(f"config: architecture {self.architecture!r} is not phi3 or llama")
        for key, field, _, _ in WHOLE_NUMBERS:
            whole(key, getattr(self, field))
        for key, high in _FLOATS:
            positive(key, getattr(self, key), high)
        if self.sliding_window is not None:
            whole("sliding_window", self.sliding_window)
        self._check_heads()
        self._check_factors()
        self._check_ids()
        if self.num_parameters > _MOST_PARAMETERS:
            raise BadCheckpoint(f"config: {self.num_parameters} parameters are more than the limit {_MOST_PARAMETERS}")

    def _check_heads(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise BadCheckpoint(
                f"config: num_attention_heads {self.num_heads} is not a multiple of "
                f"num_key_value_heads {self.num_kv_heads}"
            )
        if self.head_dim % 2 or self.rotary_dim % 2:
            raise BadCheckpoint(
                f"config: head_dim {self.head_dim} and rotary_dim {self.rotary_dim} must be even (pairs are rotated)"
            )
        if self.rotary_dim > self.head_dim:
            raise BadCheckpoint(f"config: rotary_dim {self.rotary_dim} is more than head_dim {self.head_dim}")

    def _check_factors(self) -> None:
        if (self.short_factor is None) != (self.long_factor is None):
            raise BadCheckpoint("config: LongRoPE needs both short_factor and long_factor")
        for key in ("short_factor", "long_factor"):
            factors = getattr(self, key)
            if factors is None:
                continue
            if not isinstance(factors, tuple) or len(factors) != self.rotary_dim // 2:
                got = len(factors) if isinstance(factors, (tuple, list)) else repr(factors)
                raise BadCheckpoint(f"config: {key} must be {self.rotary_dim // 2} numbers (rotary_dim / 2), got {got}")
            for factor in factors:
                positive(key, factor, LARGEST_FACTOR)
        for key in ("attention_factor", "scale_factor"):
            if getattr(self, key) is not None:
                positive(key, getattr(self, key), LARGEST_FACTOR)
        if self.short_factor is not None and self.original_max_position_embeddings < 2:
            raise BadCheckpoint("config: original_max_position_embeddings 1 gives LongRoPE no scale, at least 2 needed")

    def _check_ids(self) -> None:
        if not isinstance(self.tie_word_embeddings, bool):
            raise BadCheckpoint(f"config: tie_word_embeddings must be true or false, got {self.tie_word_embeddings!r}")
        named: list[tuple[str, int | None]] = [("eos_token_id", token) for token in self.eos_token_ids]
        named += [("bos_token_id", self.bos_token_id), ("pad_token_id", self.pad_token_id)]
        for key, token in named:
            if token is not None and (type(token) is not int or not 0 <= token < self.vocab_size):
                raise BadCheckpoint(f"config: {key} {short(token)} is not an id from 0 to {self.vocab_size - 1}")

    # ---- where a Config comes from

    @classmethod
    def phi4_mini(cls) -> Config:
        """microsoft/Phi-4-mini-instruct, as its config.json and generation_config.json have it."""
        return cls(
            architecture="phi3",
            vocab_size=200064,
            hidden_size=3072,
            intermediate_size=8192,
            num_layers=32,
            num_heads=24,
            num_kv_heads=8,
            head_dim=128,
            rotary_dim=96,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            short_factor=(1.0,) * 48,
            long_factor=_PHI4_MINI_LONG_FACTOR,
            sliding_window=262144,
            tie_word_embeddings=True,
            bos_token_id=199999,
            eos_token_ids=(200020, 199999),
            pad_token_id=199999,
        )

    @classmethod
    def from_json(cls, config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> Config:
        """A Config from a checkpoint's config.json and generation_config.json, as parsed.

        Reads Phi3ForCausalLM and LlamaForCausalLM, in the spelling of transformers 4 (`rope_scaling`) and 5
        (`rope_parameters`). Generation stops on the ids of both files: Phi-4-mini's turn end is only in the second.
        Raises `BadCheckpoint` naming the key, the value and the limit for what is wrong or not supported.
        """
        return cls(**read_fields(config, {} if generation is None else generation))

    def to_json(self) -> dict[str, Any]:
        """Our own flat form, plain JSON types; `from_store_json` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_store_json(cls, fields: Mapping[str, Any]) -> Config:
        """The inverse of `to_json`. Raises `BadCheckpoint` for a missing, unknown or lying field."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise BadCheckpoint(f"config: {short(name)} is not a field this version knows")
        for name, field in known.items():
            if name not in fields and field.default is dataclasses.MISSING:
                raise BadCheckpoint(f"config: the field {name} is missing")
        if not isinstance(fields["eos_token_ids"], list):
            raise BadCheckpoint(f"config: eos_token_ids must be a list, got {short(fields['eos_token_ids'])}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)

    # ---- shapes, bytes, arithmetic

    @property
    def q_rows(self) -> int:
        """Rows of Q in the fused projection: num_heads * head_dim."""
        return self.num_heads * self.head_dim

    @property
    def kv_rows(self) -> int:
        """Rows of K, and of V, in the fused projection: num_kv_heads * head_dim."""
        return self.num_kv_heads * self.head_dim

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused projection: Q, then K, then V."""
        return self.q_rows + 2 * self.kv_rows

    @property
    def group_size(self) -> int:
        """Query heads that share one key and value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def layer_shapes(self) -> dict[str, tuple[int, int]]:
        """The matrices of one layer, by the field of `LayerWeights`: (output rows, input columns)."""
        return {
            "qkv": (self.qkv_rows, self.hidden_size),
            "o": (self.hidden_size, self.q_rows),
            "gate_up": (2 * self.intermediate_size, self.hidden_size),
            "down": (self.hidden_size, self.intermediate_size),
        }

    @property
    def num_parameters(self) -> int:
        """Weights of the whole model; a tied head counts once."""
        tables = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        layer = sum(rows * cols for rows, cols in self.layer_shapes.values()) + 2 * self.hidden_size
        return tables + self.num_layers * layer + self.hidden_size

    @property
    def matrix_elements_per_token(self) -> int:
        """Weights multiplied for one new token: all layers and the head; the embedding is a row, not a product."""
        layer = sum(rows * cols for rows, cols in self.layer_shapes.values())
        return self.num_layers * layer + self.vocab_size * self.hidden_size

    def flops_per_token(self, context: int) -> int:
        """Floating-point operations for one new token that sees `context` tokens: a multiply and an add each."""
        seen = context if self.window is None else min(context, self.window)
        return 2 * self.matrix_elements_per_token + 4 * self.num_layers * self.q_rows * seen

    def kv_bytes_per_token(self, kv: KvFormat) -> int:
        """Bytes of KV cache one token takes: f32 values, or int8 values with an f32 scale each for K and V."""
        if kv not in ("int8", "f32"):
            raise BadInput(f"kv must be int8 or f32, got {kv!r}")
        head = 2 * self.head_dim * 4 if kv == "f32" else 2 * self.head_dim + 2 * 4
        return self.num_layers * self.num_kv_heads * head

    @property
    def window(self) -> int | None:
        """The sliding window where it can matter; None when it is as long as the longest context."""
        if self.sliding_window is None or self.sliding_window >= self.max_position_embeddings:
            return None
        return self.sliding_window
