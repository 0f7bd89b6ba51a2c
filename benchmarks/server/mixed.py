"""Mixed requests for the soak: chats, streams, completions, tools and bad requests, and clients that go away.

Promises: what is asked follows from the seed; greedy answers are remembered by what was asked, so one that differs from
the first of its kind is noted; a bad request must be refused with a 4xx and a JSON body that says so. A client goes
away in the queue (as soon as its request is sent), in the prefill (of a long prompt, between the head and the first
piece of text) or in the decode (after some pieces).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.server.prompts import SHIPPED
from benchmarks.server.wire import DONE, Exchange, Target, WireError, exchange, fetch

WEIGHTS = {"chat": 3, "stream": 4, "completion": 2, "tools": 1, "bad": 2}
LEAVES = ("queue", "prefill", "decode")
PATIENCE = 120.0  # seconds for one answer: longer has hung
_CHAT, _COMPLETION = "/v1/chat/completions", "/v1/completions"
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
TOO_LONG = "longer than the context"  # stands for a prompt that is made for the server's context
BAD: tuple[tuple[str, Any], ...] = (
    (_CHAT, b'{"messages": [{"role": "user", "content": "cut off'),
    (_CHAT, b"[" * 50_000),
    (_CHAT, {**_ASKED, "messages": []}),
    (_CHAT, {**_ASKED, "temperature": -1}),
    (_CHAT, {**_ASKED, "max_tokens": "many"}),
    (_CHAT, {**_ASKED, "model": "no/such-model"}),
    (_CHAT, TOO_LONG),
    (_COMPLETION, {"max_tokens": 4}),
    ("/v1/no-such-route", _ASKED),
)


@dataclass(frozen=True)
class Asked:
    """One request: its kind, which of that kind, its path and body, and where its client leaves, if it does."""

    kind: str
    which: int
    path: str
    body: Any
    leave: str | None = None


class Mix:
    """Requests to one server, and what became of them."""

    def __init__(self, target: Target, model: str, ctx: int, disconnects: float, seed: int) -> None:
        self.target, self.model, self.ctx, self.disconnects = target, model, ctx, disconnects
        self._random, self._pause = random.Random(seed), random.Random(seed)  # what is asked hangs on no pause
        self.answered: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.failed: list[str] = []
        self.changed: list[str] = []
        self.refused: set[str] = set()  # kinds that this model does not do, and says so
        self._texts: dict[tuple[str, int], str] = {}

    async def probe(self) -> None:
        """One of each kind, and all bad ones at once, so that whatever the server starts on demand is there. A kind
        that is refused here with a 400 must be refused every time.
        """
        for kind in WEIGHTS:
            try:
                await self._whole(self._asked(kind, 0))
            except WireError as error:
                if not str(error).startswith("status 400") or kind == "bad":
                    raise
                self.refused.add(kind)
        await asyncio.gather(*(self._whole(self._asked("bad", which)) for which in range(len(BAD))))

    async def fill(self) -> None:
        """Have one new prompt computed, a third of the context long: it stays in the server's prefix cache."""
        asked = self._asked("stream", 0)
        await self._read(replace(asked, body={**asked.body, "messages": self._new_prompt(self.ctx // 3)}))

    async def user(self, end: float) -> None:
        """Ask one thing after the other until the loop's clock says `end`."""
        clock = asyncio.get_running_loop().time
        while clock() < end:
            asked = self.draw()
            try:
                async with asyncio.timeout(PATIENCE):
                    await (self._leave(asked) if asked.leave else self._whole(asked))
            except TimeoutError:
                self.failed.append(f"{asked.kind}: nothing whole within {PATIENCE:g} s")
            except (WireError, KeyError, TypeError, ValueError) as error:
                self.failed.append(f"{asked.kind}: {error or type(error).__name__}")

    def draw(self) -> Asked:
        """The next request."""
        r = self._random
        kind = r.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind != "bad" and r.random() < self.disconnects:
            return self._leaving(r.choice(LEAVES))
        return self._asked(kind, r.randrange(len(BAD if kind == "bad" else SHIPPED)))

    def _asked(self, kind: str, which: int) -> Asked:
        if kind == "bad":
            path, bad = BAD[which]
            if bad == TOO_LONG:
                bad = {**_ASKED, "messages": [{"role": "user", "content": "word " * (self.ctx + 64)}]}
            return Asked(kind, which, path, bad)
        body: dict[str, Any] = {"model": self.model, "temperature": 0, "seed": 0, "max_tokens": 4 + 3 * which}
        if kind == "completion":
            return Asked(kind, which, _COMPLETION, {**body, "prompt": SHIPPED[which]})
        body["messages"] = [{"role": "user", "content": SHIPPED[which]}]
        if kind == "stream":
            body["stream"] = True
        if kind == "tools":
            body |= {"tools": [_TOOL], "tool_choice": "auto"}
        return Asked(kind, which, _CHAT, body)

    def _leaving(self, leave: str) -> Asked:
        asked = self._asked("stream", self._random.randrange(len(SHIPPED)))
        # long enough that leaving in its middle is possible
        words = self._new_prompt(self.ctx // 3 if leave == "prefill" else 20)
        body = {**asked.body, "messages": words, "max_tokens": min(64, self.ctx // 8)}
        return Asked("leaving", asked.which, asked.path, body, leave)

    def _new_prompt(self, words: int) -> list[dict[str, str]]:
        """A prompt that was not asked before."""
        drawn = (self._random.choice(SHIPPED).split()[0] for _ in range(words))
        return [{"role": "user", "content": " ".join(drawn)}]

    # ---- to the end

    async def _whole(self, asked: Asked) -> None:
        """Ask and read everything; check it."""
        if asked.kind == "bad" or asked.kind in self.refused:
            await self._check_refusal(asked)
            return
        text = await self._read(asked)
        self.answered[asked.kind] += 1
        key = (asked.kind, asked.which)
        if self._texts.setdefault(key, text) != text:
            self.changed.append(f"{asked.kind} {asked.which}: {text[:60]!r}, before {self._texts[key][:60]!r}")

    async def _read(self, asked: Asked) -> str:
        """The whole text of an answer."""
        async with exchange(self.target, "POST", asked.path, asked.body) as sent:
            if await sent.head() != 200:
                raise WireError(f"status {sent.status}: {(await sent.body())[:200].decode(errors='replace')}")
            return await _streamed(sent) if asked.body.get("stream") else _said(json.loads(await sent.body()))

    async def _check_refusal(self, asked: Asked) -> None:
        status, body = await fetch(self.target, "POST", asked.path, asked.body)
        if not 400 <= status < 500 or status == 429 or "error" not in json.loads(body):
            raise WireError(f"request {asked.which} must be refused, got {status}: {body[:100]!r}")
        self.answered[asked.kind] += 1

    # ---- and not to the end

    async def _leave(self, asked: Asked) -> None:
        async with exchange(self.target, "POST", asked.path, asked.body) as sent:
            if asked.leave == "queue":
                await asyncio.sleep(self._pause.uniform(0, 0.01))
            else:
                if await sent.head() != 200:
                    raise WireError(f"status {sent.status}: {(await sent.body())[:200].decode(errors='replace')}")
                if asked.leave == "prefill":
                    await asyncio.sleep(self._pause.uniform(0, 0.1))
                else:
                    await _some(sent, self._pause.randrange(1, 20))
        self.left[str(asked.leave)] += 1


async def _some(sent: Exchange, pieces: int) -> None:
    """Read so many pieces of text, or all there are."""
    async with aclosing(sent.events()) as events:
        async for event in events:
            if event == DONE or (pieces := pieces - bool(_piece(event))) <= 0:
                break


async def _streamed(sent: Exchange) -> str:
    text, last = "", ""
    async for last in sent.events():
        if last != DONE:
            text += _piece(last)
    if last != DONE:
        raise WireError(f"the stream ended without {DONE}")
    return text


def _piece(event: str) -> str:
    chunk = json.loads(event)
    if "error" in chunk:
        raise WireError(f"in the stream: {json.dumps(chunk['error'])[:200]}")
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in chunk["choices"])


def _said(body: Mapping[str, Any]) -> str:
    """The text of a whole answer, tool calls as JSON; ids of calls are new each time."""
    choice = body["choices"][0]
    if "message" not in choice:
        return str(choice["text"])
    calls = [call["function"] for call in choice["message"].get("tool_calls") or ()]
    return (choice["message"].get("content") or "") + (json.dumps(calls) if calls else "")
