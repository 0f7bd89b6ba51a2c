"""bench --profile: the time of each operation of a token and of a prompt, as a table and as JSON.

Promises: the rows add up to the wall time; the same work is timed without the profile between the profiled passes, so
that the cost of profiling shows. It does not know how a pass is split into operations: engine/profile.py does.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phi4mini.cli.common import put, put_table, say, size
from phi4mini.cli.timing import random_prompt

if TYPE_CHECKING:
    from phi4mini.engine.engine import Engine
    from phi4mini.engine.profile import Split, Step, Watch
    from phi4mini.engine.request import Request
    from phi4mini.llm.model import Model


@dataclass
class _Units:
    """The timings of one kind, prompts or tokens: steps with the profile, seconds without."""

    steps: list[list[Step]] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    def add(self, steps: list[Step]) -> None:
        if steps[0].ran is None:
            self.plain.append(sum(step.seconds for step in steps))
        else:
            self.steps.append(steps)


def profile(model: Model, prompt: int, new: int, depth: int, repetitions: int) -> dict[str, Any]:
    """The figures under their names in the JSON: `repetitions` prompts with the profile and as many without; after each
    of them `new` tokens, every other one with the profile.
    """
    from phi4mini.engine.profile import Splitter, watched
    from phi4mini.kernels.peak import dot_peak, read_bandwidth

    engine, prompts, tokens = model.engine, _Units(), _Units()
    bandwidth, dots = [], []
    with watched(engine) as watch:
        for number in range(2 * repetitions):
            bandwidth.append(read_bandwidth(engine.facts.threads))
            dots.append(dot_peak(engine.facts.threads))
            # seeds that `bench` has not used: an equal prompt would be in the prefix cache
            with random_prompt(engine, prompt, new, depth, seed=1000 + number) as request:
                watch.on = number % 2 == 1
                prompts.add(_steps(engine, watch, request))
                for token in range(new):
                    watch.on = (number + token) % 2 == 0
                    tokens.add(_steps(engine, watch, request))
            watch.on = False
            say(f"{number + 1}/{2 * repetitions}")
        splitter, tick = Splitter(engine), watch.tick
        splits = [[splitter.split(steps, tick) for steps in units.steps] for units in (prompts, tokens)]
    return {
        "model": model.name,
        "quant": model.store.recipe,
        "kv": engine.facts.kv,
        "threads": engine.facts.threads,
        "prompt_tokens": prompt,
        "new_tokens": new,
        "depth": depth,
        "repetitions": repetitions,
        "tick_ns": tick * 1e9,
        "read_ceiling_gb_s": statistics.median(bandwidth),
        "dot_ceiling_gops": statistics.median(dots),
        "prefill": {"tokens": prompt, "passes": len(prompts.steps[0])} | _figures(splits[0], prompts.plain),
        "decode": {"tokens": 1, "passes": 1} | _figures(splits[1], tokens.plain),
    }


def _steps(engine: Engine, watch: Watch, request: Request) -> list[Step]:
    """The steps up to the request's next token; each starts at the end of the one before."""
    from phi4mini.engine.profile import Step

    made, start, drawn = [], time.perf_counter(), False
    while not drawn:
        watch.ran = None
        drawn = bool(engine.step())
        if request.error is not None:
            raise request.error
        end = time.perf_counter()
        made.append(Step(start, end, watch.ran))
        start = end
    return made


def _figures(splits: list[Split], plain: list[float]) -> dict[str, Any]:
    from phi4mini.engine.profile import OUTSIDE, quicker, typical

    split = typical(splits)
    parts = [
        {
            "name": name,
            "calls": part.calls,
            "us": part.seconds * 1e6,
            "share": part.seconds / split.seconds,
            "bytes": part.bytes,
            "gb_s": part.bytes / part.seconds / 1e9 if part.bytes and part.seconds else None,
            "operations": part.operations,
            "gops": part.operations / part.seconds / 1e9 if part.operations and part.seconds else None,
        }
        for name, part in split.parts.items()
    ]
    return {
        "us": split.seconds * 1e6,
        "plain_us": statistics.fmean(quicker(plain)) * 1e6,
        "kernels_us": sum(p["us"] for p in parts if p["name"] not in OUTSIDE),
        "parts": parts,
    }


def put_profile(found: dict[str, Any]) -> None:
    """Print both tables, then the machine's ceilings."""
    start = f"after {found['depth']} others" if found["depth"] else "from the start"
    passes = "one pass" if found["prefill"]["passes"] == 1 else f"{found['prefill']['passes']} passes"
    put(f"a prompt of {found['prompt_tokens']} tokens {start}, {passes}\n")
    _put_split(found["prefill"], "operations", "GOPS", "gops")
    put(f"\na token after {found['depth'] + found['prompt_tokens']} to {_last(found)} others\n")
    _put_split(found["decode"], "bytes", "GB/s", "gb_s")
    put(
        f"\nThis machine reads {found['read_ceiling_gb_s']:.1f} GB/s and computes {found['dot_ceiling_gops']:.0f} GOPS "
        f"at best; its counter ticks every {found['tick_ns']:.2g} ns.\n"
    )


def _last(found: dict[str, Any]) -> int:
    return int(found["depth"] + found["prompt_tokens"] + found["new_tokens"])


def _put_split(split: dict[str, Any], amount: str, unit: str, rate: str) -> None:
    rows = [("operation", "calls", "us", "share", amount, unit)]
    for p in split["parts"]:
        name = _LABELS.get(p["name"], p["name"])
        much = (_count(p[amount], amount), f"{p[rate]:.1f}") if p[rate] else ("", "")
        rows.append((name, f"{p['calls']:.0f}", f"{p['us']:.1f}", _share(p["share"]), *much))
    total = sum(p[amount] or 0 for p in split["parts"])
    speed = f"{total / split['us'] / 1e3:.1f}"
    rows.append(("in all", "", f"{split['us']:.1f}", _share(1), _count(total, amount), speed))
    rows.append(("without the profile", "", f"{split['plain_us']:.1f}", "", "", ""))
    put_table(rows, right=range(1, 6))


_LABELS = {
    "prepare": "outside: schedule, inputs",
    "threads": "outside: wake, join threads",
    "draw": "outside: draw, hand out",
}


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _count(value: int, amount: str) -> str:
    return size(value) if amount == "bytes" else f"{value / 1e9:.3g} G"
