"""What an engine is, and what it is doing, as plain numbers: all that other rooms need to know about its inside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineFacts:
    """What stays the same for the life of an engine."""

    kv: str  # how the KV cache stores a value: "int8" or "f32"
    threads: int
    kv_tokens: int  # tokens that fit into the KV cache, of all requests together
    kv_token_bytes: int  # bytes of KV cache that one token takes, in all layers
    pass_bytes: int  # bytes of weights that a pass reads: all matrices, but the embedding only if it is the head too


@dataclass(frozen=True)
class Load:
    """A snapshot. The first five are of now, the others are counted since the engine started."""

    running: int  # requests that take part in passes
    waiting: int  # requests that wait for a place
    pages: int  # pages of the KV cache, 64 tokens each
    free: int  # pages that can be handed out, idle ones included
    idle: int  # pages that no request holds, kept for requests that begin with their tokens
    preemptions: int  # times that a request lost its pages to another one
    passes: int
    drawn: int  # tokens handed out
    prompt_tokens: int  # prompt tokens computed, those computed again included
    cached_tokens: int  # prompt tokens that came from the prefix cache
