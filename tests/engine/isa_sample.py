"""Answers as hashes, to be taken under one instruction set and another.

PHI4MINI_ISA=avx2 python -m tests.engine.isa_sample
"""

from __future__ import annotations

import json

from phi4mini.kernels.cpu import cpu
from tests import tiny
from tests.engine import traces

CASES = [("q4", "int8"), ("q8", "f32")]  # the other formats' products are in tests/kernels/isa_sample.py


def sample() -> dict[str, str]:
    """Hashes by name."""
    results = {"isa": cpu().isa}
    for format, kv in CASES:
        engine = tiny.engine(tiny.weights(tiny.config(), format), kv, threads=2, running=1)
        done = traces.run(engine, traces.ASKS[:4])
        results[f"{format} {kv}"] = " ".join(t.digest() for t in done)
        engine.close()
    return results


if __name__ == "__main__":
    print(json.dumps(sample()))
