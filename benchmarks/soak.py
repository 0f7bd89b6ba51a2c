"""A server under mixed load for a long time: nothing it holds may grow, nothing may fail, no answer may change.

    python -m benchmarks.soak [--minutes 60] [--disconnects 0.2] [--users 12]      starts our server with the demo
    python -m benchmarks.soak --url http://127.0.0.1:8080 --pid 4711               a server that runs already

Memory, descriptors and threads come from /proc, KV pages from /metrics, each second; `vitals.LIMITS` says how far a
line fitted to each may rise after the warm-up. When the load is over, descriptors, threads and pages must be back to
what they were before it, and a canary's text the same. Exit code 0 when all that holds, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.report import heading, save, table
from benchmarks.serve import RESULTS, say, served_model
from benchmarks.server.load import ask
from benchmarks.server.mixed import Mix
from benchmarks.server.served import Served
from benchmarks.server.vitals import REST, Verdict, Vitals, gauges, held_pages, process, untouched_pages, verdicts
from benchmarks.server.wire import Target, WireError, fetch
from benchmarks.workers.driver import WorkerFailed
from phi4mini.kernels.kv import PAGE

_MOST_FILLS = 200  # prompts of a third of a context, to have every page of the KV cache written once
# of our own server: little enough cache that it is soon full
SMALL = ("-c", "2048", "--kv-tokens", "8192", "--prefix-cache-size", "0.3")
_REST_SECONDS = 60.0  # for what is under way to end after the load
_CANARY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Name the four seasons, and one thing people do in each."}],
    "temperature": 0,
    "seed": 0,
    "max_tokens": 48,
}


@dataclass
class Soaked:
    """What a soak found; `problems` is empty when all is well."""

    mix: Mix
    samples: list[Vitals]
    verdicts: list[Verdict]
    before: Vitals  # at rest
    after: Vitals
    canaries: tuple[str, str]

    @property
    def problems(self) -> list[str]:
        """One line for each thing that is not as it must be."""
        found = [f"{v.name} rose by {v.rise:.1f}, limit {v.limit:g}" for v in self.verdicts if not v.flat]
        for name, more in REST.items():
            before, after = getattr(self.before, name), getattr(self.after, name)
            if after > before + more:
                found.append(f"{name} at rest: {after} after the load, {before} before it")
        if self.canaries[0] != self.canaries[1]:
            found.append(f"the canary says {self.canaries[1][:60]!r}, before the load {self.canaries[0][:60]!r}")
        if self.mix.failed:
            found.append(f"{len(self.mix.failed)} requests failed, the first: {self.mix.failed[0]}")
        if self.mix.changed:
            found.append(f"{len(self.mix.changed)} answers changed, the first: {self.mix.changed[0]}")
        return found


async def soak(
    target: Target, pid: int, minutes: float, disconnects: float = 0.2, users: int = 12, seed: int = 0, every: float = 1
) -> Soaked:
    """Load a server whose process is `pid`, sampling it `every` so many seconds. Raises `WireError` where it cannot be
    asked at all, ValueError where the time is too short to judge.
    """
    mix = Mix(target, await served_model(target), await _context(target), disconnects, seed)
    await mix.probe()
    await _fill(target, mix)
    first = await _canary(target, mix.model)
    before = await _at_rest(target, pid)
    samples: list[Vitals] = []
    clock = asyncio.get_running_loop().time
    start = clock()
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(mix.user(start + 60 * minutes))
        while clock() < start + 60 * minutes:
            samples.append(await _sample(target, pid, clock() - start))
            await asyncio.sleep(every)
    after = await _at_rest(target, pid)
    return Soaked(mix, samples, verdicts(samples), before, after, (first, await _canary(target, mix.model)))


async def _fill(target: Target, mix: Mix) -> None:
    """Write to nearly every page of the KV cache. Its memory is taken as it is first used, which is no leak."""
    for _ in range(_MOST_FILLS):
        found = await _gauges(target)
        if PAGE * untouched_pages(found) < mix.ctx // 2:
            return
        await mix.fill()
    say(f"the KV cache was not full after {_MOST_FILLS} prompts: memory that it takes later looks like a leak")


async def _context(target: Target) -> int:
    """Tokens that a request may have."""
    status, body = await fetch(target, "GET", "/props")
    if status != 200:
        raise WireError(f"/props answers {status}; the context's length is read from it")
    return int(json.loads(body)["n_ctx"])


async def _sample(target: Target, pid: int, seconds: float) -> Vitals:
    return Vitals(seconds, *process(pid), held_pages(await _gauges(target)))


async def _at_rest(target: Target, pid: int) -> Vitals:
    """Once nothing runs or waits and every connection but none is closed."""
    for _ in range(int(_REST_SECONDS / 0.2)):
        found = await _gauges(target)
        if not found["phi4mini_requests_running"] + found["phi4mini_requests_waiting"]:
            break
        await asyncio.sleep(0.2)
    pages = held_pages(await _gauges(target))
    await asyncio.sleep(0.5)  # the server hears of closed connections
    return Vitals(0, *process(pid), pages)


async def _gauges(target: Target) -> dict[str, float]:
    status, body = await fetch(target, "GET", "/metrics")
    if status != 200:
        raise WireError(f"/metrics answers {status}; KV pages are read from it")
    return gauges(body.decode("utf-8"))


async def _canary(target: Target, model: str) -> str:
    answer = await ask(target, {**_CANARY, "model": model})
    if answer.error:
        raise WireError(f"the canary: {answer.error}")
    return answer.text


def report(soaked: Soaked, result: dict[str, Any]) -> str:
    """The page: what was asked, the table, what is wrong."""
    mix = soaked.mix
    rows: list[tuple[str, ...]] = [("figure", "after the warm-up", "at the end", "rise", "limit", "flat")]
    for v in soaked.verdicts:
        rise = (f"{v.first:.1f}", f"{v.last:.1f}", f"{v.rise:+.1f}", f"{v.limit:g}", "yes" if v.flat else "NO")
        rows.append((v.name, *rise))
    rest: list[tuple[str, ...]] = [("at rest", "before", "after")]
    rest += [(n, *(str(getattr(s, n)) for s in (soaked.before, soaked.after))) for n in REST]
    refused = f" {', '.join(sorted(mix.refused))}: this model does not do that, and says so." if mix.refused else ""
    return "\n".join(
        [
            f"# {heading(result['machine'], result['date'])}",
            "",
            f"{result['model']}, {result['minutes']:g} minutes, {result['users']} users. "
            f"Answered: {_counts(mix.answered)}.{refused} Clients that went away: {_counts(mix.left)}. "
            f"Failed: {len(mix.failed)}; changed: {len(mix.changed)}.",
            "",
            table(rows),
            table(rest),
            *([f"- {problem}" for problem in soaked.problems] or ["Nothing grew, nothing failed, no answer changed."]),
            "",
        ]
    )


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{found[name]} {name}" for name in sorted(found)) or "none"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, save."""
    a = _parse(arguments)
    try:
        with ExitStack() as stack:
            served = stack.enter_context(Served(a.serve, a.options)) if a.serve else None
            target = Target.parse(served.url if served else a.url, os.environ.get("OPENAI_API_KEY"))
            soaked = asyncio.run(
                soak(target, served.pid if served else a.pid, a.minutes, a.disconnects, a.users, a.seed)
            )
    except (WireError, WorkerFailed, OSError, ValueError, KeyError) as error:
        say(f"benchmarks.soak: {error!r}" if isinstance(error, KeyError) else f"benchmarks.soak: {error}")
        return 1
    result = result_of(soaked, a)
    text = report(soaked, result)
    print(text)
    save(a.out, f"soak-{machine.file_name(result['machine'])}", text, result)
    print(json.dumps({key: value for key, value in result.items() if key != "samples"}))
    return int(bool(soaked.problems))


def result_of(soaked: Soaked, a: argparse.Namespace) -> dict[str, Any]:
    """Everything that goes into the JSON."""
    from phi4mini.kernels.threads.count import thread_count

    mix = soaked.mix
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.describe(thread_count()),
        "model": Path(mix.model).name,
        "minutes": a.minutes,
        "users": a.users,
        "disconnects": a.disconnects,
        "seed": a.seed,
        "answered": dict(mix.answered),
        "left": dict(mix.left),
        "refused": sorted(mix.refused),
        "failed": mix.failed,
        "changed": mix.changed,
        "verdicts": [verdict.to_json() for verdict in soaked.verdicts],
        "before": asdict(soaked.before),
        "after": asdict(soaked.after),
        "problems": soaked.problems,
        "samples": [asdict(sample) for sample in soaked.samples],
    }


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--minutes", type=float, default=60.0)
    p.add_argument("--disconnects", type=float, default=0.2, help="share of the clients that go away")
    p.add_argument("--users", type=int, default=12, help="more than the server has places, so that some wait")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--url", help="of a server that runs already on this machine; needs --pid")
    p.add_argument("--pid", type=int, help="of its process")
    p.add_argument("--serve", metavar="MODEL", help="start our own server with this model; default demo")
    p.add_argument("--options", type=str.split, default=SMALL, help=f"of our own server; default '{' '.join(SMALL)}'")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder for the .md and .json")
    a = p.parse_args(arguments)
    if a.url and (a.serve or not a.pid):
        p.error("--url needs --pid and no --serve")
    a.serve = None if a.url else a.serve or "demo"
    return a


if __name__ == "__main__":
    sys.exit(main())
