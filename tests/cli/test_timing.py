"""Random prompts for timing: the right number of tokens is computed before, nothing is guessed, nothing is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from phi4mini.cli.doctor import tiny_weights
from phi4mini.cli.timing import random_prompt, seconds
from phi4mini.engine.engine import Engine
from phi4mini.errors import TooLong


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(tiny_weights(), kv="f32", ctx=64)
    yield made
    made.close()


@pytest.mark.parametrize("depth", [0, 1, 16])
def test_the_prompt_follows_what_is_computed(engine, depth):
    with random_prompt(engine, 8, 4, depth, seed=1) as request:
        assert (request.cached, len(request.ids)) == (depth, depth + 8) and not engine.scheduler.speculate
    assert engine.scheduler.speculate and not engine.has_work
    assert all(time > 0 for time in seconds(engine, 8, 4, depth, seed=2))


def test_what_does_not_fit_is_refused(engine):
    with pytest.raises(TooLong), random_prompt(engine, 60, 4, 0, seed=1):
        pass
