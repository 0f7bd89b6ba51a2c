"""Timing an engine on random prompts, for `bench` and `bench --profile`.

Promises: every prompt is new, so that no cached page is reused; speculation is off meanwhile, so that a token is one
pass over one row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phi4mini.engine.engine import Engine
    from phi4mini.engine.request import Request


def seconds(engine: Engine, prompt: int, new: int, depth: int, seed: int) -> tuple[float, float]:
    """Time to compute `prompt` tokens after `depth` others up to the first new one, and for `new` tokens after it."""
    with random_prompt(engine, prompt, new, depth, seed) as request:
        start = time.perf_counter()
        _draw(engine, request, 1)
        first = time.perf_counter()
        _draw(engine, request, new)
        return first - start, time.perf_counter() - first


@contextmanager
def random_prompt(engine: Engine, prompt: int, new: int, depth: int, seed: int) -> Iterator[Request]:
    """A request whose next step starts on `prompt` random ids; `depth` other ids before them are already computed.

    Raises `TooLong` if all of them and `new` tokens do not fit. Speculation is off in the block: a figure is for one
    pass, and how often random text repeats itself says nothing about a pass.
    """
    import numpy as np

    from phi4mini.engine.request import Request
    from phi4mini.engine.sample.params import SamplingParams
    from phi4mini.errors import TooLong

    total = depth + prompt + new + 1
    if total > engine.ctx:
        raise TooLong(total, engine.ctx, engine.config.max_position_embeddings)
    ids = np.random.default_rng(seed).integers(0, engine.config.vocab_size, depth + prompt).tolist()
    # one set of LongRoPE factors throughout: crossing 4096 half-way recomputes the cache, which is another figure
    rope = engine.config.rope_set(total)
    guesses, engine.scheduler.speculate = engine.scheduler.speculate, False
    request = engine.add(Request(ids[:depth] or ids, SamplingParams(ignore_eos=True), rope))
    try:
        if depth:
            _draw(engine, request, 1)
            request.ids[-1:] = ids[depth:]  # in place of the token just drawn
        yield request
    finally:
        engine.abort(request)
        engine.scheduler.speculate = guesses


def _draw(engine: Engine, request: Request, count: int) -> None:
    """Step until the request has `count` more tokens."""
    while count:
        count -= len(engine.step())
        if request.error is not None:
            raise request.error
