"""A whole engine on ARM: the same tokens and logits as on this machine's own instruction set."""

from __future__ import annotations

import pytest

from phi4mini.engine.engine import Engine
from phi4mini.kernels.threads.pool import Pool, Program
from tests import tiny
from tests.engine import traces
from tests.kernels import arm
from tests.kernels.harness import same


class ArmPool(Pool):
    """Runs an engine's programs on ARM, on one thread."""

    engine: Engine

    def __init__(self) -> None:
        # no threads here, so nothing of Pool's is set up
        self.threads, self.passes = 1, 0

    def run(self, program: Program, profile: bool = False) -> None:
        buffers = self.engine.network.buffers
        arm.run(*program.calls, also=[buffers.tickets, buffers._scratch_memory, *buffers._tables])
        self.passes += 1

    def close(self) -> None:
        """Nothing stays between runs."""


@arm.needs_qemu
@pytest.mark.parametrize(("format", "kv"), [("q4", "int8"), ("q8", "f32")])
def test_an_engine_gives_the_same_tokens_and_logits(format: str, kv: str) -> None:
    """A prompt across LongRoPE's border in one pass, then a token a pass; every logit to the bit."""
    asks = [traces.ask(62, 5, 1, temperature=1.0)]
    weights, pool = tiny.weights(tiny.config(), format), ArmPool()
    here, there = tiny.engine(weights, kv, running=2), tiny.engine(weights, kv, running=2, pool=pool)
    pool.engine = there
    for a, b in zip(traces.run(here, asks), traces.run(there, asks), strict=True):
        assert a.tokens == b.tokens
        assert all(same(x, y) for x, y in zip(a.logits, b.logits, strict=True))
    assert pool.passes >= 5
    for engine in (here, there):
        engine.close()
