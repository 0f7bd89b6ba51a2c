"""Rotary positions, and LongRoPE's rule: which factors hold for a sequence, and the tables of cos and sin.

Promises: `rope_set` alone decides between the short factors (up to the original length, 4,096 tokens for Phi-4-mini)
and the long ones (beyond). The tables are those of HF transformers, rounding included. It knows no weights.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from phi4mini.errors import BadInput

RopeSet = Literal["short", "long"]
RopeMode = Literal["auto", "short", "long"]


class LongRope:
    """The part of `Config` that turns positions into angles; the fields are the config's."""

    rotary_dim: int  # numbers of a head that turn
    rope_theta: float
    short_factor: tuple[float, ...] | None
    long_factor: tuple[float, ...] | None
    original_max_position_embeddings: int
    max_position_embeddings: int
    attention_factor: float | None
    scale_factor: float | None

    @property
    def rope_boundary(self) -> int | None:
        """Tokens up to which the short factors hold; None when the model has one set only."""
        return None if self.short_factor is None else self.original_max_position_embeddings

    def rope_set(self, length: int, rope: RopeMode = "auto") -> RopeSet:
        """LongRoPE's rule: which factors hold for every position of a sequence of `length` tokens.

        `rope` "short" or "long" fixes the set whatever the length. A model without factors has the set "short".
        Source: transformers' `longrope_frequency_update` (strictly more than the original length is long).
        """
        if rope not in ("auto", "short", "long"):
            raise BadInput(f"rope must be auto, short or long, got {rope!r}")
        if self.short_factor is None:
            return "short"
        if rope != "auto":
            return rope
        return "long" if length > self.original_max_position_embeddings else "short"

    @property
    def rope_scale(self) -> float:
        """LongRoPE's mscale on cos and sin, at every length: sqrt(1 + ln(max / original) / ln(original)), or 1."""
        if self.short_factor is None:
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        original = self.original_max_position_embeddings
        factor = self.scale_factor or self.max_position_embeddings / original
        return 1.0 if factor <= 1.0 else math.sqrt(1.0 + math.log(factor) / math.log(original))

    def inv_freq(self, rope_set: RopeSet) -> np.ndarray:
        """Radians per position, float32 (rotary_dim / 2,): 1 / (factor_j * theta ** (2 j / rotary_dim)).

        Every step is rounded to float32 as in transformers; the power is taken in float64 first, which makes the
        result the same on every machine.
        """
        half = self.rotary_dim // 2
        exponent = np.arange(0, self.rotary_dim, 2).astype(np.float32) / np.float32(self.rotary_dim)  # (half,)
        power = np.power(np.float64(self.rope_theta), exponent.astype(np.float64)).astype(np.float32)  # (half,)
        factors = self.short_factor if rope_set == "short" else self.long_factor
        divisor = np.ones(half, np.float32) if factors is None else np.array(factors, np.float32)  # (half,)
        return np.float32(1.0) / (divisor * power)

    def rope_table(self, positions: np.ndarray, rope_set: RopeSet) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin times mscale, float32 (n, rotary_dim / 2) each, for integer positions (n,).

        The angle is a float32 product, as in transformers, so far positions carry the same rounding; cos and sin of
        that angle are then exact to float32.
        """
        where = np.asarray(positions)
        angle = where.astype(np.float32)[:, None] * self.inv_freq(rope_set)[None, :]  # (n, half) float32
        scale = np.float32(self.rope_scale)
        wide = angle.astype(np.float64)
        return np.cos(wide).astype(np.float32) * scale, np.sin(wide).astype(np.float32) * scale
