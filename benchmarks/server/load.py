"""A closed loop of users against a server, and the figures of it under vLLM's names (vllm bench serve).

    ttft   from sending a request to the first piece of its text          itl   between two pieces
    tpot   (e2el - ttft) / (tokens - 1)                                   e2el  from sending to the answer's end

Promises: an answer counts as completed only with status 200, all its events and `[DONE]`; tokens are those the server
counts. It does not know whose server it is.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.server.wire import DONE, Target, WireError, exchange

KINDS = ("ttft", "tpot", "itl", "e2el")


@dataclass
class Answer:
    """One answer: seconds by the monotonic clock, and what came."""

    prompt: int  # which one
    start: float
    stamps: list[float] = field(default_factory=list)  # of every piece of text
    end: float = 0.0
    text: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None

    @property
    def ttft(self) -> float:
        return (self.stamps[0] if self.stamps else self.end) - self.start

    @property
    def e2el(self) -> float:
        return self.end - self.start

    @property
    def tpot(self) -> float | None:
        """None for an answer of one token, which has no such time."""
        return (self.e2el - self.ttft) / (self.output_tokens - 1) if self.output_tokens > 1 else None

    @property
    def itl(self) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self.stamps)]

    def within(self, slo: Mapping[str, float]) -> bool:
        """Whether each of the named times (ms) is kept."""
        return all((getattr(self, kind) or 0.0) * 1e3 <= limit for kind, limit in slo.items())


async def ask(target: Target, body: Mapping[str, Any], prompt: int = 0, patience: float = 600.0) -> Answer:
    """Stream one chat completion. What goes wrong is in `Answer.error`."""
    answer = Answer(prompt, time.monotonic())
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with asyncio.timeout(patience), exchange(target, "POST", "/v1/chat/completions", asked) as sent:
            if await sent.head() != 200:
                raise WireError(f"status {sent.status}: {(await sent.body())[:200].decode(errors='replace')}")
            done = False
            async for event in sent.events():
                done = done or event == DONE
                if not done:
                    _take(answer, json.loads(event))
            if not done:
                raise WireError(f"the stream ended without {DONE}")
    except TimeoutError:
        answer.error = f"no whole answer within {patience:g} s"
    except (WireError, KeyError, TypeError) as error:
        answer.error = str(error) or type(error).__name__
    answer.end = time.monotonic()
    return answer


def _take(answer: Answer, chunk: Mapping[str, Any]) -> None:
    if "error" in chunk:
        raise WireError(f"in the stream: {json.dumps(chunk['error'])[:200]}")
    if usage := chunk.get("usage"):
        answer.prompt_tokens, answer.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    for choice in chunk.get("choices", ()):
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        if text or delta.get("tool_calls"):
            answer.stamps.append(time.monotonic())
        answer.text += text
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason


@dataclass(frozen=True)
class Phase:
    """All answers of one number of users, and the seconds from the first request to the last answer."""

    users: int
    answers: list[Answer]
    duration: float


async def closed_loop(
    target: Target, bodies: Sequence[Mapping[str, Any]], users: int, requests: int, salt: str | None, patience: float
) -> Phase:
    """`users` that each send one request after the other, `requests` in all, with `bodies` in turn. With `salt`, the
    server's cache holds no prompt of this phase from another phase or an earlier round.
    """
    waiting = iter(range(requests))
    answers: list[Answer] = []

    async def user() -> None:
        for number in waiting:
            turn, which = divmod(number, len(bodies))
            own = {} if salt is None else {"cache_salt": f"{salt}-{turn}"}
            answers.append(await ask(target, {**bodies[which], **own}, which, patience))

    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(user())
    return Phase(users, answers, time.monotonic() - start)


def figures(phase: Phase, slo: Mapping[str, float], expected: Mapping[int, str]) -> dict[str, Any]:
    """Under vLLM's names; times in ms. `correct`: of the answers to prompts in `expected`, the share that is equal."""
    done = [a for a in phase.answers if a.error is None]
    made, given = sum(a.output_tokens for a in done), sum(a.prompt_tokens for a in done)
    judged = [a.text == expected[a.prompt] for a in done if a.prompt in expected]
    found: dict[str, Any] = {
        "users": phase.users,
        "completed": len(done),
        "failed": len(phase.answers) - len(done),
        "duration": phase.duration,
        "total_input_tokens": given,
        "total_output_tokens": made,
        "request_throughput": len(done) / phase.duration,
        "request_goodput": sum(a.within(slo) for a in done) / phase.duration,
        "output_throughput": made / phase.duration,
        "total_token_throughput": (given + made) / phase.duration,
    }
    for kind in KINDS:
        values = [getattr(a, kind) for a in done] if kind != "itl" else [v for a in done for v in a.itl]
        found |= _three(kind, [1e3 * v for v in values if v is not None])
    return found | {"correct": sum(judged) / len(judged) if judged else None}


def _three(kind: str, values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {f"{name}_{kind}_ms": None for name in ("mean", "median", "p99")}
    return {
        f"mean_{kind}_ms": float(np.mean(values)),
        f"median_{kind}_ms": float(np.median(values)),
        f"p99_{kind}_ms": float(np.percentile(values, 99)),
    }


def first_texts(answers: Sequence[Answer]) -> dict[int, str]:
    """Each prompt's first complete answer."""
    texts: dict[int, str] = {}
    for answer in answers:
        if answer.error is None:
            texts.setdefault(answer.prompt, answer.text)
    return texts
