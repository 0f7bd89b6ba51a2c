"""Many users for minutes on the demo: memory does not grow, nothing fails, no answer depends on another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.server.load import closed_loop, figures, first_texts
from benchmarks.server.mixed import LEAVES, WEIGHTS
from benchmarks.server.prompts import prompts
from benchmarks.server.served import Served
from benchmarks.server.wire import Target
from benchmarks.soak import SMALL, soak

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
MINUTES = 5


@pytest.fixture(scope="module")
def served(demo_store):
    demo_store("q4")
    with Served("demo", SMALL) as server:
        yield server


def test_users_side_by_side_get_what_each_would_get_alone(served):
    target = Target.parse(served.url)
    bodies = [{"messages": m, "max_tokens": 16, "temperature": 0, "seed": 0} for m in prompts(None, 6)]
    alone = asyncio.run(closed_loop(target, bodies, 1, 6, "alone", 60))
    together = figures(asyncio.run(closed_loop(target, bodies, 6, 12, "together", 60)), {}, first_texts(alone.answers))
    assert (together["completed"], together["failed"], together["correct"]) == (12, 0, 1.0)
    assert together["total_output_tokens"] > 12


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 300)
def test_F10_under_mixed_load_nothing_grows_fails_or_changes(served):
    found = asyncio.run(soak(Target.parse(served.url), served.pid, MINUTES, disconnects=0.2))
    assert found.problems == []
    assert set(found.mix.answered) == set(WEIGHTS) and set(found.mix.left) == set(LEAVES)
    assert len(found.samples) > 60 * MINUTES / 2
