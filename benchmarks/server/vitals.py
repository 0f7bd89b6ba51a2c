"""What a process holds (memory, descriptors, threads) and what its KV cache has handed out, and whether that grows.

Flat means: over the window after the warm-up, a straight line fitted to the samples rises by no more than the limit. A
fit, because under load each figure moves with what is under way; a leak does not come back down.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 1 / 3  # of the samples: caches fill, pools of threads start
REST = {
    "descriptors": 0,
    "threads": 1,
    "kv_pages": 0,
}  # more than before, at rest; a pool may start its last thread late
# how far each may rise in the window; one more thread in its middle is a rise of 1.5 to a line
LIMITS = {"rss_mb": 8.0, "descriptors": 4.0, "threads": 2.0, "kv_pages": 16.0}


@dataclass(frozen=True)
class Vitals:
    """One sample. `kv_pages` are those that requests hold; pages kept only for prompts that begin alike are free."""

    seconds: float
    rss_mb: float
    descriptors: int
    threads: int
    kv_pages: int


@dataclass(frozen=True)
class Verdict:
    """A figure over the window: the fitted line at both its ends, and whether its rise is within the limit."""

    name: str
    first: float
    last: float
    limit: float

    @property
    def rise(self) -> float:
        return self.last - self.first

    @property
    def flat(self) -> bool:
        return self.rise <= self.limit

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rise": self.rise, "flat": self.flat}


def process(pid: int) -> tuple[float, int, int]:
    """(resident MB, open descriptors, threads) of a process, from /proc. Raises FileNotFoundError where it is gone."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE))
    return int(found["VmRSS"]) / 1e3, len(os.listdir(f"/proc/{pid}/fd")), int(found["Threads"])


def gauges(text: str) -> dict[str, float]:
    """Names and values of a page of Prometheus that carry no labels."""
    return {name: float(value) for name, value in re.findall(r"^([a-z_][\w:]*) (\S+)$", text, re.MULTILINE)}


def held_pages(found: dict[str, float]) -> int:
    """Pages that requests hold. Raises KeyError where the server does not tell."""
    return int(found["phi4mini_kv_pages"] - found["phi4mini_kv_pages_free"])


def untouched_pages(found: dict[str, float]) -> int:
    """Pages that nothing has been written to since the start, or since their prompt was forgotten."""
    return int(found["phi4mini_kv_pages_free"] - found["phi4mini_kv_pages_idle"])


def verdicts(samples: Sequence[Vitals]) -> list[Verdict]:
    """One for each figure with a limit. Raises ValueError for too few samples to fit a line to."""
    window = samples[int(len(samples) * WARM_UP) :]
    if len(window) < 3:
        raise ValueError(f"{len(samples)} samples are too few: run longer, or sample more often")
    at = np.array([sample.seconds for sample in window])
    found = []
    for name, limit in LIMITS.items():
        slope, start = np.polyfit(at - at[0], [getattr(sample, name) for sample in window], 1)
        found.append(Verdict(name, float(start), float(start + slope * (at[-1] - at[0])), limit))
    return found
