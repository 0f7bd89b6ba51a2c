"""The demo model held against Transformers on the same dequantised weights: equal in float, close when quantised.

The integer paths are judged teacher-forced: along the answer that float gives, how often is its token the likeliest?
(A free-running answer leaves the other at the first near-tie and says nothing about the rest.)
"""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.engine.engine import Engine
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.weights.store.store import open_store
from tests.golden import demo

AGREEMENT = 0.968  # llama.cpp on its Q4_1 of the same weights: 540 of 558
PERPLEXITY = 0.005


@pytest.fixture(scope="module", params=["f32", "q4", "q8"])
def engine(request, demo_store):
    """The demo in a recipe; float weights with a float cache, quantised ones with the int8 cache they come with."""
    opened = open_store(demo_store(request.param))
    made = Engine(opened.weights, kv="f32" if request.param == "f32" else "int8")
    made.recipe, made.tokenizer = request.param, opened.tokenizer
    yield made
    made.close()


def test_f32_greedy_text_equals_transformers(engine):
    if engine.recipe != "f32":
        pytest.skip("integer paths are judged teacher-forced, below")
    for chat in demo.chats():
        drawn = engine.generate(chat.prompt, SamplingParams(max_new_tokens=len(chat.greedy)))
        assert [token.id for token in drawn] == chat.greedy, chat.question


def test_teacher_forced_argmax_agrees_with_transformers(engine):
    agreed = total = 0
    for chat in demo.chats():
        logits = engine.logits(chat.prompt + chat.greedy)[len(chat.prompt) - 1 : -1]
        agreed += int((logits.argmax(axis=1) == np.array(chat.greedy)).sum())
        total += len(chat.greedy)
    print(f"{engine.recipe}: {agreed} of {total}")
    assert agreed == total if engine.recipe == "f32" else agreed >= AGREEMENT * total


def test_perplexity_is_that_of_transformers(engine):
    chunks, golden = demo.prose_chunks(engine.tokenizer.encode), demo.prose_sums()
    sums = [-float(engine.logprobs(chunk).astype(np.float64).sum()) for chunk in chunks]
    tokens = sum(len(chunk) - 1 for chunk in chunks)
    ratio = np.exp((sum(sums) - sum(golden)) / tokens)
    print(f"{engine.recipe}: perplexity {np.exp(sum(sums) / tokens):.3f}, {ratio - 1:+.4%} of Transformers' float32")
    assert abs(ratio - 1) < (1e-5 if engine.recipe == "f32" else PERPLEXITY)
