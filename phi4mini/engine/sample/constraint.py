"""What a request's answer may be, token by token: the door through which grammars reach the engine.

The engine asks for a mask just before a token is drawn and tells which one it was; it knows no text and no grammar.
A constraint belongs to one request and is asked in the order of its answer: never about a guess that was wrong, never
twice about the same token, also when the request stepped back and is computed again.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from phi4mini.errors import BadInput


class Constraint(Protocol):
    """Which id may come next. What it raises as a Phi4MiniError ends its own request, and no other."""

    def mask(self) -> np.ndarray:
        """uint32 (ceil(vocab / 32),): bit i % 32 of word i // 32 is set where id i may come next."""
        ...

    def accept(self, id: int) -> None:
        """Id was chosen; the ids that end an answer are told too."""
        ...

    def forced(self) -> list[int]:
        """Ids that must follow now, in their order; [] when there is a choice. Changes nothing."""
        ...

    @property
    def done(self) -> bool:
        """Complete, and nothing may follow."""
        ...


def checked_mask(mask: np.ndarray, vocab_size: int) -> np.ndarray:
    """A constraint's mask, or BadInput where it is not one for this vocabulary."""
    shape = (-(-vocab_size // 32),)
    if mask.dtype != np.uint32 or mask.shape != shape:
        raise BadInput(
            f"the constraint's mask is {mask.dtype} {mask.shape}; a vocabulary of {vocab_size} takes uint32 {shape}"
        )
    return mask
