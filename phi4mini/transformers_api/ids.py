"""Token ids as transformers' users give them, lists or arrays, one row or several; and as they get them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from phi4mini.errors import BadInput

if TYPE_CHECKING:
    import numpy as np


def flat(ids: Any) -> list[int]:
    """One id, a list or an array of one dimension, as a list."""
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    return [values] if isinstance(values, int) else [int(i) for i in values]


def rows_of(ids: Any) -> list[list[int]]:
    """Ids given as one row or several, list or array, as lists."""
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping)):
        raise BadInput(f"input_ids must be ids, got {type(ids).__name__}; pass **tokenizer(text) or its input_ids")
    values = list(values)
    return [flat(row) for row in values] if values and not isinstance(values[0], int) else [flat(values)]


def without_padding(ids: Any, mask: Any) -> list[list[int]]:
    """The rows without the padding their mask names."""
    rows = rows_of(ids)
    if mask is None:
        return rows
    masks = rows_of(mask)
    if [len(m) for m in masks] != [len(row) for row in rows]:
        raise BadInput("attention_mask does not have the shape of input_ids")
    return [[i for i, keep in zip(row, m, strict=True) if keep] for row, m in zip(rows, masks, strict=True)]


def tensor(rows: Any, kind: str) -> np.ndarray:
    """int64 (rows, n). Raises `BadInput` for another kind than NumPy's, or rows of different lengths."""
    import numpy as np

    if kind != "np":
        raise BadInput(f"return_tensors {kind!r} is not here: torch is not needed; use 'np', or None for lists")
    listed = rows_of(rows)
    if len({len(row) for row in listed}) > 1:
        raise BadInput("the texts have different lengths; encode them one by one or without return_tensors")
    return np.array(listed, np.int64)
