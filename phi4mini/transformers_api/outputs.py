"""Results of a model's call and of `generate`: values by name, by attribute or by index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phi4mini.transformers_api.arguments import not_here

if TYPE_CHECKING:
    import numpy as np


class ModelOutput(dict[str, Any]):
    """A dict whose values are attributes too, and elements by index in order; None is left out."""

    def __init__(self, **values: Any) -> None:
        super().__init__({name: value for name, value in values.items() if value is not None})

    def __getattr__(self, name: str) -> Any:
        """A value; None for results that transformers gives only on request."""
        if name in self:
            return self[name]
        if name in ("loss", "scores", "logits", "attentions", "hidden_states"):
            return None
        raise not_here(self, name)

    def __getitem__(self, key: Any) -> Any:
        """A value by name or by index."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values alone."""
        return tuple(self.values())


def mean_loss(logits: np.ndarray, labels: np.ndarray) -> np.float32:
    """Mean negative log-probability of each label given the tokens before it; -100 is none. NaN if there are none.

    `logits` float32 (rows, n, vocab), `labels` int64 (rows, n): position i predicts label i + 1, as in transformers.
    """
    import numpy as np

    total, count = 0.0, 0
    for row, wanted in zip(logits, labels, strict=True):
        places = np.flatnonzero(wanted[1:] != -100)
        for at in places:  # a row at a time: all in float64 would take twice the memory of the logits
            values = row[at].astype(np.float64)
            top = values.max()
            total += top + np.log(np.exp(values - top).sum()) - values[wanted[at + 1]]
        count += len(places)
    return np.float32(total / count) if count else np.float32(np.nan)
