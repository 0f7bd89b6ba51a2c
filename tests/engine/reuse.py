"""Engines with a prefix cache, what each request must answer whatever it begins with, and a census of their pages."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from phi4mini.engine.cache.disk import CacheFolder
from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.engine.traces import Ask, Trace, ask, run

CASES = [("q4", "int8"), ("f32", "f32"), ("q8", "int8")]
every_case = pytest.mark.parametrize(("format", "kv"), CASES)
both_kinds = pytest.mark.parametrize("kv", ["int8", "f32"])
CTX = 1088
FREE: dict[str, Any] = {"ignore_eos": True, "max_new_tokens": 8, "seed": 1}


@cache
def weights(format: str = "q4") -> Weights:
    return tiny.weights(tiny.config(), format)


def engine(
    format: str | Weights = "q4",
    kv: str = "int8",
    pages: int = 40,
    running: int = 64,
    folder: CacheFolder | None = None,
    threads: int = 1,
    rows: int | None = None,
) -> Engine:
    """One that reuses, with exactly so many pages."""
    made = weights(format) if isinstance(format, str) else format
    return tiny.engine(made, kv, threads, CTX, pages, running, speculate=True, reuse=True, disk=folder, rows=rows)


_ALONE: dict[str, Trace] = {}


def alone(a: Ask, format: str = "q4", kv: str = "int8") -> Trace:
    """One request in an engine of its own, without reuse: what every other way must equal."""
    key = repr((a, format, kv))
    if key not in _ALONE:
        _ALONE[key] = run(tiny.engine(weights(format), kv, ctx=CTX, pages=18), [a])[0]
    return _ALONE[key]


def begin(length: int, more: int, seed: int, new: int = 6, rope: Any = "long", **params: Any) -> Ask:
    """A request whose first `length` tokens are everybody's and whose next `more` are its own."""
    a = ask(more, new, seed, rope=rope, **params)
    return replace(a, ids=(*tiny.ids(length, 99), *a.ids))


def reused(engine: Engine, asks: list[Ask], salts: list[str | None] | None = None) -> list[int]:
    """`cached_tokens` of requests run one after the other."""
    found = []
    for a, salt in zip(asks, salts or [None] * len(asks), strict=True):
        request = engine.add(Request(list(a.ids), a.params, a.rope, salt))
        tiny.finish(engine, [request])
        assert request.error is None
        found.append(request.cached_tokens)
    return found


def check_pages(engine: Engine, requests: list[Request]) -> None:
    """Every page is free, idle or held, by as many as say so; what is known is what the tree leads to."""
    pages, prefix = engine.pages, engine.scheduler.prefix
    holders = [0] * pages.count
    for request in requests:
        assert len(set(request.seat.table)) == len(request.seat.table)
        for page in request.seat.table:
            holders[page] += 1
    assert holders == pages._holders
    held = [page for page, count in enumerate(holders) if count]
    assert sorted([*pages._free, *pages._idle, *held]) == list(range(pages.count)), "a page is lost or in two places"
    found, stack = {}, list(prefix._root.children.values())
    while stack:
        node = stack.pop()
        found[node.page] = node
        stack.extend(node.children.values())
        above = node.parent.page
        assert above is None or not holders[node.page] or holders[above], "who holds a page holds what leads to it"
    assert found == pages._known and set(pages._idle) <= set(found)


def folder(path: Path, said: list[str] | None = None, **changes: Any) -> CacheFolder:
    say = [].append if said is None else said.append
    return CacheFolder(**{"path": path / "pages", "fingerprint": "abc", "say": say, **changes})


def files(path: Path) -> list[Path]:
    return sorted((path / "pages").iterdir())
