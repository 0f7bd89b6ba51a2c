"""From the logits of a request's rows to its next tokens: guesses are verified, forced tokens are taken.

Promise: the ids are those that drawing one token a pass would give, with or without guesses, with or without
log-probabilities. It knows neither the batch that the rows came from nor what becomes of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from phi4mini.engine.request import PromptLogprob, Request, Token
from phi4mini.engine.sample.constraint import checked_mask
from phi4mini.engine.sample.sampling import Choice, check_finite, given, sample, token_logprobs, top_logprobs
from phi4mini.model.config import Config


class Verifier:
    """Draws tokens for one model, of requests of at most `ctx` tokens. `sample`: as in sample/sampling.py."""

    def __init__(self, config: Config, ctx: int, sample: Callable[..., Choice] = sample) -> None:
        self.config, self.ctx, self.sample = config, ctx, sample

    def draw(self, request: Request, guess: Sequence[int], logits: np.ndarray) -> Iterator[Token]:
        """Tokens as they are drawn from logits (1 + len(guess), vocab). Row i was computed behind the first i guessed
        tokens, so it counts only if exactly those were drawn. Raises the errors of `sample` and of the request's
        constraint, after the tokens before them.
        """
        made: list[int] = []
        while len(made) <= len(guess) and made == guess[: len(made)]:
            for token in self._following(request, logits[len(made)]):
                made.append(token.id)
                yield token
                if token.finish:
                    return

    def _following(self, request: Request, row: np.ndarray) -> Iterator[Token]:
        """One token, and the tokens that the constraint forces after it: they need no logits. With log-probabilities
        they do, so each then waits for a row of its own.
        """
        if forced := _forced(request):
            check_finite(row, len(request.ids))
            yield self._take(request, given(row, forced.pop(0), request.params))
        else:
            yield self._take(request, self._drawn(request, row))
        while request.params.logprobs is None and (forced := _forced(request)):
            yield self._take(request, Choice(forced.pop(0), None, None))

    def _drawn(self, request: Request, row: np.ndarray) -> Choice:
        params, constraint, config = request.params, request.constraint, self.config
        mask = None if constraint is None else checked_mask(constraint.mask(), config.vocab_size)
        # min_new_tokens holds the end ids back; a constraint decides by its mask when the answer may end
        held = () if params.ignore_eos or constraint else config.eos_token_ids
        return self.sample(row, params, request.history, len(request.ids), request.seed, held, mask)

    def _take(self, request: Request, choice: Choice) -> Token:
        done = False
        if request.constraint:
            request.constraint.accept(choice.id)
            done = request.constraint.done
        finish = request.take(choice.id, self.config, self.ctx)
        complete = done and finish != "stop" and choice.id not in self.config.eos_token_ids
        return Token(request, choice.id, choice.logprob, choice.top, "stop" if done else finish, complete)


def note_prompt(request: Request, rows: int, logits: np.ndarray) -> None:
    """Note the log-probabilities of the prompt tokens that a request's latest rows predict, from their logits (rows,
    vocab): the row of token i predicts token i + 1. Tokens that are noted already, before the request was preempted and
    computed again, are left out.
    """
    count = request.params.prompt_logprobs or 0
    notes = request.prompt_logprobs or []
    first = request.cached - rows + 1  # the token that row 0 predicts
    for at in range(len(notes), min(first + rows, request.num_prompt)):
        row, following = at - first, request.ids[at]
        value = float(token_logprobs(logits[row : row + 1], [following])[0])
        notes.append(PromptLogprob(following, value, top_logprobs(logits[row], count)))


def _forced(request: Request) -> list[int]:
    """The ids that must follow, the next one first. The constraint is asked again only when a whole run is taken."""
    if request.constraint and not request.forced:
        request.forced = list(request.constraint.forced())
    return request.forced
