"""What an engine computed for each request, to the bit: its tokens and the logits they were drawn from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.model.longrope import RopeMode
from tests import tiny


@dataclass(frozen=True)
class Ask:
    """A request to be made, and after how many steps of the engine it arrives."""

    ids: tuple[int, ...]
    params: SamplingParams
    after: int = 0
    rope: RopeMode = "auto"


@dataclass
class Trace:
    """Tokens and logits of one answer."""

    tokens: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)

    def digest(self) -> str:
        """A hash of every bit."""
        return hashlib.sha256(repr(self.tokens).encode() + b"".join(x.tobytes() for x in self.logits)).hexdigest()


def ask(length: int, new: int, seed: int, after: int = 0, rope: RopeMode = "auto", **params: Any) -> Ask:
    """A request for `new` tokens after a random prompt; the end id does not end it."""
    given = SamplingParams(max_new_tokens=new, ignore_eos=True, seed=seed, **params)
    return Ask(tuple(tiny.ids(length, seed)), given, after, rope)


# Prompts from one token to beyond a chunk of attention; greedy and sampled; across LongRoPE's 64 in prompt and answer.
ASKS = (
    ask(5, 24, 1),
    ask(40, 30, 2, temperature=1.0, top_p=0.9),
    ask(64, 8, 3),
    ask(130, 10, 4, temperature=0.8, top_k=20, repetition_penalty=1.2),
    ask(1, 12, 5, temperature=1.5, min_p=0.02, presence_penalty=0.5),
    ask(1018, 9, 6),
)


@contextmanager
def recording(engine: Engine) -> Iterator[Callable[[Request], Trace]]:
    """While open, every token that the engine draws is noted; the function yielded looks a request's trace up."""
    traces: dict[int, Trace] = {}
    draw = engine.verifier.sample

    def noting(logits: np.ndarray, params: SamplingParams, history: Any, *rest: Any) -> Any:
        choice = draw(logits, params, history, *rest)
        trace = traces.setdefault(id(history), Trace())
        trace.logits.append(logits.copy())
        trace.tokens.append(choice.id)
        return choice

    engine.verifier.sample = noting
    try:
        yield lambda request: traces[id(request.history)]
    finally:
        engine.verifier.sample = draw


def run(engine: Engine, asks: Sequence[Ask] = ASKS, passes: list[int] | None = None) -> list[Trace]:
    """All requests through one engine, each from its step on; their traces in the order given. `passes` gets the rows
    of every pass.
    """
    with recording(engine) as trace:
        requests: list[Request] = [Request(list(a.ids), a.params, a.rope) for a in asks]
        late = sorted(zip(asks, requests, strict=True), key=lambda pair: pair[0].after)
        step = 0
        while late or engine.has_work:
            while late and late[0][0].after <= step:
                engine.add(late.pop(0)[1])
            engine.step()
            if passes is not None and (rows := engine.scheduler.drawing_rows + engine.scheduler.prompt_rows):
                passes.append(rows)
            step += 1
            assert step < 5000, "the engine does not end"
        assert all(r.finish_reason == "length" for r in requests)
        assert engine.pages.free == engine.pages.count
        return [trace(r) for r in requests]
