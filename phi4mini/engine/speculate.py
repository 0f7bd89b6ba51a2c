"""Guesses of the next tokens from the request's own text (prompt lookup): no second model, nothing but ids.

Where the last few tokens have occurred before, what followed them then is likely to follow now: when code is edited,
a text summarised with quotes, a form filled in. A guess is verified by computing its tokens as more rows of the same
pass and drawing at each row what would have been drawn anyway: the answer is the same, only sooner. A pass of a few
rows costs little more than one of one row, because it waits for the weights; that little is what a wrong guess loses,
so the width follows the success.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

MOST = 7  # guessed tokens a pass: with the certain one, the 8 rows that the fastest kernels take
_KEY = 3  # tokens that must have occurred before
_PLACES = 4  # occurrences remembered of each key, the latest
_LOOK_BACK = 24  # tokens of context compared to choose among them
_MEMORY = 0.75  # weight of the past in the running success
_HOPE = 0.45  # success assumed at the start
_SURE = 8  # a match this long is tried even when guesses have failed


class Guesser:
    """One request's index of its own text, and how well its guesses have done."""

    def __init__(self) -> None:
        self._places: defaultdict[tuple[int, ...], deque[int]] = defaultdict(lambda: deque(maxlen=_PLACES))
        self._indexed = _KEY  # keys that end before this index are in
        self.success = _HOPE
        self.guessed = self.accepted = 0

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """At most `limit` tokens that may follow `ids`, none where the text gives no hint or guessing has not paid."""
        self._index(ids)
        places = self._places.get(tuple(ids[-_KEY:])) if len(ids) > _KEY else None
        if not places:
            return []
        length, place = max((_shared(ids, place), place) for place in places)
        width = min(limit, round(self.success * MOST))
        if width < 2:
            width = min(limit, 2) if length >= _SURE else 0
        return list(ids[place : place + width])

    def learn(self, guessed: int, accepted: int) -> None:
        """Take note of a verified guess."""
        self.guessed += guessed
        self.accepted += accepted
        self.success = _MEMORY * self.success + (1 - _MEMORY) * accepted / guessed

    def _index(self, ids: Sequence[int]) -> None:
        """Enter all keys but the last, which is the one to be looked up."""
        for end in range(self._indexed, len(ids)):
            self._places[tuple(ids[end - _KEY : end])].append(end)
        self._indexed = max(self._indexed, len(ids))


def _shared(ids: Sequence[int], place: int) -> int:
    """How many tokens before `place` equal the last ones of `ids`."""
    length = 0
    while length < min(_LOOK_BACK, place) and ids[place - 1 - length] == ids[-1 - length]:
        length += 1
    return length
