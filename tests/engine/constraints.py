"""Constraints written by hand, so that what an engine makes of them can be told without a grammar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from phi4mini.errors import BadInput
from tests import tiny

VOCAB = 160


def mask_of(ids: Iterable[int], vocab: int = VOCAB) -> np.ndarray:
    """The mask that allows exactly these."""
    bits = np.zeros(-(-vocab // 32) * 32, bool)
    bits[list(ids)] = True
    return np.packbits(bits, bitorder="little").view(np.uint32)


class OneOf:
    """One of a list of sequences, whole; then the end id if `end` is given, else nothing."""

    def __init__(self, sequences: Sequence[Sequence[int]], end: int | None = None, vocab: int = VOCAB) -> None:
        self.sequences = [(*s, *([] if end is None else [end])) for s in sequences]
        self.made: tuple[int, ...] = ()
        self.masks, self.vocab = 0, vocab

    def _next(self, made: tuple[int, ...]) -> set[int]:
        return {s[len(made)] for s in self.sequences if s[: len(made)] == made and len(s) > len(made)}

    def mask(self) -> np.ndarray:
        self.masks += 1
        return mask_of(self._next(self.made), self.vocab)

    def accept(self, id: int) -> None:
        assert id in self._next(self.made), f"{id} may not follow {self.made}"
        self.made += (id,)

    def forced(self) -> list[int]:
        made = self.made
        while len(following := self._next(made)) == 1:
            made += tuple(following)
        return list(made[len(self.made) :])

    @property
    def done(self) -> bool:
        return not self._next(self.made)


class Rhythm:
    """Endless: a third of the ids may follow each, and some bring a run of ids that must follow them."""

    def __init__(self, longest: int = 12) -> None:
        self.longest = longest
        self.last, self.due = 0, []

    def _allowed(self) -> list[int]:
        return self.due[:1] or [i for i in range(3, VOCAB) if (7 * i + self.last) % 3 == 0]

    def mask(self) -> np.ndarray:
        return mask_of(self._allowed())

    def accept(self, id: int) -> None:
        assert id in self._allowed()
        if self.due:
            self.due = self.due[1:]
        elif id % 4 == 0:
            self.due = tiny.ids(1 + id % self.longest, id)
        self.last = id

    def forced(self) -> list[int]:
        return list(self.due)

    @property
    def done(self) -> bool:
        return False


class Failing(Rhythm):
    """Raises at the n-th call of one of its methods."""

    def __init__(self, method: str, at: int) -> None:
        super().__init__()
        self.method, self.left = method, at

    def _count(self, method: str) -> None:
        if method == self.method:
            self.left -= 1
            if self.left == 0:
                raise BadInput(f"{method} went wrong")

    def mask(self) -> np.ndarray:
        self._count("mask")
        return super().mask()

    def accept(self, id: int) -> None:
        self._count("accept")
        super().accept(id)

    def forced(self) -> list[int]:
        self._count("forced")
        return super().forced()
