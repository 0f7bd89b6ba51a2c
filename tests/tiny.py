"""Tiny random models in any storage format, and what the tests of kernels and engine need to look inside them.

The shapes are few on purpose: a kernel is compiled for each width, so most tests share the model of `config()`.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np

from phi4mini.engine.cache.disk import CacheFolder
from phi4mini.engine.cache.pages import pages_for
from phi4mini.engine.compute.buffers import MAX_ROWS, rows_that_fit
from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.schedule.pace import Pace
from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.formats.matrix import Blocks, Matrix, pack_blocks, pack_dense
from phi4mini.formats.rounding import quantize_blocks
from phi4mini.kernels.threads.pool import Pool, aligned
from phi4mini.model.arrays import LayerWeights, Weights
from phi4mini.model.config import Config

EOS = 2
_PHI3 = Config(
    architecture="phi3", vocab_size=160, hidden_size=128, intermediate_size=128, num_layers=2, num_heads=4,
    num_kv_heads=2, head_dim=32, rotary_dim=24, rms_norm_eps=1e-5, rope_theta=1e4, max_position_embeddings=2048,
    original_max_position_embeddings=64, short_factor=tuple(1 + 0.03 * j for j in range(12)),
    long_factor=tuple(1 + 0.2 * j * j for j in range(12)), sliding_window=None, tie_word_embeddings=True,
    bos_token_id=1, eos_token_ids=(EOS,), pad_token_id=0,
)  # fmt: skip


def config(**changes: Any) -> Config:
    """The Phi-3 shaped model that tests share (LongRoPE at 64, part of a head rotated, tied), or a variation."""
    return dataclasses.replace(_PHI3, **changes)


def llama(**changes: Any) -> Config:
    """The same sizes as a Llama: plain RoPE over whole heads."""
    plain = {"short_factor": None, "long_factor": None, "original_max_position_embeddings": 2048, "rotary_dim": 32}
    return config(architecture="llama", **{**plain, **changes})


# matrices ---------------------------------------


def parts(values: np.ndarray, format: Format, rng: np.random.Generator) -> Blocks:
    """Blocks near `values` (rows, cols): quantised for one-level formats, random of that size for two-level ones."""
    if not format.two_level:
        return quantize_blocks(values, format)
    rows, cols = values.shape
    groups, supers = -(-cols // format.group), -(-cols // format.superblock)
    top = format.largest + 1
    unit = float(values.std()) / (top / 3.5 * 32)
    q = rng.integers(0, top, (rows, cols)).astype(np.uint8)
    d = (unit * rng.uniform(0.8, 1.2, (rows, supers))).astype(np.float16)
    if format.signed_scale:
        return Blocks(q, rng.integers(-63, 64, (rows, groups)).astype(np.int8), None, d)
    scale = rng.integers(16, 64, (rows, groups)).astype(np.uint8)
    dmin = (d.astype(np.float32) * (top - 1) / 2).astype(np.float16)
    return Blocks(q, scale, scale.copy(), d, dmin)


def exact(blocks: Blocks, format: Format) -> tuple[np.ndarray, np.ndarray]:
    """What `blocks` mean, in float64 where nothing is rounded: weights and the minimum inside each, (rows, cols)."""
    rows, cols = blocks.q.shape

    def wide(a: np.ndarray | None, unit: int) -> np.ndarray:
        return np.zeros((rows, cols)) if a is None else np.repeat(a.astype(np.float64), unit, axis=1)[:, :cols]

    scale, minimum = wide(blocks.scale, format.group), wide(blocks.minimum, format.group)
    if format.two_level:
        scale, minimum = scale * wide(blocks.d, format.superblock), minimum * -wide(blocks.dmin, format.superblock)
    return (blocks.q.astype(np.float64) - format.zero) * scale + minimum, minimum


def stored(data: np.ndarray, format: Format, rows: int, cols: int) -> Matrix:
    """Packed bytes as a Matrix whose data begins on a cache line, as kernels want it."""
    place = aligned(data.size, np.uint8)
    place[:] = data
    return Matrix(format, rows, cols, place)


def matrix(values: np.ndarray, format: str, rng: np.random.Generator) -> Matrix:
    """float32 (rows, cols) stored in a format; a two-level format takes only their size from them."""
    f = FORMATS[format]
    packed = pack_blocks(parts(values, f, rng), f) if f.block else pack_dense(values, f)
    return stored(packed, f, *values.shape)


# models ---------------------------------------


def weights(config: Config, format: str = "f32", seed: int = 0) -> Weights:
    """Random weights with logits of a few units, selective attention and norms that are not one."""
    rng = np.random.default_rng(seed)

    def norm() -> np.ndarray:
        w = aligned(config.hidden_size)
        w[:] = 1 + 0.2 * rng.standard_normal(config.hidden_size)
        return w

    def dense(rows: int, cols: int, gain: float) -> Matrix:
        return matrix((gain * rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32), format, rng)

    shapes = config.layer_shapes
    layers = [
        LayerWeights(norm(), dense(*shapes["qkv"], 1.5), dense(*shapes["o"], 1.2), norm(),
                     dense(*shapes["gate_up"], 1.2), dense(*shapes["down"], 1.2))
        for _ in range(config.num_layers)
    ]  # fmt: skip
    embed = dense(config.vocab_size, config.hidden_size, 2.5)
    head = embed if config.tie_word_embeddings else dense(config.vocab_size, config.hidden_size, 2.5)
    return Weights(config, embed, layers, norm(), head)


def packed(twin: Any, format: str = "f32") -> Weights:
    """A golden twin (arrays in the shape of `Weights`) as the engine takes it."""
    rng = np.random.default_rng(0)

    def fitting(a: np.ndarray) -> np.ndarray:
        out = aligned(a.shape)
        out[:] = a
        return out

    layers = [
        LayerWeights(fitting(w.input_norm), matrix(w.qkv, format, rng), matrix(w.o, format, rng), fitting(w.post_norm),
                     matrix(w.gate_up, format, rng), matrix(w.down, format, rng))
        for w in twin.layers
    ]  # fmt: skip
    embed = matrix(twin.embed, format, rng)
    head = embed if twin.config.tie_word_embeddings else matrix(twin.head, format, rng)
    return Weights(twin.config, embed, layers, fitting(twin.norm), head)


def dense_arrays(w: Weights) -> SimpleNamespace:
    """The dequantised weights in float64, once: what `model/reference.py` reads, without unpacking at every use."""
    layers = [
        SimpleNamespace(input_norm=x.input_norm, post_norm=x.post_norm,
                        **{n: getattr(x, n).dequantize().astype(np.float64) for n in ("qkv", "o", "gate_up", "down")})
        for x in w.layers
    ]  # fmt: skip
    embed, head = (m.dequantize().astype(np.float64) for m in (w.embed, w.head))
    return SimpleNamespace(config=w.config, embed=embed, layers=layers, norm=w.norm, head=head)


# engines ---------------------------------------


class Unhurried(Pace):
    """Prompts get all that is left of a pass, so that passes do not depend on the clock."""

    def rows(self, drawing: int) -> int:
        return MAX_ROWS


def engine(
    weights: Weights,
    kv: str = "int8",
    threads: int = 1,
    ctx: int = 512,
    pages: int | None = None,
    running: int = 64,
    speculate: bool = False,
    reuse: bool = False,
    disk: CacheFolder | None = None,
    pace: Pace | None = None,
    rows: int | None = None,
    pool: Pool | None = None,
) -> Engine:
    """An engine with exactly so many threads (even more than the machine has), pages of KV cache, running requests, and
    with `rows` at most so many rows a pass. `pool`: in place of one of `threads`.
    """
    return Engine(
        weights,
        kv,
        ctx=ctx,
        speculate=speculate,
        reuse=reuse,
        disk=disk,
        places=running,
        pool=pool or Pool(threads),
        pages=pages_for(ctx) if pages is None else pages,
        pace=pace or Unhurried(),
        rows_that_fit=rows_that_fit if rows is None else lambda longest: rows,
    )


def finish(engine: Engine, requests: list[Request], steps: int = 5000) -> list[list[int]]:
    """Run an engine until it has nothing to do; the answers of `requests` in their order."""
    for _ in range(steps):
        if not engine.has_work:
            return [r.generated for r in requests]
        engine.step()
    raise AssertionError(f"the engine is not done after {steps} steps")


def ids(count: int, seed: int = 0, vocab: int = 160) -> list[int]:
    """Random token ids, none of them the end id."""
    return [int(i) for i in np.random.default_rng([seed, 77]).integers(3, vocab, count)]
