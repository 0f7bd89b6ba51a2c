"""Stopping criteria of every kind end a row after the token they speak of."""

from __future__ import annotations

import time

import numpy as np
import pytest

from phi4mini import MaxTimeCriteria, StoppingCriteria, StoppingCriteriaList
from phi4mini.errors import BadInput

PROMPT = [39, 293, 75, 78]


class After(StoppingCriteria):
    def __init__(self, count):
        self.count = count

    def __call__(self, input_ids, scores, **others):
        return input_ids.shape[1] >= len(PROMPT) + self.count


def test_TF12_criteria_of_every_kind(model):
    whole = model.generate([PROMPT], max_new_tokens=9)[0, 4:].tolist()
    relatives = {
        "a class": (After(3), 3),
        "a list": ([After(4)], 4),
        "transformers' list": (StoppingCriteriaList([After(2)]), 2),
        "the first of two": ([After(5), After(2)], 2),
        "a function": (lambda ids, scores, **_: ids.shape[1] == 5, 1),
        "an array": ([lambda ids, scores: np.array([ids.shape[1] == 7])], 3),
        "not all of an array": ([lambda ids, scores: np.array([True, False])], 9),
        "a certain id": ([lambda ids, scores: ids[0, -1] == whole[3]], whole.index(whole[3]) + 1),
        "never": ([lambda ids, scores: False], 9),
        "none": ([], 9),
        "a nested list": (StoppingCriteriaList([StoppingCriteriaList([After(6)])]), 6),
        "time": (MaxTimeCriteria(-1.0), 1),
    }
    for name, (criteria, count) in relatives.items():
        made = model.generate([PROMPT], max_new_tokens=9, stopping_criteria=criteria)
        assert made[0, 4:].tolist() == whole[:count], name


def test_TF12_a_criterion_sees_each_row_with_its_prompt(model):
    seen = []
    rows = [[319, 319, 39, 72], PROMPT]
    model.generate(
        rows,
        attention_mask=[[0, 0, 1, 1], [1] * 4],
        max_new_tokens=2,
        stopping_criteria=[lambda ids, scores: seen.append((ids.tolist(), scores)) or False],
    )
    assert len(seen) == 4 and all(scores is None for _, scores in seen)
    assert [ids[0][:4] for ids, _ in seen] == [*rows, *rows] and [len(ids[0]) for ids, _ in seen] == [5, 5, 6, 6]


def test_TF12_seconds_end_an_answer(model):
    begun = time.monotonic()
    made = model.generate([PROMPT], max_new_tokens=1500, max_time=0.05)
    assert 5 <= made.shape[1] < 1504 and time.monotonic() - begun < 30


def test_TF12_what_is_no_criterion_is_said_and_an_error_of_one_is_its_own(model):
    for wrong in (3, [3], ["stop"]):
        with pytest.raises(BadInput, match="stopping_criteria"):
            model.generate([PROMPT], stopping_criteria=wrong, max_new_tokens=2)
    with pytest.raises(ZeroDivisionError):
        model.generate([PROMPT], stopping_criteria=[lambda ids, scores: 1 / 0], max_new_tokens=2)
    assert model.generate([PROMPT], max_new_tokens=2).shape == (1, 6)  # and the model goes on
