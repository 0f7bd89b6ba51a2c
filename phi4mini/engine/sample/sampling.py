"""From logits to the next id: a chain of pure functions over the parameters of a request.

Promise: `sample` is a function of (logits, history, params, position, seed) and nothing else. A token that is drawn
alone, in a batch, as a guess or again after preemption is the same token. The arithmetic is elementwise IEEE operations
and sums in a fixed order, with an exp of its own: the last bit of a library's exp differs between CPUs. Equal logits
rank by id, the lower first.

The order: NaN check, `logit_bias`, penalties, bans, the constraint's mask; then over the ids ranked by logit:
temperature, `top_k`, `top_p`, `min_p`, draw. Log-probabilities are those of the model's own distribution, before all
of that.

It knows neither text nor the end of a request: the engine obeys `stop_ids`, `ignore_eos` and `max_new_tokens`.

    choice = sample(logits, SamplingParams(temperature=0.7, top_p=0.9), History(prompt_ids), position=12, seed=1)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from phi4mini.engine.sample.params import Floats, Ids, SamplingParams
from phi4mini.errors import BadInput, NumericalError

__all__ = ["Choice", "History", "SamplingParams", "check_finite", "given", "sample", "token_logprobs", "top_logprobs"]

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.uint32]

_FIRST_LOOK = 1024  # ids ranked at first, of 200,064; nearly every draw ends among them, and ranking all costs far more


class History:
    """The ids that penalties count: the prompt's as a set, the answer's with their numbers of occurrences.

    `pop` undoes `append` exactly.
    """

    def __init__(self, prompt: Iterable[int] | Ids = ()) -> None:
        ids = prompt if isinstance(prompt, np.ndarray) else np.fromiter(prompt, np.int64)
        self.prompt_ids: Ids = np.unique(ids.astype(np.int64))
        self.generated: list[int] = []
        self._counts: dict[int, int] = {}

    def append(self, token: int) -> None:
        """Add one id of the answer."""
        self.generated.append(token)
        self._counts[token] = self._counts.get(token, 0) + 1

    def pop(self) -> int:
        """Take the last id of the answer back and return it."""
        token = self.generated.pop()
        if self._counts[token] == 1:
            del self._counts[token]
        else:
            self._counts[token] -= 1
        return token

    def generated_counts(self) -> tuple[Ids, Floats]:
        """The answer's distinct ids and how often each occurs, in no particular order."""
        size = len(self._counts)
        return np.fromiter(self._counts, np.int64, size), np.fromiter(self._counts.values(), np.float32, size)


class Choice(NamedTuple):
    """A chosen id. With `logprobs` its log-probability, and the most probable (id, log-probability), best first."""

    id: int
    logprob: float | None
    top: list[tuple[int, float]] | None


def sample(
    logits: Floats,
    params: SamplingParams,
    history: History,
    position: int,
    seed: int,
    held_ids: Iterable[int] = (),
    mask: Mask | None = None,
) -> Choice:
    """Choose the id at `position`, its place in the sequence.

    logits: float32 (vocab,), not changed. held_ids: the model's own end ids, banned until `min_new_tokens`.
    mask: uint32 (ceil(vocab / 32),) whose set bits are the ids that may be chosen. Raises NumericalError for NaN or
    infinite logits and BadInput when every id is banned or masked.
    """
    check_finite(logits, position)
    scores = _edit(logits, params, history, held_ids)
    if mask is not None:
        scores = _masked(scores, mask)
    best = int(scores.argmax())
    if scores[best] == np.inf:
        raise NumericalError(f"repetition_penalty {params.repetition_penalty} overflows a logit at position {position}")
    if scores[best] == -np.inf:
        raise BadInput(_nothing_left(position, mask))
    chosen = best if params.temperature == 0 else _draw(scores, params, _uniform(seed, position))
    return given(logits, chosen, params)


def given(logits: Floats, token: int, params: SamplingParams) -> Choice:
    """A token that is decided already, with the log-probabilities that `params` ask for."""
    if params.logprobs is None:
        return Choice(token, None, None)
    total = _log_total(logits)
    return Choice(token, float(logits[token]) - total, _top_logprobs(logits, total, params.logprobs))


def check_finite(logits: Floats, position: int) -> None:
    """Raise NumericalError for NaN or infinity among logits (vocab,)."""
    if not np.isfinite(logits).all():
        raise NumericalError(f"the model produced NaN or infinite logits at position {position}")


def top_logprobs(logits: Floats, count: int) -> list[tuple[int, float]]:
    """The `count` most probable ids of float32 (vocab,) with their log-probabilities, best first."""
    return _top_logprobs(logits, _log_total(logits), count)


def token_logprobs(logits: Floats, ids: npt.ArrayLike) -> Floats:
    """Log-probability of ids (n,) under float32 logits (n, vocab), computed in float64: float32 (n,).

    Works on one row at a time: a float64 copy of the logits of a whole prompt would take gigabytes.
    """
    rows = zip(logits, np.asarray(ids, np.int64), strict=True)
    return np.array([float(row[token]) - _log_total(row) for row, token in rows], np.float32)


# --- edits of the scores before they are ranked ----------------------------------------------------------------------


def _edit(logits: Floats, params: SamplingParams, history: History, held_ids: Iterable[int]) -> Floats:
    banned = params.banned_array
    if len(history.generated) < params.min_new_tokens:
        banned = np.append(banned, np.array([*held_ids, *params.stop_ids], np.int64))
    penalised = params.repetition_penalty != 1 or params.frequency_penalty != 0 or params.presence_penalty != 0
    if not (params.logit_bias or penalised or banned.size):
        return logits
    scores = logits.copy()
    if params.logit_bias:
        ids, values = params.bias_arrays
        scores[ids] += values
    if penalised:
        _penalise(scores, params, history)
    scores[banned] = -np.inf
    return scores


def _penalise(scores: Floats, params: SamplingParams, history: History) -> None:
    ids, counts = history.generated_counts()
    seen = np.concatenate([history.prompt_ids, ids])
    before = scores[seen]  # gathered before any is changed: an id in both is penalised once, as in Hugging Face
    penalty = np.float32(params.repetition_penalty)
    with np.errstate(over="ignore"):  # `sample` refuses plus infinity as the best score; minus infinity is never it
        scores[seen] = np.where(before < 0, before * penalty, before / penalty)
    scores[ids] -= counts * np.float32(params.frequency_penalty) + np.float32(params.presence_penalty)


def _masked(scores: Floats, mask: Mask) -> Floats:
    """A copy of scores with minus infinity where the mask's bit is clear. Without a branch for each id: a clear bit
    becomes the sign of an infinity, and the result is the smaller of score and infinity.
    """
    bound = np.unpackbits(~mask.view(np.uint8), count=scores.size, bitorder="little").astype(np.uint32)
    bound <<= 31
    bound |= 0x7F800000
    infinities = bound.view(np.float32)
    return np.minimum(scores, infinities, out=infinities)


def _nothing_left(position: int, mask: Mask | None) -> str:
    if mask is None:
        return f"every id is banned at position {position}: banned_ids leaves nothing to choose"
    if not mask.any():
        return f"the constraint's mask is empty at position {position}: no id may follow what was drawn"
    return f"every id that the constraint allows at position {position} is banned by banned_ids or held back"


# --- the draw, over ids ranked by (score descending, id ascending) ---------------------------------------------------


def _draw(scores: Floats, params: SamplingParams, uniform: float) -> int:
    """Inverse of the cumulative distribution at `uniform`. Ranks few ids at first, and more only if the draw needs
    them: sorting a whole vocabulary for each token would be the slowest step.
    """
    limit = min(params.top_k or scores.size, scores.size)
    look = limit if params.top_k else _FIRST_LOOK
    best = scores.max()
    total = 0.0 if params.top_k else float(_weights(scores, best, params.temperature).sum(dtype=np.float64))
    while True:
        ranked = _ranked(scores, look)[:limit]
        weights = _weights(scores[ranked], best, params.temperature)
        mass = np.cumsum(weights, dtype=np.float64)
        complete = look >= limit
        kept = _kept(weights, mass, total or float(mass[-1]), params)
        if kept < len(ranked) or complete:
            index = int(np.searchsorted(mass[:kept], uniform * mass[kept - 1], side="right"))
            return int(ranked[min(index, kept - 1)])  # uniform < 1, but the product may round up to the whole mass
        if params.top_p == 1 and params.min_p == 0 and uniform * total < mass[-1]:
            return int(ranked[np.searchsorted(mass, uniform * total, side="right")])
        look *= 8


def _kept(weights: Floats, mass: Doubles, total: float, params: SamplingParams) -> int:
    """How many of the ranked ids `top_p` and `min_p` keep: at least one; all if neither limit falls among them."""
    kept = len(weights)
    if params.top_p < 1:
        kept = min(kept, int(np.searchsorted(mass, params.top_p * total)) + 1)
    if params.min_p > 0:
        below = np.flatnonzero(weights < np.float32(params.min_p))  # the best id weighs exactly 1
        kept = min(kept, int(below[0])) if below.size else kept
    return kept


def _ranked(scores: Floats, look: int) -> Ids:
    """At least the `look` best ids that are not banned (all of them if they are fewer), in the order of the ranking."""
    columns = 2 * look
    if 2 * columns <= scores.size:
        # take the maxima of 2 x look disjoint groups; at least `look` scores reach the look-th largest of them
        peaks = scores[: scores.size // columns * columns].reshape(-1, columns).max(axis=0)
        floor = np.partition(peaks, columns - look)[columns - look]
        ids = np.flatnonzero(scores >= floor if floor > -np.inf else scores > floor)  # banned ids are minus infinity
    else:
        ids = np.arange(scores.size)
    ranked = _sorted(scores, ids)
    return ranked[: np.count_nonzero(scores[ranked] != -np.inf)]


def _sorted(scores: Floats, ids: Ids) -> Ids:
    """ids by (score descending, id ascending): one sort of 64-bit keys, seven times faster than a stable argsort."""
    bits = (np.float32(0) - scores[ids]).view(np.int32)  # 0 - x, not -x: +0 and -0 become equal
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers these compare like the floats
    keys = (ordered.astype(np.int64) << 32) | ids
    keys.sort()
    return keys & 0xFFFFFFFF


_BLOCK = 16384  # elements: intermediates stay in the second-level cache
_EXP_TERMS = [np.float32(1 / math.factorial(k)) for k in range(6, -1, -1)]
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # Cephes expf: n * high is exact


def _weights(scores: Floats, best: np.float32, temperature: float) -> Floats:
    """exp((scores - best) / temperature), float32, relative error 3e-7. Exponents below -87 count as -87."""
    scale = np.float32(min(1 / temperature, 1e30))
    out = np.empty_like(scores)
    with np.errstate(over="ignore"):  # an overflow is minus infinity, which counts as -87 like all small scores
        for start in range(0, scores.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            out[part] = _exp(np.maximum((scores[part] - best) * scale, np.float32(-87)))
    return out


def _exp(z: Floats) -> Floats:
    """e^z for -87 <= z <= 0 by elementwise IEEE operations only: 2^n times a polynomial on [-ln2/2, ln2/2]."""
    n = np.rint(z * np.float32(math.log2(math.e)))
    r = (z - n * _LN2_HIGH) - n * _LN2_LOW
    p: Floats = np.full_like(r, _EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        p *= r
        p += term
    p *= ((n.astype(np.int32) + 127) << 23).view(np.float32)
    return p


def _uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of (seed, position). Counter-based: no draw depends on the draws before it."""
    return float(int(np.random.Philox(key=seed % 2**64, counter=position).random_raw()) >> 11) * 2.0**-53


def _log_total(logits: Floats) -> float:
    """log(sum(exp(logits))) in float64."""
    best = np.float64(logits.max())
    parts = (logits[start : start + _BLOCK] - best for start in range(0, logits.size, _BLOCK))
    return float(best) + math.log(sum(float(np.exp(part).sum()) for part in parts))


def _top_logprobs(logits: Floats, total: float, count: int) -> list[tuple[int, float]]:
    ids = _ranked(logits, count)[:count] if count else ()
    return [(int(i), float(logits[i]) - total) for i in ids]
