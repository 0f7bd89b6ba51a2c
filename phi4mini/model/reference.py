"""The whole model in NumPy: no cache, no tricks, each array with its shape. This is the definition of the model.

Promises: equal to Hugging Face's Phi3ForCausalLM and LlamaForCausalLM within rounding, LongRoPE, grouped queries and
sliding window included; with an adapter, equal to the model whose matrices are W + scale * B A. Every fast path is
tested against it. It does not know tokens' text, files or speed.
Letters of the shapes: n tokens, h hidden, d head_dim, r rotary_dim, m intermediate, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from phi4mini.errors import BadInput
from phi4mini.model.adapter import Adapter, LowRank
from phi4mini.model.config import Config
from phi4mini.model.longrope import RopeMode

Rounding = Callable[[np.ndarray], np.ndarray]


class Layer(Protocol):
    """One decoder block: norms are arrays, a matrix is an array or anything with `dequantize()`."""

    input_norm: Any  # (h,)
    qkv: Any  # ((num_heads + 2 * num_kv_heads) * d, h)
    o: Any  # (h, num_heads * d)
    post_norm: Any  # (h,)
    gate_up: Any  # (2 * m, h)
    down: Any  # (h, m)


class Model(Protocol):
    """What `phi4mini.model.arrays.Weights` holds."""

    config: Config
    embed: Any  # (v, h)
    layers: Any  # a list of Layer
    norm: Any  # (h,)
    head: Any  # (v, h)


def forward(
    weights: Model,
    ids: Sequence[int] | np.ndarray,
    rope: RopeMode = "auto",
    dtype: type[np.floating] = np.float32,
    *,
    round_input: Rounding | None = None,
    round_kv: Rounding | None = None,
    adapter: Adapter | None = None,
) -> np.ndarray:
    """Logits for every position: ids (n,) -> float32 (n, v), float64 when `dtype` is float64.

    `rope` "auto" takes LongRoPE's factor set from n. `round_input` is applied to the input (n, columns) of every matrix
    product, the head's included, and `round_kv` to the rotated keys and the values (num_kv_heads, n, d): this is how
    quantised activations and a quantised cache are defined. `adapter` multiplies the same rounded inputs as the matrix
    it belongs to; what lies between its A and B is not rounded. Raises `BadInput` for ids outside the vocabulary and
    for an adapter of another shape.
    """
    x = hidden(weights, ids, rope, dtype, round_input=round_input, round_kv=round_kv, adapter=adapter)  # (n, h)
    return product((round_input or _exact)(x), weights.head)  # (n, v)


def hidden(
    weights: Model,
    ids: Sequence[int] | np.ndarray,
    rope: RopeMode = "auto",
    dtype: type[np.floating] = np.float32,
    *,
    round_input: Rounding | None = None,
    round_kv: Rounding | None = None,
    adapter: Adapter | None = None,
) -> np.ndarray:
    """Hidden states after the last norm, what the head multiplies: ids (n,) -> (n, h). Arguments as in `forward`."""
    config = weights.config
    tokens = _checked(ids, config.vocab_size)  # (n,)
    n = len(tokens)
    if adapter is not None:
        adapter.check(config)
    quant, quant_kv = round_input or _exact, round_kv or _exact
    # The table is float32 at every dtype, as in transformers: its rounding is part of the model.
    cos, sin = (t.astype(dtype) for t in config.rope_table(np.arange(n), config.rope_set(n, rope)))  # (n, r / 2) each

    x = dense(weights.embed, dtype)[tokens]  # (n, h)
    for number, layer in enumerate(weights.layers):
        added: Mapping[str, LowRank] = adapter.layers[number] if adapter else {}
        a = quant(rms_norm(x, layer.input_norm, config.rms_norm_eps))  # (n, h)
        qkv = product(a, layer.qkv, added.get("qkv"))  # (n, (num_heads + 2 * num_kv_heads) * d)
        heads = qkv.reshape(n, -1, config.head_dim).transpose(1, 0, 2)  # (num_heads + 2 * num_kv_heads, n, d)
        q, k, v = np.split(heads, [config.num_heads, config.num_heads + config.num_kv_heads])  # (its heads, n, d) each
        mixed = attention(rotate(q, cos, sin), quant_kv(rotate(k, cos, sin)), quant_kv(v), config.sliding_window)
        x = x + product(quant(mixed), layer.o, added.get("o"))  # (n, h)

        a = quant(rms_norm(x, layer.post_norm, config.rms_norm_eps))  # (n, h)
        gate, up = np.split(product(a, layer.gate_up, added.get("gate_up")), 2, axis=1)  # (n, m) each
        x = x + product(quant(silu(gate) * up), layer.down, added.get("down"))  # (n, h)
    return rms_norm(x, weights.norm, config.rms_norm_eps)  # (n, h)


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x (n, h) divided by its root mean square, times weight (h,) -> (n, h)."""
    scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps))  # (n, 1)
    return x * scale * np.asarray(weight, x.dtype)


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotary positions: x (heads, n, d), cos and sin (n, r / 2) -> (heads, n, d).

    Dimension j turns with j + r / 2 (GPT-NeoX order, not neighbours); dimensions from r on pass through unscaled.
    """
    half = cos.shape[1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, sliding_window: int | None) -> np.ndarray:
    """Causal softmax attention: q (num_heads, n, d), k and v (num_kv_heads, n, d) -> (n, num_heads * d).

    Consecutive query heads share a key and value head. Query i sees keys i - sliding_window < j <= i.
    """
    num_heads, n, d = q.shape
    behind = np.arange(n)[:, None] - np.arange(n)[None, :]  # (n, n) how far key j lies behind query i
    seen = (behind >= 0) & (behind < (sliding_window or n))  # (n, n)
    out = np.empty((n, num_heads, d), q.dtype)
    for head in range(num_heads):  # one head at a time bounds memory to a few (n, n)
        shared = head * len(k) // num_heads
        scores = q[head] @ k[shared].T / q.dtype.type(np.sqrt(d))  # (n, n)
        out[:, head] = softmax(np.where(seen, scores, -np.inf)) @ v[shared]  # (n, d)
    return out.reshape(n, num_heads * d)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis; -inf becomes 0."""
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x), without overflow for large negative x."""
    return x / (1 + np.exp(-np.maximum(x, -80)))


def product(x: np.ndarray, matrix: Any, part: LowRank | None = None) -> np.ndarray:
    """x (n, columns) times a stored matrix, with an adapter's part: W x + scale * B (A x), (n, rows), dtype of x."""
    y = x @ dense(matrix, x.dtype).T  # (n, rows)
    if part is not None:
        inner = x @ part.a.T.astype(x.dtype)  # (n, rank)
        y += x.dtype.type(part.scale) * (inner @ part.b.T.astype(x.dtype))  # (n, rows)
    return y


def dense(matrix: Any, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
    """A stored matrix, or an array as it is, as an array of `dtype` (rows, columns)."""
    return np.asarray(matrix.dequantize() if hasattr(matrix, "dequantize") else matrix, dtype)


def _exact(x: np.ndarray) -> np.ndarray:
    return x


def _checked(ids: Sequence[int] | np.ndarray, vocab_size: int) -> np.ndarray:
    tokens = np.asarray(ids)
    if tokens.ndim != 1 or len(tokens) == 0 or tokens.dtype.kind not in "iu":
        raise BadInput("ids must be a non-empty list of whole numbers")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise BadInput(f"ids must be from 0 to {vocab_size - 1}, got {tokens.min()} to {tokens.max()}")
    return tokens
