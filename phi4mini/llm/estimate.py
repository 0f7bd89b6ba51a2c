"""The memory that a model will take, before it is loaded: weights, KV cache, buffers; and the longest context.

Promises: the bytes of weights are exactly those of the store; the bytes of buffers follow `engine/compute/buffers.py`,
and a test compares both. It reads no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from phi4mini.engine.compute.buffers import MAX_ROWS, OUTPUT_ROWS, PADDING, PARTIAL_ROWS
from phi4mini.formats.format_table import Format
from phi4mini.kernels.attention import partial_floats
from phi4mini.model.arrays import StackFormat
from phi4mini.model.config import Config, KvFormat
from phi4mini.weights.checkpoints.tensor_names import arrays
from phi4mini.weights.store.recipes import recipe
from phi4mini.weights.store.store import array_bytes


@dataclass(frozen=True)
class Estimate:
    """Bytes, and tokens of context. `largest_ctx` is 0 if the weights alone do not fit."""

    weights: int
    kv_per_token: int
    kv: int
    compute: int
    available: int
    ctx: int
    longest: int  # the model's own limit
    largest_ctx: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute

    @property
    def fits(self) -> bool:
        return self.total <= self.available


def estimate(config: Config, weights: int, kv: KvFormat, ctx: int, available: int) -> Estimate:
    """The estimate for `weights` bytes of weights and `ctx` tokens of context, in `available` bytes of memory."""
    per_token, compute = config.kv_bytes_per_token(kv), compute_bytes(config)
    room = max(available - weights - compute, 0) // per_token
    longest = config.max_position_embeddings
    return Estimate(weights, per_token, ctx * per_token, compute, available, ctx, longest, min(room, longest))


def recipe_formats(config: Config, quant: str) -> dict[str, Format]:
    """The format of every matrix when a float checkpoint is converted. Raises `BadInput` for an unknown recipe."""
    chosen, tied = recipe(quant), config.tie_word_embeddings
    return {name: chosen.wanted(name, tied) for name, shape in arrays(config).items() if len(shape) == 2}


def weight_bytes(config: Config, formats: Mapping[str, Format | StackFormat]) -> int:
    """Bytes of all arrays with the matrices in these formats."""
    return sum(
        array_bytes(shape, formats[name].name if name in formats else "f32") for name, shape in arrays(config).items()
    )


def compute_bytes(config: Config) -> int:
    """Bytes of the engine's buffers for the largest pass; a short prompt touches a fraction of them."""
    c, rows, outputs = config, MAX_ROWS + PADDING, OUTPUT_ROWS
    residual = rows * (c.hidden_size + c.qkv_rows + 2 * c.intermediate_size) * 4
    activations = rows * (c.hidden_size + c.q_rows + c.intermediate_size) * 4  # as float32; a quarter when quantised
    queries = rows * c.q_rows * 4
    partial = (PARTIAL_ROWS + rows) * c.num_heads * partial_floats(c.head_dim) * 4
    logits = outputs * (c.vocab_size + 2 * c.hidden_size) * 4
    return residual + activations + queries + partial + logits
