"""What an engine is doing, as plain numbers for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """A snapshot. The first five are of now, the others counted since the engine started."""

    running: int  # requests that take part in passes
    waiting: int  # requests that wait for a place
    pages: int  # of the KV cache, 64 tokens each
    free: int  # pages that can be handed out, idle ones included
    idle: int  # pages that nobody holds, kept for requests that begin with their tokens
    preemptions: int  # times a request lost its pages to another
    passes: int
    drawn: int  # tokens handed out
    prompt_tokens: int  # prompt tokens computed, those computed again included
    cached_tokens: int  # prompt tokens that were not computed, because an earlier request had left them
