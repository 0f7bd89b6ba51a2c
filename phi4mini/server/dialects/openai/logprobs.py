"""Log-probabilities in the form of OpenAI's chat API, and those of a prompt in vLLM's.

Promise: every number is finite, since JSON has no infinity.
"""

from __future__ import annotations

from typing import Any

from phi4mini.llm.results import TokenLogprob
from phi4mini.server.dialects.openai import types
from phi4mini.tokenizer import Tokenizer

_LEAST = -9999.0  # what OpenAI writes for a token that cannot come


def logprob_of(tokenizer: Tokenizer, entry: TokenLogprob) -> types.Logprob:
    """One token of an answer, with its alternatives."""
    spelled = tokenizer.token_bytes
    top = [types.TopLogprob(t.token, finite(t.logprob), list(spelled(t.id))) for t in entry.top]
    return types.Logprob(entry.token, finite(entry.logprob), list(spelled(entry.id)), top)


def finite(logprob: float | None) -> float:
    """The log-probability, at least -9999."""
    return max(logprob if logprob is not None else _LEAST, _LEAST)


def prompt_entry(entry: TokenLogprob) -> dict[str, Any] | None:
    """One token of the prompt as vLLM gives it: id -> logprob and text; None for the first, which nothing predicts."""
    if entry.logprob is None:
        return None
    noted = [entry, *(other for other in entry.top if other.id != entry.id)]
    return {str(t.id): {"logprob": finite(t.logprob), "decoded_token": t.token} for t in noted}
