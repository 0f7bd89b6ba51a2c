"""Guesses from the request's own text (prompt lookup decoding): no second model, nothing but ids.

Where the last few tokens have occurred before, the tokens that followed them then may follow now: when code is edited,
a text is summarised with quotes, a form is filled in.

The length of a guess is a bet. The longer the past that two places share, the likelier they go on alike. How likely is
learned from the request itself, for each length of shared past, also from guesses that seemed too unlikely to make.
Each guessed row makes the pass a little longer, so the width is the one that maximises expected tokens per time:

    (1 + c(n) + c(n) c(n+1) + ...) / (1 + rows * ROW)    c(n): chance that the same token follows n shared tokens
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

ROW = 0.12  # cost of one more row, as a share of a pass of one row: 0.08 for weights in slow memory, 0.15 in a cache
_KEYS = (3, 2, 1)  # lengths of the n-grams looked up; the first that occurred before decides
_PLACES = 8  # latest occurrences remembered of each n-gram
_LOOK_BACK = 24  # tokens compared backwards to choose among the occurrences
_CHANCES = (0.1, 0.25, 0.45, 0.6, 0.7, 0.8, 0.85, 0.9)  # c(1), c(2), ... c(8 and more) of a new request
_MEMORY = 0.9  # weight of the past in the running average of a chance


class Lookup:
    """A `Guesser`: one request's index of its own text, and how well its guesses have done."""

    def __init__(self) -> None:
        self._places: defaultdict[tuple[int, ...], deque[int]] = defaultdict(lambda: deque(maxlen=_PLACES))
        self._indexed = 1  # n-grams that end before this index are entered
        self._shared = 0  # tokens that the place of the latest guess shared with the end of the text
        self._chances = list(_CHANCES)
        self._unsaid: tuple[int, int] | None = None  # position and token of a guess that was not made
        self.guessed = self.accepted = 0

    def guess(self, ids: Sequence[int], limit: int) -> list[int]:
        """At most `limit` tokens that may follow `ids`; [] where the text gives no hint or a guess does not pay."""
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
        """Update the chances: each guessed token up to the first wrong one was a trial of its own."""
        self.guessed += guessed
        self.accepted += accepted
        for at in range(min(accepted + 1, guessed)):
            self._note(self._shared + at, at < accepted)

    def _watch(self, ids: Sequence[int]) -> None:
        """Learn from a guess that was not made: its token can be compared once the next one is drawn."""
        if self._unsaid and self._unsaid[0] < len(ids):
            at, token = self._unsaid
            self._note(self._shared, ids[at] == token)
        self._unsaid = None

    def _note(self, shared: int, right: bool) -> None:
        chance = self._at(shared)
        self._chances[chance] = _MEMORY * self._chances[chance] + (1 - _MEMORY) * right

    def _width(self, limit: int) -> int:
        """The number of tokens to guess that maximises the formula of the file's head, at most `limit`."""
        best, width, expected, right = 1.0, 0, 1.0, 1.0
        for rows in range(1, limit + 1):
            right *= self._chances[self._at(self._shared + rows - 1)]
            expected += right
            if (gain := expected / (1 + rows * ROW)) > best:
                best, width = gain, rows
        return width

    @staticmethod
    def _at(shared: int) -> int:
        """The index in `_chances` for a number of shared tokens."""
        return min(shared, len(_CHANCES)) - 1

    def _index(self, ids: Sequence[int]) -> None:
        """Enter all n-grams but those at the very end, which are the ones to look up."""
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
