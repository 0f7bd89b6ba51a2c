"""Counts and times that answers report: tokens in OpenAI's form, timings in llama-server's.

It knows no request: callers hand in plain numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec


class InputTokens(msgspec.Struct):
    """How many tokens the input of a request has."""

    input_tokens: int


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Token counts under OpenAI's names; `cached` of the prompt's tokens were not computed again."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def timings(prompt: int, cached: int, prefill: float, new: int, decode: float) -> dict[str, Any]:
    """Milliseconds and tokens a second under llama-server's names; `prefill` and `decode` are seconds."""
    computed = prompt - cached
    return {
        "cache_n": cached,
        "prompt_n": computed,
        "prompt_ms": round(prefill * 1e3, 3),
        "prompt_per_second": round(computed / prefill, 3) if prefill else None,
        "predicted_n": new,
        "predicted_ms": round(decode * 1e3, 3),
        "predicted_per_second": round((new - 1) / decode, 3) if decode and new > 1 else None,
    }
