"""Promise 3, LongRoPE per request: short factors up to the original length, long beyond, computed again once."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from phi4mini.engine.engine import Engine
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.model import reference
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.engine.traces import Trace, ask, run
from tests.golden import twins
from tests.kernels.harness import same

BOUNDARY = 64  # of the tests' model and of the golden twins
CASES = [("q4", "int8"), ("f32", "f32")]
LIMIT = 2e-4  # as in test_forward.py
every_case = pytest.mark.parametrize(("format", "kv"), CASES)


@cache
def weights(format: str) -> Weights:
    return tiny.weights(tiny.config(), format)


def fresh(engine: Engine, prompt: tuple[int, ...], trace: Trace) -> list[np.ndarray]:
    """For each drawn token, the last logits of a fresh pass over all tokens before it."""
    ids = [*prompt, *trace.tokens]
    return [engine.logits(ids[:n])[-1] for n in range(len(prompt), len(ids))]


@every_case
def test_longrope_crossing_in_decode_equals_a_fresh_pass_at_each_length(format: str, kv: str) -> None:
    """Prompt 60, answer 10: tokens drawn after 60 .. 64 come from short factors, after 65 .. 69 from long ones."""
    a, engine, computed = ask(60, 10, 1), tiny.engine(weights(format), kv), []
    trace = run(engine, [a], computed)[0]
    assert computed == [60, 1, 1, 1, 1, 65, 1, 1, 1, 1], "computed again at 65 tokens, and only there"
    assert all(same(x, y) for x, y in zip(trace.logits, fresh(engine, a.ids, trace), strict=True))
    ids = [*a.ids, *trace.tokens]
    for n, rope, other in ((64, "short", "long"), (65, "long", "short")):
        assert same(engine.logits(ids[:n]), engine.logits(ids[:n], rope))
        assert np.abs(engine.logits(ids[:n]) - engine.logits(ids[:n], other)).max() > 0.1


@every_case
@pytest.mark.parametrize("length", [63, 64, 65, 66])
def test_longrope_prompts_around_the_boundary(format: str, kv: str, length: int) -> None:
    a, engine, computed = ask(length, 3, 2), tiny.engine(weights(format), kv), []
    trace = run(engine, [a], computed)[0]
    again = {63: [63, 1, 65], 64: [64, 65, 1]}.get(length, [length, 1, 1])
    assert computed == again
    assert all(same(x, y) for x, y in zip(trace.logits, fresh(engine, a.ids, trace), strict=True))


@every_case
def test_longrope_of_a_chunked_prompt_is_that_of_the_whole(format: str, kv: str) -> None:
    """The first chunks lie before the boundary and the last begins beyond it; all take the prompt's factors."""
    a, computed = ask(100, 4, 3), []
    whole = run(tiny.engine(weights(format), kv), [a])[0]
    cut = run(tiny.engine(weights(format), kv, rows=32), [a], computed)[0]
    assert computed == [32, 32, 32, 4, 1, 1, 1]
    assert cut.digest() == whole.digest()


@every_case
def test_longrope_crossing_in_several_passes(format: str, kv: str) -> None:
    """Where a pass cannot take all 65 tokens, crossing takes three, and a neighbour goes on in each of them."""
    asks, computed = [ask(63, 6, 4), ask(4, 14, 5)], []
    alone = [run(tiny.engine(weights(format), kv), [a])[0].digest() for a in asks]
    assert [t.digest() for t in run(tiny.engine(weights(format), kv, rows=30), asks, computed)] == alone
    assert computed.count(30) >= 4


@every_case
@pytest.mark.parametrize("rope", ["short", "long"])
def test_longrope_may_be_fixed_by_the_request(format: str, kv: str, rope: str) -> None:
    a, engine, computed = ask(62, 6, 6, rope=rope), tiny.engine(weights(format), kv), []
    trace = run(engine, [a], computed)[0]
    assert computed == [62] + [1] * 5, "nothing is computed again"
    whole = engine.logits([*a.ids, *trace.tokens[:-1]], rope)
    assert same(np.array(trace.logits), whole[61:])
    if format == "f32":
        want = reference.forward(tiny.dense_arrays(weights(format)), [*a.ids, *trace.tokens[:-1]], rope, np.float64)
        assert np.abs(whole - want).max() < LIMIT


@every_case
def test_longrope_neighbours_on_either_side_do_not_meet(format: str, kv: str) -> None:
    """Before, at, crossing, beyond, and fixed against the rule, all in the same passes."""
    asks = [
        ask(10, 9, 7),
        ask(60, 9, 8),
        ask(64, 9, 9),
        ask(90, 9, 10),
        ask(90, 9, 10, rope="short"),
        ask(10, 9, 7, rope="long"),
    ]
    alone = [run(tiny.engine(weights(format), kv), [a])[0].digest() for a in asks]
    assert len(set(alone)) == len(asks)
    assert [t.digest() for t in run(tiny.engine(weights(format), kv, threads=2), asks)] == alone


def test_a_model_with_one_set_never_computes_again() -> None:
    computed: list[int] = []
    engine = tiny.engine(tiny.weights(tiny.llama(num_kv_heads=2), "q4"), "int8")
    run(engine, [ask(62, 6, 1)], computed)
    assert computed == [62] + [1] * 5


# what Hugging Face's models answered ---------------------------------------


@pytest.mark.parametrize("name", twins.NAMES)
def test_the_twins_logits_are_transformers(name: str) -> None:
    golden, engine = twins.golden(name), tiny.engine(tiny.packed(twins.twin(name)), "f32", threads=2)
    for length in golden["lengths"]:
        rows = engine.logits(golden["ids"][:length])[[0, length // 2, length - 1]]
        worst = np.abs(rows - golden["logits"][f"f64_{length}"]).max()
        print(f"{name}, {length} tokens: worst {worst:.2g}")
        assert worst < LIMIT
    engine.close()


@pytest.mark.parametrize("name", twins.NAMES)
@pytest.mark.parametrize("place", ["before", "across", "at", "after"])
def test_the_twins_answers_are_transformers_generate(name: str, place: str) -> None:
    """Greedy answers with the cache, across the boundary too; all margins lie far above rounding."""
    answer = twins.golden(name)["answers"][place]
    assert answer["smallest_margin"] > 100 * LIMIT
    params = SamplingParams(max_new_tokens=len(answer["greedy"]))
    engine = tiny.engine(tiny.packed(twins.twin(name)), "f32")
    assert [token.id for token in engine.generate(answer["prompt"], params)] == answer["greedy"]
