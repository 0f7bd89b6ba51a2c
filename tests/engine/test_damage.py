"""Damaged weights: NaN or infinity anywhere is an error of the request that met it, and of no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from phi4mini.engine.compute.forward import Network
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import NumericalError
from phi4mini.formats.matrix import Matrix
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.engine.traces import ask, run

FREE = {"ignore_eos": True, "max_new_tokens": 8}

POISON = {
    "f32": (np.float32, np.nan),
    "q4": (np.float16, np.nan),
    "q8": (np.float16, np.nan),
    "q6k": (np.float16, np.nan),
}


def poison(matrix: Matrix, row: int) -> None:
    """A NaN where one row keeps its first number or scale."""
    kind, value = POISON[matrix.format.name]
    strip = matrix.strips()[row // 16].reshape(-1)
    strip[: 16 * np.dtype(kind).itemsize].view(kind)[row % 16] = value


DAMAGE: dict[str, Callable[[Weights], None]] = {
    "input norm": lambda w: w.layers[0].input_norm.__setitem__(5, np.nan),
    "post norm": lambda w: w.layers[1].post_norm.__setitem__(77, np.nan),
    "last norm": lambda w: w.norm.__setitem__(127, np.nan),
    "infinite norm": lambda w: w.layers[0].post_norm.__setitem__(0, np.inf),
    "query": lambda w: poison(w.layers[0].qkv, 3),
    "key": lambda w: poison(w.layers[1].qkv, 130),
    "value": lambda w: poison(w.layers[1].qkv, 200),
    "o": lambda w: poison(w.layers[1].o, 9),
    "gate": lambda w: poison(w.layers[0].gate_up, 3),
    "up": lambda w: poison(w.layers[1].gate_up, 250),
    "down": lambda w: poison(w.layers[1].down, 100),
    "head": lambda w: poison(w.head, 31),
}


@pytest.mark.parametrize("place", DAMAGE)
@pytest.mark.parametrize(("format", "kv"), [("f32", "f32"), ("q4", "int8"), ("q8", "f32"), ("q6k", "int8")])
def test_nan_anywhere_in_the_weights_is_an_error(format: str, kv: str, place: str) -> None:
    """No rounding to int8, no maximum and no exp may swallow it: nothing is sampled from a damaged model."""
    damaged = tiny.weights(tiny.config(), format)
    DAMAGE[place](damaged)
    engine = tiny.engine(damaged, kv)
    for length in (1, 9, 70):
        with pytest.raises(NumericalError, match="NaN or infinite logits"):
            list(engine.generate(tiny.ids(length), SamplingParams(**FREE)))
    assert engine.pages.free == engine.pages.count
    assert not engine.network.cache.any(), "its pages are zeroed"


SICK = 100  # the token whose embedding is NaN


def sick_weights(format: str) -> Weights:
    made = tiny.weights(tiny.config(tie_word_embeddings=False), format)
    poison(made.embed, SICK)
    return made


def without(ids: list[int], token: int) -> list[int]:
    return [i if i != token else i + 1 for i in ids]


@pytest.mark.parametrize(("format", "kv"), [("f32", "f32"), ("q4", "int8"), ("f32", "int8"), ("q8", "f32")])
@pytest.mark.parametrize("where", [0, 30, 69])
def test_one_requests_nan_is_its_own(format: str, kv: str, where: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sick request runs in the same passes and tiles; then a healthy one takes its pages."""
    made, dropped = sick_weights(format), []
    drop = Network.drop
    monkeypatch.setattr(Network, "drop", lambda self, page: (dropped.append(page), drop(self, page))[1])
    asks = [ask(12, 9, 1, banned_ids=(SICK,)), ask(66, 5, 2, banned_ids=(SICK,)), ask(80, 5, 3, banned_ids=(SICK,))]
    asks = [replace(a, ids=tuple(without(list(a.ids), SICK))) for a in asks]
    alone = [run(tiny.engine(made, kv), [a])[0].digest() for a in asks]
    engine = tiny.engine(made, kv, pages=8)
    prompt = without(tiny.ids(70, 4), SICK)
    prompt[where] = SICK
    sick = engine.add(Request(prompt, SamplingParams(**FREE)))
    assert [t.digest() for t in run(engine, asks)] == alone
    assert sick.finish_reason == "error" and isinstance(sick.error, NumericalError) and not sick.generated
    assert len(dropped) == 2
    assert [t.digest() for t in run(engine, asks)] == alone


@pytest.mark.parametrize(("format", "kv"), [("f32", "f32"), ("q4", "int8")])
def test_nan_of_an_aborted_prompt_stays_behind(format: str, kv: str) -> None:
    """Ended before any logits could tell: its pages go on with NaN in them, and who takes them must not see it."""
    made = sick_weights(format)
    healthy = ask(70, 6, 1, banned_ids=(SICK,))
    healthy = replace(healthy, ids=tuple(without(list(healthy.ids), SICK)))
    want = run(tiny.engine(made, kv), [healthy])[0].digest()
    engine = tiny.engine(made, kv, pages=4, rows=128)
    sick = engine.add(Request([SICK] * 200, SamplingParams(**FREE)))
    engine.step()
    engine.abort(sick)
    assert engine.network.cache.any()
    assert run(engine, [healthy])[0].digest() == want
