"""Constraints: which ids may come next in an answer. The interface through which grammars reach the engine.

The engine asks for a mask just before a token is drawn, and then tells the constraint which id was chosen. It knows no
text and no grammar. A constraint belongs to one request and is asked in the order of the answer: never about a wrong
guess, and never twice about the same token, even if the request is preempted and computed again.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from phi4mini.errors import BadInput


class Constraint(Protocol):
    """Which id may come next. A Phi4MiniError that it raises ends its own request and no other."""

    def mask(self) -> np.ndarray:
        """uint32 (ceil(vocab / 32),): bit i % 32 of word i // 32 is set where id i may come next."""
        ...

    def accept(self, id: int) -> None:
        """The id was chosen. Called for the ids that end an answer too."""
        ...

    def forced(self) -> list[int]:
        """Ids that must follow now, in order; [] when there is a choice. Asking changes nothing."""
        ...

    @property
    def done(self) -> bool:
        """True if the answer is complete and nothing may follow."""
        ...


def checked_mask(mask: np.ndarray, vocab_size: int) -> np.ndarray:
    """The mask, if its type and shape fit the vocabulary; raises BadInput otherwise."""
    shape = (-(-vocab_size // 32),)
    if mask.dtype != np.uint32 or mask.shape != shape:
        raise BadInput(
            f"the constraint's mask is {mask.dtype} {mask.shape}; a vocabulary of {vocab_size} takes uint32 {shape}"
        )
    return mask
