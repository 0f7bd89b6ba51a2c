"""Sampling against plain Python loops and a full sort, its distribution, and what it promises and refuses."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phi4mini.engine.sample.sampling import History, SamplingParams, sample, token_logprobs, top_logprobs
from phi4mini.errors import BadInput, NumericalError

VOCABULARY = 200_064


def uniform(seed: int, position: int) -> float:
    return float(int(np.random.Philox(key=seed, counter=position).random_raw()) >> 11) * 2.0**-53


def oracle_scores(logits: list[float], params: SamplingParams, prompt: list[int], answer: list[int]) -> list[float]:
    scores = []
    for token, logit in enumerate(logits):
        score = logit + params.logit_bias.get(token, 0.0)
        if token in prompt or token in answer:
            score = score * params.repetition_penalty if score < 0 else score / params.repetition_penalty
        count = answer.count(token)
        score -= count * params.frequency_penalty + (count > 0) * params.presence_penalty
        scores.append(-math.inf if token in params.banned_ids else score)
    return scores


def oracle_kept(scores: list[float], params: SamplingParams) -> list[tuple[int, float]]:
    """The ids that may be drawn, best first, with their probabilities."""
    ranked = sorted((token for token, score in enumerate(scores) if score > -math.inf), key=lambda t: (-scores[t], t))
    ranked = ranked[: params.top_k] if params.top_k else ranked
    weights = [math.exp((scores[t] - scores[ranked[0]]) / params.temperature) for t in ranked]
    total, larger, kept = sum(weights), 0.0, 0
    for weight in weights:
        if kept and (larger >= params.top_p * total or weight < params.min_p):
            break
        larger, kept = larger + weight, kept + 1
    return [(t, w / larger) for t, w in zip(ranked[:kept], weights, strict=False)]


def assume_clear_of_edges(scores: list[float], params: SamplingParams) -> None:
    """Skip examples where rounding decides whether `top_p` or `min_p` keeps an id."""
    ranked = oracle_kept(scores, replace(params, top_p=1.0, min_p=0.0))
    larger = 0.0
    for _, probability in ranked:
        assume(params.top_p == 1 or abs(larger - params.top_p) > 1e-5)
        assume(params.min_p == 0 or abs(probability / ranked[0][1] - params.min_p) > 1e-5)
        larger += probability


def assert_drawn(kept: list[tuple[int, float]], u: float, chosen: int) -> None:
    """`chosen` is where the cumulative distribution passes `u`, within float32 rounding of the weights."""
    below = 0.0
    for token, probability in kept:
        if token == chosen:
            assert below - 1e-5 <= u <= below + probability + 1e-5
            return
        below += probability
    raise AssertionError(f"{chosen} is not among the kept {[t for t, _ in kept]}")


# eighths and powers of two keep the float32 arithmetic of the edits exact, so that the oracle needs no tolerance there
eighths = st.integers(-64, 64).map(lambda n: n / 8)
tokens = st.integers(0, 11)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    logits=st.lists(eighths, min_size=12, max_size=12),
    prompt=st.lists(tokens, max_size=6),
    answer=st.lists(tokens, max_size=6),
    bias=st.dictionaries(tokens, eighths, max_size=3),
    banned=st.lists(tokens, max_size=4, unique=True),
    repetition=st.sampled_from([0.5, 1.0, 1.0, 2.0]),
    frequency=st.sampled_from([-1.0, 0.0, 0.0, 0.5]),
    presence=st.sampled_from([-0.25, 0.0, 0.0, 1.5]),
    temperature=st.sampled_from([0.0, 0.1, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 1, 3, 12, 10**9]),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 1.0, 1.0]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 0.6, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 200_000),
)
def test_sample_equals_plain_loops(
    logits, prompt, answer, bias, banned, repetition, frequency, presence, temperature, top_k, top_p, min_p,
    seed, position,
):  # fmt: skip
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition,
        frequency_penalty=frequency, presence_penalty=presence, logit_bias=bias, banned_ids=tuple(banned),
    )  # fmt: skip
    history = History(prompt)
    for token in answer:
        history.append(token)
    chosen = sample(np.array(logits, np.float32), params, history, position, seed).id
    scores = oracle_scores(logits, params, prompt, answer)
    if temperature == 0:
        assert chosen == scores.index(max(scores))
    else:
        assume_clear_of_edges(scores, params)
        assert_drawn(oracle_kept(scores, params), uniform(seed, position), chosen)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.8}, {"min_p": 0.15}, {"top_k": 6, "top_p": 0.9}]
)
def test_draws_follow_the_distribution(options):
    """Chi-square over 12,000 positions; 30 is beyond the 0.1 % point for up to 9 degrees of freedom (27.9)."""
    logits = np.array([0.3, -1.0, 1.5, 0.0, 0.9, 1.4, -0.2, 0.7, 1.1, -0.6], np.float32)
    params = SamplingParams(**{"temperature": 1.0, **options})
    draws = 12_000
    counts = Counter(sample(logits, params, History(), position, seed=11).id for position in range(draws))
    kept = dict(oracle_kept([float(x) for x in logits], params))
    assert set(counts) == set(kept)
    assert sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in kept.items()) < 30


def language_like(seed: int, spread: float = 2.5) -> np.ndarray:
    """Logits of a full vocabulary: a bell with a few words standing out, on a grid coarse enough to have many ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, VOCABULARY)
    logits[rng.integers(0, VOCABULARY, 30)] += rng.uniform(4, 14, 30)
    return (np.round(logits * 64) / 64).astype(np.float32)


def full_sort_kept(logits: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """The kept ids and the cumulative distribution over them, from a sort of everything, in float64."""
    order = np.lexsort((np.arange(logits.size), -logits))
    order = order[: params.top_k] if params.top_k else order
    weights = np.exp((logits[order].astype(np.float64) - float(logits.max())) / params.temperature)
    larger = np.cumsum(weights) - weights
    keep = (larger < params.top_p * weights.sum()) if params.top_p < 1 else np.ones(len(order), bool)
    keep &= weights >= params.min_p
    keep[0] = True
    kept = int(keep.argmin()) if not keep.all() else len(order)
    return order[:kept], np.cumsum(weights[:kept]) / weights[:kept].sum()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 3.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.5, "top_p": 0.97},
        {"temperature": 0.8, "top_k": 40},
        {"temperature": 1.2, "top_k": 5000, "top_p": 0.99},
        {"temperature": 1.0, "top_k": 150_000},
        {"temperature": 1.3, "min_p": 0.0005},
        {"temperature": 1.0, "top_p": 0.9999, "min_p": 0.01},
    ],
    ids=str,
)
def test_partial_ranking_equals_a_full_sort(options):
    params = SamplingParams(**options)
    for seed in range(4):
        logits = language_like(seed)
        order, cumulative = full_sort_kept(logits, params)
        for position in range(6):
            u = uniform(seed, position)
            chosen = sample(logits, params, History(), position, seed).id
            low, high = np.searchsorted(cumulative, [u - 1e-6, u + 1e-6], side="right")
            assert chosen in order[low : high + 1]


def test_equal_logits_rank_by_id():
    flat = np.zeros(VOCABULARY, np.float32)
    assert sample(flat, SamplingParams(), History(), 0, 0).id == 0
    drawn = {sample(flat, SamplingParams(temperature=1, top_k=3), History(), n, 5).id for n in range(60)}
    assert drawn == {0, 1, 2}
    assert [token for token, _ in top_logprobs(flat, 4)] == [0, 1, 2, 3]
    signed = np.array([0.0, -0.0, 0.0, -1.0], np.float32)
    assert [token for token, _ in top_logprobs(signed, 4)] == [0, 1, 2, 3]
    whole = SamplingParams(temperature=1)
    assert sample(flat, whole, History(), 3, 5).id == int(uniform(5, 3) * VOCABULARY)


def test_token_is_a_function_of_seed_and_position():
    logits = language_like(1)
    params = SamplingParams(temperature=1.0, top_p=0.95, repetition_penalty=1.3)
    forward = [sample(logits, params, History([5]), n, 42).id for n in range(40)]
    backward = [sample(logits, params, History([5]), n, 42).id for n in reversed(range(40))]
    assert forward == backward[::-1]
    assert forward != [sample(logits, params, History([5]), n, 43).id for n in range(40)]
    assert len(set(forward)) > 3


def test_history_append_and_pop_undo_each_other():
    logits = language_like(2)[:500]
    params = SamplingParams(temperature=1, frequency_penalty=1.5, presence_penalty=0.5, repetition_penalty=1.2)
    plain, tried = History([1, 2, 2]), History([1, 2, 2])
    for token in (7, 9, 7):
        plain.append(token)
    for token in (7, 8, 8):
        tried.append(token)
    assert [tried.pop(), tried.pop()] == [8, 8]
    for token in (9, 7):
        tried.append(token)
    assert tried.generated == plain.generated == [7, 9, 7]
    for position in range(50):
        assert sample(logits, params, plain, position, 3) == sample(logits, params, tried, position, 3)


def test_logits_are_left_as_they_are():
    logits = language_like(3)[:1000]
    before = logits.copy()
    params = SamplingParams(temperature=1, logit_bias={3: 5.0}, repetition_penalty=2.0, banned_ids=(1,), logprobs=3)
    sample(logits, params, History([1, 2]), 0, 0)
    assert np.array_equal(logits, before)


SCRIPT = """
import hashlib
import numpy as np
from phi4mini.engine.sample.sampling import History, SamplingParams, sample
rng = np.random.Generator(np.random.PCG64(9))
logits = ((rng.integers(-2000, 2000, (6, 50000)) + rng.integers(-2000, 2000, (6, 50000))) / 512).astype(np.float32)
ids = [sample(row, SamplingParams(temperature=t, top_p=p), History(), n, 1).id
       for row in logits for n in range(8) for t, p in ((1.0, 1.0), (0.7, 0.9), (2.0, 0.95))]
print(hashlib.sha256(repr(ids).encode()).hexdigest())
"""


def test_draws_do_not_depend_on_the_vector_width_numpy_uses():
    """NumPy picks other inner loops on other CPUs; with all of them switched off the ids stay the same."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    extra = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))
    outputs = set()
    for disabled in ("", extra):
        environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        outputs.add(run.stdout)
    assert len(outputs) == 1 and len(outputs.pop().strip()) == hashlib.sha256().digest_size * 2


# --- log-probabilities ----------------------------------------------------------------------------------------------


def test_logprobs_are_of_the_unmodified_distribution():
    logits = np.array([1.0, 3.0, 2.0, -1.0], np.float32)
    params = SamplingParams(temperature=0.1, logit_bias={3: 50.0}, banned_ids=(1,), logprobs=2)
    choice = sample(logits, params, History([0]), 0, 0)
    total = math.log(sum(math.exp(x) for x in logits.tolist()))
    assert choice.id == 3
    assert choice.logprob == pytest.approx(-1.0 - total, abs=1e-12)
    assert [token for token, _ in choice.top] == [1, 2]
    assert [p for _, p in choice.top] == pytest.approx([3.0 - total, 2.0 - total], abs=1e-12)


def test_logprobs_zero_reports_the_chosen_token_only():
    choice = sample(np.array([0.0, 0.0], np.float32), SamplingParams(logprobs=0), History(), 0, 0)
    assert choice == (0, pytest.approx(-math.log(2)), [])
    assert sample(np.array([0.0, 0.0], np.float32), SamplingParams(), History(), 0, 0) == (0, None, None)


def test_token_logprobs_equal_a_float64_log_softmax():
    logits = np.stack([language_like(n) * 3 for n in range(5)])
    ids = [7, 0, VOCABULARY - 1, 1234, int(logits[4].argmax())]
    wide = logits.astype(np.float64)
    expected = [row[i] - np.log(np.exp(row - row.max()).sum()) - row.max() for row, i in zip(wide, ids, strict=True)]
    result = token_logprobs(logits, ids)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(value):
    logits = language_like(4)
    logits[77_777] = value
    with pytest.raises(NumericalError, match="position 12"):
        sample(logits, SamplingParams(), History(), 12, 0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_everything_banned_is_an_error(temperature):
    params = SamplingParams(temperature=temperature, banned_ids=tuple(range(8)))
    with pytest.raises(BadInput, match="every id is banned at position 3"):
        sample(np.zeros(8, np.float32), params, History(), 3, 0)


def test_only_allowed_ids_are_drawn_when_nearly_all_are_banned():
    params = SamplingParams(temperature=50.0, banned_ids=tuple(i for i in range(5000) if i not in (17, 4000)))
    drawn = {sample(np.zeros(5000, np.float32), params, History(), n, 0).id for n in range(40)}
    assert drawn == {17, 4000}


def test_min_new_tokens_holds_end_ids_back():
    logits = np.array([1.0, 9.0, 8.0], np.float32)
    params, history = SamplingParams(min_new_tokens=1, stop_ids=(2,)), History([1])
    assert sample(logits, params, history, 1, 0, held_ids=(1,)).id == 0
    history.append(0)
    assert sample(logits, params, history, 2, 0, held_ids=(1,)).id == 1


def test_extreme_values_stay_defined():
    logits = np.array([3e38, -3e38, 0.0], np.float32)
    for temperature in (1e-300, 1e-9, 1.0, 100.0):
        assert sample(logits, SamplingParams(temperature=temperature), History(), 0, 0).id == 0
    with pytest.raises(NumericalError, match="repetition_penalty"):
        sample(logits, SamplingParams(repetition_penalty=0.5), History([0]), 0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", v) for v in (-0.1, 101, math.nan, math.inf, "1", True, None, 10**5000)],
        *[("top_p", v) for v in (-0.1, 1.1, math.nan)],
        *[("min_p", v) for v in (-0.1, 1.1)],
        *[("top_k", v) for v in (-1, 2.0, math.nan, True, 2**31)],
        *[("repetition_penalty", v) for v in (0, -1, math.inf)],
        *[("frequency_penalty", v) for v in (-2.1, 2.1)],
        *[("presence_penalty", v) for v in (-2.1, 2.1)],
        *[("seed", v) for v in (-(2**63) - 1, 2**64, 1.0, 10**5000)],
        *[("max_new_tokens", v) for v in (0, -1, 2**31, "5")],
        *[("min_new_tokens", v) for v in (-1, None)],
        *[("logprobs", v) for v in (-1, 21)],
        ("prompt_logprobs", 21),
        ("ignore_eos", 1),
        *[("stop_ids", v) for v in ((-1,), "12", 5, (1.5,))],
        ("banned_ids", (-2,)),
        *[("logit_bias", v) for v in ({1: 101}, {1: math.nan}, {-1: 0}, {"1": 0}, [1], dict.fromkeys(range(1025), 0))],
    ],
    ids=lambda v: f"{v!r:.20}" if not isinstance(v, int) or abs(v) < 2**70 else "huge",
)
def test_bad_parameters_name_themselves(name, value):
    with pytest.raises(BadInput) as caught:
        SamplingParams(**{name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_min_new_tokens_above_max_is_refused():
    with pytest.raises(BadInput, match="min_new_tokens 5 is above max_new_tokens 4"):
        SamplingParams(min_new_tokens=5, max_new_tokens=4)


@pytest.mark.parametrize("name", ["stop_ids", "banned_ids", "logit_bias"])
def test_ids_beyond_the_vocabulary_are_refused(name):
    params = SamplingParams(**{name: {100: 1.0} if name == "logit_bias" else (99, 100)})
    params.check_vocabulary(101)
    with pytest.raises(BadInput, match=f"{name}: id 100 is beyond the model's last id 99"):
        params.check_vocabulary(100)


def test_with_seed_draws_once_and_keeps_a_given_one():
    assert SamplingParams(seed=0).with_seed().seed == 0
    drawn = {SamplingParams().with_seed().seed for _ in range(5)}
    assert len(drawn) == 5 and None not in drawn
