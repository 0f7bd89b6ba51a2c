"""Worker: llama.cpp, through llama-cpp-python in an environment of its own, on one GGUF.

    python -m benchmarks.workers.llama MODEL.gguf [--threads N]

Its own defaults everywhere (f16 KV, flash attention as it chooses, batches of 2,048 in passes of 512); the file is read
into memory, because only then does it rearrange the weights for this CPU.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp as L
import numpy as np

from benchmarks.workers.obey import Operations, obey

_BATCH = 2048


class Llama:
    """One model, and the context that the last command asked for."""

    def __init__(self, path: str, threads: int) -> None:
        L.llama_backend_init()
        self._quiet = L.llama_log_callback(lambda level, text, data: None)  # kept: the library calls it
        L.llama_log_set(self._quiet, None)
        params = L.llama_model_default_params()
        params.use_mmap = False
        self.model = L.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot read {path}")
        self.vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))
        self.threads, self.shape = threads, (0, 0)
        self.context: Any = None

    def open(self, ctx: int, streams: int) -> None:
        """An empty context for `streams` sequences of `ctx` tokens each."""
        if self.context is not None and self.shape == (ctx, streams):
            L.llama_memory_clear(L.llama_get_memory(self.context), True)
            return
        if self.context is not None:
            L.llama_free(self.context)
        params = L.llama_context_default_params()
        params.n_ctx, params.n_seq_max = ctx * streams, streams
        params.n_batch, params.n_ubatch = _BATCH, 512
        params.n_threads = params.n_threads_batch = self.threads
        self.context = L.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot open a context of {ctx} x {streams} tokens")
        self.shape = (ctx, streams)
        self.feed([5])  # the first pass allocates
        L.llama_memory_clear(L.llama_get_memory(self.context), True)

    def feed(self, ids: Sequence[int]) -> None:
        """One call over consecutive tokens of sequence 0."""
        array = (ctypes.c_int32 * len(ids))(*map(int, ids))
        self._decode(L.llama_batch_get_one(array, len(ids)))

    def prefill(self, n: int, seed: int) -> dict[str, Any]:
        """Seconds for `n` random ids."""
        self.open(-(-(n + 1024) // 1024) * 1024, 1)
        ids = np.random.default_rng([seed, n]).integers(0, self.vocab, n)
        start = time.perf_counter()
        for at in range(0, n, _BATCH):
            self.feed(ids[at : at + _BATCH].tolist())
        return {"seconds": time.perf_counter() - start}

    def decode(self, n: int) -> dict[str, Any]:
        """Seconds for `n` more tokens after the last prefill."""
        start = time.perf_counter()
        for _ in range(n):
            self.feed([5])
        return {"seconds": time.perf_counter() - start}

    def streams(self, m: int, steps: int, depth: int) -> dict[str, Any]:
        """Seconds for `steps` tokens of each of `m` sequences side by side, after `depth` tokens each."""
        self.open(1024, m)
        batch = L.llama_batch_init(m * depth, 0, 1)
        try:
            self._put(batch, [(i, at) for i in range(m) for at in range(depth)], depth - 1)
            self._put(batch, [(i, depth) for i in range(m)], depth)
            start = time.perf_counter()
            for at in range(depth + 1, depth + 1 + steps):
                self._put(batch, [(i, at) for i in range(m)], at)
            return {"seconds": time.perf_counter() - start, "depth": depth}
        finally:
            L.llama_batch_free(batch)

    def logits(self, ids: list[int], path: str) -> dict[str, Any]:
        """Logits after each id, saved as f32 (n, vocab)."""
        self.open(_BATCH, 1)
        batch = L.llama_batch_init(len(ids), 0, 1)
        try:
            self._put(batch, [(0, at) for at in range(len(ids))], 0, ids)
            flat = L.llama_get_logits(self.context)
            np.save(path, np.ctypeslib.as_array(flat, (len(ids), self.vocab)))
        finally:
            L.llama_batch_free(batch)
        return {"rows": len(ids)}

    def _put(self, batch: Any, places: list[tuple[int, int]], wanted_from: int, ids: list[int] | None = None) -> None:
        """One call over (sequence, position) pairs; logits for positions from `wanted_from` on."""
        batch.n_tokens = len(places)
        for i, (sequence, at) in enumerate(places):
            batch.token[i] = 100 + sequence if ids is None else ids[i]
            batch.pos[i], batch.n_seq_id[i], batch.logits[i] = at, 1, int(at >= wanted_from)
            batch.seq_id[i][0] = sequence
        self._decode(batch)

    def _decode(self, batch: Any) -> None:
        if code := L.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode returned {code}")
        L.llama_synchronize(self.context)


def _load() -> tuple[dict[str, Any], Operations]:
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    llama = Llama(a.model, a.threads)
    facts = {"threads": a.threads, "versions": {"llama-cpp-python": L.__version__, "numpy": np.__version__}}
    return facts, {name: getattr(llama, name) for name in ("prefill", "decode", "streams", "logits")}


if __name__ == "__main__":
    obey(_load)
