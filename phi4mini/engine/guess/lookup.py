"""Guesses of the next tokens from the request's own text (prompt lookup): no second model, nothing but ids.

Where the last few tokens have occurred before, what followed them then may follow now: when code is edited, a text
summarised with quotes, a form filled in. A guess is verified by computing its tokens as more rows of the same pass and
drawing at each row what would have been drawn anyway: the answer is the same, only sooner.

How many to guess is a bet. The longer the past that two places share, the likelier they go on alike; how likely is
learned from the request itself, for each length of shared past, also from guesses that seemed too unlikely to make. A
row more costs a pass a little, so the guess is as long as the tokens expected of the pass grow faster than its time:

    most of    (1 + c(n) + c(n) c(n+1) + ...) / (1 + rows * ROW)    c(n): chance that n shared tokens are followed alike
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

MOST = 7  # guessed tokens a pass: with the certain one, the 8 rows that the fastest kernels take
ROW = 0.12  # of a pass's time, what a row more costs: 0.08 in slow memory to 0.15 from a cache, as for small models
_KEYS = (3, 2, 1)  # tokens that must have occurred before, the longest that did
_PLACES = 8  # occurrences remembered of each key, the latest
_LOOK_BACK = 24  # tokens of context compared to choose among them
_CHANCES = (0.1, 0.25, 0.45, 0.6, 0.7, 0.8, 0.85, 0.9)  # at the start, after 1, 2, ... 8 or more shared tokens
_MEMORY = 0.9  # weight of the past in a running chance


class Guesser:
    """One request's index of its own text, and how well its guesses have done."""

    def __init__(self) -> None:
        self._places: defaultdict[tuple[int, ...], deque[int]] = defaultdict(lambda: deque(maxlen=_PLACES))
        self._indexed = 1  # keys that end before this index are in
        self._shared = 0  # tokens of past that the latest guess was made from
        self._chances = list(_CHANCES)
        self._unsaid: tuple[int, int] | None = None  # where a guess that was not made would have stood, and its token
        self.guessed = self.accepted = 0

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """At most `limit` tokens that may follow `ids`, none where the text gives no hint or a guess does not pay."""
        self._watch(ids)
        self._index(ids)
        places = next((found for n in _KEYS if (found := self._places.get(tuple(ids[-n:])))), None)
        if not places:
            return []
        self._shared, place = max((_shared(ids, place), place) for place in places)
        width = self._width(min(limit, len(ids) - place))
        if not width:
            self._unsaid = len(ids), ids[place]
        return list(ids[place : place + width])

    def learn(self, guessed: int, accepted: int) -> None:
        """Take note of the verified guess: each token up to the first wrong one was a trial of its own."""
        self.guessed += guessed
        self.accepted += accepted
        for at in range(min(accepted + 1, guessed)):
            self._note(self._shared + at, at < accepted)

    def _watch(self, ids: Sequence[int]) -> None:
        """Learn from the guess that did not seem to pay: whether it would have been right costs nothing to see."""
        if self._unsaid and self._unsaid[0] < len(ids):
            at, token = self._unsaid
            self._note(self._shared, ids[at] == token)
        self._unsaid = None

    def _note(self, shared: int, right: bool) -> None:
        chance = self._at(shared)
        self._chances[chance] = _MEMORY * self._chances[chance] + (1 - _MEMORY) * right

    def _width(self, limit: int) -> int:
        """How many tokens to guess, at most `limit`."""
        best, width, expected, right = 1.0, 0, 1.0, 1.0
        for rows in range(1, limit + 1):
            right *= self._chances[self._at(self._shared + rows - 1)]
            expected += right
            if (gain := expected / (1 + rows * ROW)) > best:
                best, width = gain, rows
        return width

    @staticmethod
    def _at(shared: int) -> int:
        """Which chance belongs to so many shared tokens."""
        return min(shared, len(_CHANCES)) - 1

    def _index(self, ids: Sequence[int]) -> None:
        """Enter all keys but the last ones, which are to be looked up."""
        for end in range(self._indexed, len(ids)):
            for n in _KEYS:
                if end >= n:
                    self._places[tuple(ids[end - n : end])].append(end)
        self._indexed = max(self._indexed, len(ids))


def _shared(ids: Sequence[int], place: int) -> int:
    """How many tokens before `place` equal the last ones of `ids`."""
    length = 0
    while length < min(_LOOK_BACK, place) and ids[place - 1 - length] == ids[-1 - length]:
        length += 1
    return length
