"""Stopping criteria: callables that `generate` calls after each token; a true result ends the answer there.

Promises: a criterion gets the ids of one row so far, prompt included, as the kind of array that the prompt was; its
result may be a bool, or an array or tensor of bools, as transformers' own criteria return.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from phi4mini.errors import BadInput

Criterion = Callable[..., Any]


class StoppingCriteria:
    """Base class of criteria; any callable with these arguments will do."""

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> Any:
        """True to end the answer here, given ids (1, n); `scores` is None."""
        raise NotImplementedError("a criterion must define __call__")


class MaxTimeCriteria(StoppingCriteria):
    """Ends an answer after so many seconds."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> bool:
        return time.time() - self.initial_timestamp > self.max_time


class StoppingCriteriaList(list[Criterion]):
    """Criteria, any one of which ends the answer."""

    def __call__(self, input_ids: Any, scores: Any, **others: Any) -> bool:
        """True if any criterion returns true."""
        return any(says_stop(criterion(input_ids, scores, **others)) for criterion in self)


def criteria_of(given: Any) -> StoppingCriteriaList:
    """The list of one callable or several. Raises `BadInput` for anything else."""
    several = list(given) if isinstance(given, Iterable) else [given]
    wrong = next((each for each in several if not callable(each)), None)
    if wrong is not None:
        raise BadInput(f"stopping_criteria takes callables of (input_ids, scores), not {type(wrong).__name__}")
    return StoppingCriteriaList(several)


def says_stop(answer: Any) -> bool:
    """A criterion's result as a bool; an array is true if all of it is."""
    return bool(answer.all()) if hasattr(answer, "all") else bool(answer)
