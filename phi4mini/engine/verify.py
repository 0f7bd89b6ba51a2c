"""From the logits of a request's rows to its next tokens: what was guessed is verified, what is forced is taken.

Promise: the ids are those that drawing one token a pass would give, with or without guesses, with or without
log-probabilities. It does not know the batch the rows came from, nor what becomes of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from phi4mini.engine.request import Request, Token
from phi4mini.engine.sample.constraint import checked_mask
from phi4mini.engine.sample.sampling import Choice, check_finite, given, sample
from phi4mini.model.config import Config


def draw(request: Request, guess: Sequence[int], logits: np.ndarray, config: Config, ctx: int) -> Iterator[Token]:
    """Tokens as they are drawn from logits (1 + len(guess), vocab): each row is right for as long as all tokens before
    it are those guessed. Raises the errors of `sample` and of the request's constraint, after the tokens before them.
    """
    made: list[int] = []
    while len(made) <= len(guess) and made == guess[: len(made)]:
        for token in _following(request, logits[len(made)], config, ctx):
            made.append(token.id)
            yield token
            if token.finish:
                return


def _following(request: Request, row: np.ndarray, config: Config, ctx: int) -> Iterator[Token]:
    """One token, and those that its constraint forces after it; with log-probabilities each waits for its own row."""
    if forced := _forced(request):
        check_finite(row, len(request.ids))
        yield _take(request, given(row, forced.pop(0), request.params), config, ctx)
    else:
        yield _take(request, _drawn(request, row, config), config, ctx)
    while request.params.logprobs is None and (forced := _forced(request)):
        yield _take(request, Choice(forced.pop(0), None, None), config, ctx)


def _forced(request: Request) -> list[int]:
    """The ids that must follow, of which the first is next: all of a run are kept, so that it is asked for once."""
    if request.constraint and not request.forced:
        request.forced = list(request.constraint.forced())
    return request.forced


def _drawn(request: Request, row: np.ndarray, config: Config) -> Choice:
    params, constraint = request.params, request.constraint
    mask = None if constraint is None else checked_mask(constraint.mask(), config.vocab_size)
    held = () if params.ignore_eos or constraint else config.eos_token_ids  # a constraint says itself when it may end
    return sample(row, params, request.history, len(request.ids), request.seed, held, mask)


def _take(request: Request, choice: Choice, config: Config, ctx: int) -> Token:
    done = False
    if request.constraint:
        request.constraint.accept(choice.id)
        done = request.constraint.done
    finish = request.take(choice.id, config, ctx)
    complete = done and finish != "stop" and choice.id not in config.eos_token_ids
    return Token(request, choice.id, choice.logprob, choice.top, "stop" if done else finish, complete)
