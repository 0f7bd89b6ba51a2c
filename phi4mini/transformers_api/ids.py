"""Token ids of callers (lists, NumPy or torch; one row or several) to lists of rows, and back to arrays.

Promises: torch tensors in give torch tensors out; everything else gives NumPy arrays. torch is imported only for
`return_tensors="pt"` or when a tensor came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from phi4mini.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["np", "pt"]


def flat(ids: Any) -> list[int]:
    """One id, a list or an array of one dimension, as a list."""
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(values, int):
        return [values]
    try:
        return [int(i) for i in values]
    except (TypeError, ValueError):
        raise BadInput(f"ids must be integers in a row, got {type(ids).__name__}") from None


def is_batch(ids: Any) -> bool:
    """True for rows of ids, False for one row."""
    if hasattr(ids, "ndim"):
        return int(ids.ndim) > 1
    return isinstance(ids, Sequence) and bool(len(ids)) and (isinstance(ids[0], Sequence) or _ndim(ids[0]) == 1)


def _ndim(value: Any) -> int:
    return int(getattr(value, "ndim", 0))


def rows_of(ids: Any) -> list[list[int]]:
    """Ids given as one row or several, list or array, as lists."""
    if not isinstance(ids, Iterable) or isinstance(ids, (str, bytes, Mapping)):
        raise BadInput(f"input_ids must be ids, got {type(ids).__name__}; pass **tokenizer(text) or its input_ids")
    if _ndim(ids) > 2:
        raise BadInput(f"input_ids must be a row of ids or rows of them, got {_ndim(ids)} dimensions")
    values = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    return [flat(row) for row in values] if is_batch(values) else [flat(values)]


def masks_of(rows: Sequence[Sequence[int]], mask: Any) -> list[list[int]]:
    """The mask as rows. Raises `BadInput` unless its shape is that of `rows`."""
    masks = rows_of(mask)
    if [len(m) for m in masks] != [len(row) for row in rows]:
        raise BadInput("attention_mask does not have the shape of input_ids")
    return masks


def without_padding(rows: Sequence[Sequence[int]], masks: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows without the positions whose mask is 0."""
    return [[i for i, keep in zip(row, m, strict=True) if keep] for row, m in zip(rows, masks, strict=True)]


def filled(rows: Sequence[Sequence[int]], fill: int, length: int, left: bool = False) -> list[list[int]]:
    """The rows filled to `length`, on the right or on the left."""
    return [[fill] * (length - len(row)) * left + [*row] + [fill] * (length - len(row)) * (not left) for row in rows]


def tensor(rows: Any, kind: str) -> Any:
    """int64 (rows, n) as "np" or "pt". Raises `BadInput` for another kind and for rows of different lengths."""
    import numpy as np

    if kind not in ("np", "pt"):
        raise BadInput(f"return_tensors {kind!r:.40} is not here; there are 'np', 'pt', and None for lists")
    listed = rows_of(rows)
    if len({len(row) for row in listed}) > 1:
        raise BadInput("the texts have different lengths; use padding=True, or leave out return_tensors for lists")
    return as_kind(np.array(listed, np.int64), kind)


def kind_of(*given: Any) -> Kind:
    """ "pt" if any of these is a torch tensor, else "np"."""
    classes = (cls for value in given for cls in type(value).__mro__)
    return "pt" if any(cls.__module__.partition(".")[0] == "torch" for cls in classes) else "np"


def as_kind(array: np.ndarray, kind: str) -> Any:
    """The array, or a torch tensor of the same memory."""
    if kind == "np":
        return array
    return torch_module().from_numpy(array)


def torch_module() -> Any:
    """The module torch. Raises `BadInput` if it is not installed."""
    try:
        import torch
    except ImportError:
        raise BadInput("tensors of torch need torch, which is not installed here; use return_tensors='np'") from None
    return torch
