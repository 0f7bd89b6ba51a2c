"""Interleaved measurements as numbers: medians, and which pairs count. Pure; knows no process and no model.

Memory speed on shared machines has phases, minutes long, that differ by a factor of two. So the plain read bandwidth is
taken before and after each figure that memory decides, and a pair whose readings differ by more than `TOLERANCE` says
nothing about the two programs and does not count.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TOLERANCE = 0.15


@dataclass(frozen=True)
class Reading:
    """One figure (tokens a second) between two readings of the memory's speed (GB/s)."""

    value: float
    before: float
    after: float

    @property
    def bandwidth(self) -> float:
        return (self.before + self.after) / 2

    @property
    def steady(self) -> bool:
        return steady([self.before, self.after])


def steady(bandwidths: Sequence[float]) -> bool:
    """Whether readings of the memory's speed belong to one phase."""
    return max(bandwidths) <= (1 + TOLERANCE) * min(bandwidths)


def ratios(ours: Sequence[Reading], peer: Sequence[Reading]) -> list[float]:
    """Ours over the peer's, round by round, of the rounds in which memory kept its speed."""
    return [
        a.value / b.value for a, b in zip(ours, peer, strict=False) if steady([a.before, a.after, b.before, b.after])
    ]


def all_ratios(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """Ours over the peer's, round by round: for what arithmetic decides."""
    return [a / b for a, b in zip(ours, peer, strict=False)]


def shares(readings: Sequence[Reading], gigabytes: float) -> list[float]:
    """Share of the bandwidth measured around each steady reading that moving `gigabytes` a pass amounts to."""
    return [r.value * gigabytes / r.bandwidth for r in readings if r.steady]


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing, which no target is met by."""
    return statistics.median(values) if values else float("nan")


def summary(values: Sequence[float]) -> dict[str, Any]:
    """What goes into the JSON of a list of figures."""
    if not values:
        return {"median": None, "min": None, "max": None, "all": []}
    rounded = [float(f"{v:.5g}") for v in values]
    return {
        "median": float(f"{statistics.median(values):.5g}"),
        "min": min(rounded),
        "max": max(rounded),
        "all": rounded,
    }
