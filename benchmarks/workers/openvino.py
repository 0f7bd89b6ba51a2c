"""Worker: OpenVINO GenAI, in an environment of its own, on one exported folder.

    python -m benchmarks.workers.openvino FOLDER [--threads N]

Its pipeline does prompt and answer in one call, so `prefill` is told how many tokens to make `then`, and reports both
times as the pipeline's own metrics have them. Its own defaults otherwise (u8 KV).
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as og

from benchmarks.workers.obey import Operations, obey


class OpenVino:
    """One pipeline."""

    def __init__(self, folder: str, threads: int, vocab: int) -> None:
        self.pipe = og.LLMPipeline(folder, "CPU", INFERENCE_NUM_THREADS=threads)
        self.vocab = vocab
        self.prefill(16, 0, 2)  # the first call compiles

    def prefill(self, n: int, seed: int, then: int) -> dict[str, Any]:
        """Seconds to the first token after `n` random ids, and for `then` tokens after it."""
        config = og.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = then + 1, True, False
        config.apply_chat_template = False
        ids = np.random.default_rng([seed, n]).integers(0, self.vocab, (1, n), np.int64)
        inputs = og.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        made = self.pipe.generate(inputs, config)
        metrics, count = made.perf_metrics, len(made.tokens[0])
        if count != then + 1:
            raise RuntimeError(f"{then + 1} tokens wanted, {count} made")
        return {
            "seconds": metrics.get_ttft().mean / 1e3,
            "decode_seconds": metrics.get_tpot().mean / 1e3 * then,
        }


def _load() -> tuple[dict[str, Any], Operations]:
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--vocab", type=int, default=199_998)
    a = p.parse_args()
    peer = OpenVino(a.folder, a.threads, a.vocab)
    versions = {name: version(name) for name in ("openvino", "openvino-genai", "numpy")}
    return {"threads": a.threads, "versions": versions}, {"prefill": peer.prefill}


if __name__ == "__main__":
    obey(_load)
