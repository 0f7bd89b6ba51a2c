"""What a tokenizer gives: a dict of ids and mask, and, for conversations, ids that answer as that dict does too.

`apply_chat_template` gave ids in transformers 4 and gives a dict in 5. Left alone, `return_dict` gives a `ChatIds`,
`ChatArray` or tensor here: a list, array or tensor of ids, of which `["input_ids"]`, `.attention_mask` and `**ids` can
be asked as well, so that code written for either runs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from phi4mini.transformers_api.arguments import check_on_cpu
from phi4mini.transformers_api.ids import torch_module


class BatchEncoding(dict[str, Any]):
    """`input_ids` and `attention_mask`, as items and as attributes."""

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
    """The dict's side of ids. A mixin: the other side is a list, an array or a tensor."""

    encoding: BatchEncoding

    def keys(self) -> Any:
        """Of the dict: with `__getitem__` this makes `**ids` work."""
        return self.encoding.keys()

    def items(self) -> Any:
        """Of the dict."""
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
        """Of the dict for a text, of the ids for an id."""
        return key in self.encoding if isinstance(key, str) else super().__contains__(key)  # type: ignore[misc]

    def to(self, device: Any = None, **others: Any) -> Any:
        """Itself: everything is on the CPU. Raises `BadInput` for another device."""
        check_on_cpu(device, **others)
        return self


class ChatIds(_AlsoDict, list[Any]):
    """Ids as a list."""


class ChatArray(_AlsoDict, np.ndarray):
    """Ids as an array; what is made of it is a plain array."""

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
        """Ids as a tensor; what is made of it is a plain tensor."""

        __torch_function__ = torch._C._disabled_torch_function_impl

        def __getitem__(self, key: Any) -> Any:
            return self.encoding[key] if isinstance(key, str) else torch.Tensor.__getitem__(self, key)

    return ChatTensor


def ids_and_dict(encoding: BatchEncoding) -> Any:
    """The `input_ids` of an encoding, which answer as the encoding too."""
    ids: Any = encoding["input_ids"]
    if isinstance(ids, list):
        made: Any = ChatIds(ids)
    elif isinstance(ids, np.ndarray):
        made = ids.view(ChatArray)
    else:
        made = ids.as_subclass(_chat_tensor())
    made.encoding = encoding
    return made
