"""Results of a tokenizer: a dict of ids and mask; for conversations also ids that behave like that dict.

`apply_chat_template` returns ids in transformers 4 and a dict in 5. Without `return_dict` it returns a `ChatIds`,
`ChatArray` or tensor here: a list, array or tensor of ids that also supports `["input_ids"]`, `.attention_mask` and
`**ids`, so that code for either version runs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from phi4mini.transformers_api.arguments import check_on_cpu
from phi4mini.transformers_api.ids import torch_module


class BatchEncoding(dict[str, Any]):
    """A dict of `input_ids` and `attention_mask` whose items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def data(self) -> dict[str, Any]:
        return dict(self)

    def to(self, device: Any = None, **others: Any) -> BatchEncoding:
        """Itself: everything is on the CPU. Raises `BadInput` for another device."""
        check_on_cpu(device, **others)
        return self


class _AlsoDict:
    """Mixin that gives ids (a list, an array or a tensor) the methods of a dict."""

    encoding: BatchEncoding

    def keys(self) -> Any:
        """The dict's keys; with `__getitem__` they make `**ids` work."""
        return self.encoding.keys()

    def items(self) -> Any:
        """The dict's items."""
        return self.encoding.items()

    def __getattr__(self, name: str) -> Any:
        """An entry of the dict as an attribute."""
        if name != "encoding" and name in self.__dict__.get("encoding", ()):
            return self.encoding[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getitem__(self, key: Any) -> Any:
        """An entry of the dict, or ids."""
        return self.encoding[key] if isinstance(key, str) else super().__getitem__(key)  # type: ignore[misc]

    def __contains__(self, key: Any) -> bool:
        """Looks a text up in the dict and an id in the ids."""
        return key in self.encoding if isinstance(key, str) else super().__contains__(key)  # type: ignore[misc]

    def to(self, device: Any = None, **others: Any) -> Any:
        """Itself: everything is on the CPU. Raises `BadInput` for another device."""
        check_on_cpu(device, **others)
        return self


class ChatIds(_AlsoDict, list[Any]):
    """Ids as a list."""


class ChatArray(_AlsoDict, np.ndarray):
    """Ids as an array; slices and results of NumPy are plain arrays."""

    def __getitem__(self, key: Any) -> Any:
        """An entry of the dict, or ids."""
        return super().__getitem__(key) if isinstance(key, str) else np.asarray(self)[key]

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Results of NumPy's functions are plain."""
        return array[()] if return_scalar else np.asarray(array)


@cache
def _chat_tensor() -> type:
    torch = torch_module()

    class ChatTensor(_AlsoDict, torch.Tensor):  # type: ignore[misc,name-defined]
        """Ids as a tensor; slices and results of torch are plain tensors."""

        __torch_function__ = torch._C._disabled_torch_function_impl

        def __getitem__(self, key: Any) -> Any:
            return self.encoding[key] if isinstance(key, str) else torch.Tensor.__getitem__(self, key)

    return ChatTensor


def ids_and_dict(encoding: BatchEncoding) -> Any:
    """The `input_ids` of an encoding, as ids that also behave like the encoding."""
    ids: Any = encoding["input_ids"]
    if isinstance(ids, list):
        made: Any = ChatIds(ids)
    elif isinstance(ids, np.ndarray):
        made = ids.view(ChatArray)
    else:
        made = ids.as_subclass(_chat_tensor())
    made.encoding = encoding
    return made
