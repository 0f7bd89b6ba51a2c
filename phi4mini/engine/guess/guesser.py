"""Guessers of a request's next tokens (speculative decoding): the interface of prompt lookup, and of a draft model.

A pass computes the guessed tokens as more rows behind the known ones, and verify.py draws at each row exactly the token
that would have been drawn without a guess. So a guess changes how many tokens a pass yields, never which ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from phi4mini.kernels.matmul import FEW

MOST = FEW - 1  # guessed tokens a pass: with the known token they fill the 8 rows that the kernels for few rows take


class Guesser(Protocol):
    """Belongs to one request, and is asked between two passes of it.

    `guessed`, `accepted`: tokens so far that a pass verified, and those of them that were right.
    """

    guessed: int
    accepted: int

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """At most `limit` ids of the vocabulary that may follow `ids`; [] where a guess would not pay."""
        ...

    def learn(self, guessed: int, accepted: int) -> None:
        """The latest guess was verified: of `guessed` tokens the first `accepted` were right."""
        ...
