"""A compiled grammar for one answer: llguidance's matcher as the engine's `Constraint`, with bounds on each step.

Promises that the state is a function of the accepted ids alone, however often masks and forced ids were asked for in
between, and that every failure is a `BadInput` of one line. Knows no schemas (`schema.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from phi4mini.errors import BadInput

_LONGEST_MESSAGE = 240
_IN_OUR_WORDS = (
    ("NoExtension", "nothing can satisfy it"),
    (r"regex parse error:.*^error: ([^\n]{1,200})", r"invalid regular expression: \1"),
    (r"^Unimplemented keys: \[(.{1,200}?)\]$", r"not supported: \1"),
    (r"^Resource '(.{0,200}?)' is not present", r"the reference '\1' is not inside it, and nothing is fetched"),
    (r"^(oneOf constraints are not supported)\.", "oneOf with options that may overlap is not supported; use anyOf"),
    (r"parser error: Too many items|lexer error: too many|Current row has", "a step is too complex"),
    (r"^lexer precomputation failed|initial lexer configuration|DNF too large|fuel exhausted", "it is too complex"),
)


@cache
def _limits() -> LLParserLimits:
    """Limits that keep a step under some milliseconds and a request's tables under some tens of MB.

    Real schemas need a tenth of them.
    """
    return LLParserLimits(
        initial_lexer_fuel=400_000,
        step_lexer_fuel=200_000,
        step_max_items=20_000,
        max_items_in_row=20_000,  # an object with n optional properties has a row of 4 n
        max_lexer_states=50_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def compiled(trie: LLTokenizer, source: str, what: str, end_ids: Sequence[int]) -> GrammarConstraint:
    """A new constraint with its first mask computed. Raises BadInput that begins with `what`."""
    matcher = LLMatcher(trie, source, log_level=0, limits=_limits())
    if matcher.is_error():
        raise BadInput(f"{what} cannot be used: {one_line(matcher.get_error())}")
    constraint = GrammarConstraint(matcher, trie.vocab_size, end_ids, what)
    if constraint.only_end():
        raise BadInput(f"{what} cannot be used: it allows nothing but the empty text")
    return constraint


def one_line(message: str) -> str:
    """llguidance's error message in one line, without its drawing of the place, the grammar and its options."""
    for pattern, ours in _IN_OUR_WORDS:
        if found := re.search(pattern, message, re.DOTALL | re.MULTILINE):
            return found.expand(ours).strip()
    first = message.replace("<non-verbose/>", "").strip().partition("\n")[0]
    return first if len(first) <= _LONGEST_MESSAGE else f"{first[:_LONGEST_MESSAGE]}..."


class GrammarConstraint:
    """Which ids may come next in one answer. For one thread at a time.

    `forced`, `mask` and `accept` raise BadInput when a step exceeds the limits, and from then on.
    """

    def __init__(self, matcher: Any, vocab_size: int, end_ids: Sequence[int], what: str) -> None:
        self._matcher = matcher
        self._words = (vocab_size + 31) // 32
        self._end_ids = end_ids
        self._what = what
        self._count = 0  # ids accepted
        self._forced: list[int] | None = None  # None: not computed for this state
        self._mask: np.ndarray | None = None
        self._done = bool(matcher.is_stopped())

    @property
    def done(self) -> bool:
        """The answer is complete and nothing but an end id may follow."""
        return self._done

    def forced(self) -> list[int]:
        """Ids that must follow now, in order; empty if there is a choice. Changes nothing."""
        if self._forced is None:
            self._forced = [] if self._done else list(self._matcher.compute_ff_tokens())
            self._check()
        return list(self._forced)

    def mask(self) -> np.ndarray:
        """uint32 (ceil(vocabulary / 32),): bit i % 32 of word i // 32 is set if id i may come next.

        A new array for every state; once done, only the end ids are set.
        """
        if self._mask is None:
            only = self._end_ids if self._done else self.forced()[:1]
            self._mask = self._bits(only) if only else self._computed()
        return self._mask

    def only_end(self) -> bool:
        """True if only ids that end the answer may come next."""
        return not np.any(self.mask() & ~self._bits(self._end_ids))

    def accept(self, id: int) -> None:
        """Advance by the chosen id. Raises BadInput if it may not come next, or if the step exceeds the limits."""
        forced = self.forced()
        if (self._done and id not in self._end_ids) or (forced and id != forced[0]):
            raise BadInput(f"{self._what}: id {id} may not come next after {self._count} tokens")
        # keep the rest of the forced ids: computed again from here, the rest could be cut into other tokens
        self._forced = forced[1:] or None
        self._mask = None
        if not self._done and not self._matcher.consume_token(id):
            self._forced = None  # so that every later call fails too
            raise BadInput(f"{self._what} failed after {self._count} tokens: {one_line(self._matcher.get_error())}")
        self._count += 1
        self._done = self._done or bool(self._matcher.is_stopped())
        self._check()

    def _bits(self, ids: Sequence[int]) -> np.ndarray:
        mask = np.zeros(self._words, np.uint32)
        for id in ids:
            mask[id >> 5] |= np.uint32(1 << (id & 31))
        return mask

    def _computed(self) -> np.ndarray:
        mask = np.zeros(self._words, np.uint32)
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._check()
        if not mask.any():
            raise BadInput(f"{self._what} failed after {self._count} tokens: no token can follow")
        return mask

    def _check(self) -> None:
        if self._matcher.is_error():
            error = one_line(self._matcher.get_error())
            place = f"failed after {self._count} tokens" if self._count else "cannot be used"
            raise BadInput(f"{self._what} {place}: {error}")
