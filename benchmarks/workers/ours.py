"""Worker: this package's engine on one store, fed with random ids; speculation off unless a command asks for it.

python -m benchmarks.workers.ours MODEL [--quant q4] [--kv int8] [--ctx N] [--threads N]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.workers.obey import Operations, obey
from phi4mini.engine.engine import Engine
from phi4mini.engine.measuring import fill, record_passes
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.weights.load import load
from phi4mini.weights.store.store import OpenModel

_FOREVER = SamplingParams(ignore_eos=True)


class Ours:
    """The engine, and the one request that `prefill` or `fill` began and `decode` goes on with."""

    def __init__(self, opened: OpenModel, engine: Engine) -> None:
        self.opened, self.engine = opened, engine
        self.request: Request | None = None
        engine.scheduler.speculate = False

    def facts(self) -> dict[str, Any]:
        """What the driver needs to turn seconds into bytes and operations."""
        c, facts = self.opened.config, self.engine.facts
        return {
            "threads": facts.threads,
            "weight_bytes": facts.pass_bytes,
            "kv_bytes": facts.kv_token_bytes,
            "layer_weights": c.matrix_elements_per_token - c.vocab_size * c.hidden_size,
        }

    def prefill(self, n: int, seed: int) -> dict[str, Any]:
        """Seconds from `n` random ids to the first token after them."""
        self._drop()
        ids = self._random(n, seed)
        start = time.perf_counter()
        request = self.engine.add(Request(ids, _FOREVER))
        self._run([request], 1)
        self.request = request
        return {"seconds": time.perf_counter() - start}

    def decode(self, n: int) -> dict[str, Any]:
        """Seconds for `n` more tokens of the request at hand."""
        assert self.request is not None
        at = len(self.request.ids)
        start = time.perf_counter()
        self._run([self.request], len(self.request.generated) + n)
        return {"seconds": time.perf_counter() - start, "depth": at}

    def streams(self, m: int, steps: int, depth: int) -> dict[str, Any]:
        """Seconds for `steps` tokens of each of `m` requests that go side by side after `depth` tokens each."""
        self._drop()
        requests = [self.engine.add(Request(self._random(depth, seed), _FOREVER)) for seed in range(m)]
        self._run(requests, 2)
        done = min(len(r.generated) for r in requests)
        start = time.perf_counter()
        self._run(requests, done + steps)
        seconds = time.perf_counter() - start
        for request in requests:
            self.engine.abort(request)
        return {"seconds": seconds, "depth": depth}

    def text(self, ids: list[int], n: int, temperature: float, seed: int, speculate: bool) -> dict[str, Any]:
        """Answer a prompt: the new ids, and the seconds from the first of them to the last."""
        self._drop()
        self.engine.scheduler.speculate = speculate
        params = SamplingParams(max_new_tokens=n, temperature=temperature, seed=seed)
        request = Request(ids, params)
        for _ in self.engine.tokens(request):
            pass
        self.engine.scheduler.speculate = False
        guesser = request.guesser
        return {
            "ids": request.generated,
            "seconds": request.timings.decode_seconds,
            "guessed": guesser.guessed,
            "accepted": guesser.accepted,
        }

    def programs(self) -> dict[str, Any]:
        """Seconds to have every kernel of every kind of pass: 1 to 8 rows, a chunk of a prompt, each as a decode and
        with tall tiles of attention; whatever is not in the cache is compiled.
        """
        start = time.perf_counter()
        record_passes(self.engine)
        return {"seconds": time.perf_counter() - start}

    def fill(self, n: int, seed: int) -> dict[str, Any]:
        """Begin a request whose cache holds `n - 1` tokens of plausible random bytes: right for timing decode, and it
        takes seconds where computing them takes many minutes.
        """
        self._drop()
        engine, request = self.engine, Request(self._random(n, seed), _FOREVER)
        engine.add(request)
        engine.step()  # the first chunk is computed: the request is running and holds its first pages
        fill(engine, request, seed)
        self._run([request], 1)
        self.request = request
        return {"pages": len(request.seat.table)}

    def logits(self, ids: list[int], path: str) -> dict[str, Any]:
        """Logits after each id, saved as f32 (n, vocab)."""
        np.save(path, self.engine.logits(ids))
        return {"rows": len(ids)}

    def _run(self, requests: list[Request], tokens: int) -> None:
        """Step until each request has generated so many tokens."""
        while min(len(r.generated) for r in requests) < tokens:
            self.engine.step()
            for request in requests:
                if request.finish_reason is not None:
                    raise request.error or RuntimeError(f"a request ended: {request.finish_reason}")

    def _random(self, n: int, seed: int) -> list[int]:
        return [int(i) for i in np.random.default_rng([seed, n]).integers(0, self.engine.config.vocab_size, n)]

    def _drop(self) -> None:
        if self.request is not None:
            self.engine.abort(self.request)
            self.request = None


def _load() -> tuple[dict[str, Any], Operations]:
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--quant", default="q4")
    p.add_argument("--kv", default="int8")
    p.add_argument("--ctx", type=int)
    p.add_argument("--threads", type=int)
    a = p.parse_args()
    opened = load(a.model, a.quant)
    ours = Ours(opened, Engine(opened.weights, kv=a.kv, threads=a.threads, ctx=a.ctx))
    names = ("prefill", "decode", "streams", "text", "programs", "fill", "logits")
    return ours.facts(), {name: getattr(ours, name) for name in names}


if __name__ == "__main__":
    obey(_load)
