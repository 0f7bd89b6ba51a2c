"""A server under 1, 2, 4 and 8 users: a Markdown table under vLLM's names, and one JSON line last.

    python -m benchmarks.serve --url http://127.0.0.1:8080 [--users 1,2,4,8] [--data FILE.jsonl]
    python -m benchmarks.serve --serve demo          start our own server with a model first
    python -m benchmarks.serve --peer                our server with the synthetic model, against llama.cpp

Each user asks, reads the whole streamed answer, and asks again. Answers are greedy, so a server that keeps its users
apart writes the same text for a prompt, however many users there are: `correct` is the share of answers that equal
those of a single user. An API key is taken from OPENAI_API_KEY. Exit code 0 when every request was answered, 1 when one
failed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import machine, peers
from benchmarks.peers import Absent
from benchmarks.report import heading, save, table
from benchmarks.rounds import all_ratios, median, summary
from benchmarks.server.load import KINDS, Phase, ask, closed_loop, figures, first_texts
from benchmarks.server.prompts import prompts
from benchmarks.server.served import Served
from benchmarks.server.wire import Target, WireError, fetch
from benchmarks.workers.driver import Worker, WorkerFailed
from phi4mini.kernels.threads.count import thread_count

RESULTS = Path(__file__).parent / "results"
_TURNS = 4  # questions of each user: enough for the end of a phase, when some have none left, to weigh little
STREAMS, _STEPS, _DEPTH = 8, 32, 64  # of the peer: about the length of the shipped prompts with their chat format
_FIGURES = (
    *("completed", "failed", "duration", "total_input_tokens", "total_output_tokens", "request_throughput"),
    *("request_goodput", "output_throughput", "total_token_throughput"),
    *(f"{name}_{kind}_ms" for kind in KINDS for name in ("mean", "median", "p99")),
    "correct",
)


def main(arguments: list[str] | None = None) -> int:
    """Run, print, save."""
    a = _parse(arguments)
    try:
        result = measure(a)
    except (WireError, WorkerFailed, OSError, ValueError) as error:
        print(f"benchmarks.serve: {error}", file=sys.stderr)
        return 1
    text = report(result)
    print(text)
    save(a.out, f"serve-{machine.file_name(result['machine'])}", text, result)
    print(json.dumps(result))
    return int(any(phase["failed"] for phase in result["phases"]))


def measure(a: argparse.Namespace) -> dict[str, Any]:
    """Every number of users in turn, then the peer where it is asked for."""
    threads = thread_count()
    with ExitStack() as stack:
        served = stack.enter_context(Served(a.serve, a.options)) if a.serve else None
        target = Target.parse(served.url if served else a.url, os.environ.get("OPENAI_API_KEY"))
        model = a.model or asyncio.run(served_model(target))
        load = Load(target, model, a)
        asyncio.run(load.warm())
        result: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine.describe(threads),
            "model": Path(model).name,
            "prompts": f"{len(load.bodies)} of {a.data.name if a.data else 'benchmarks/prompts.py'}",
            "max_tokens": a.max_tokens,
            "ignore_eos": a.ignore_eos,
            "slo_ms": a.slo,
            "phases": load.phases(a.users),
        }
        if a.peer and served:
            result["peer"] = peer(load, served, threads, a)
    return result


class Load:
    """The same questions for every number of users."""

    def __init__(self, target: Target, model: str, a: argparse.Namespace) -> None:
        self.target, self._a = target, a
        fixed: dict[str, Any] = {"model": model, "max_tokens": a.max_tokens, "temperature": 0, "seed": 0}
        fixed |= {"ignore_eos": True} if a.ignore_eos else {}
        self.bodies = [{**fixed, "messages": messages} for messages in prompts(a.data, a.prompts)]
        self.alone: dict[int, str] = {}  # each prompt's answer when one user is alone
        self._phases = 0

    async def warm(self) -> None:
        """One answer that does not count: it compiles and touches what the others need. Raises `WireError` without."""
        if error := (await ask(self.target, self.bodies[0], patience=self._a.timeout)).error:
            raise WireError(error)

    def phases(self, users: list[int]) -> list[dict[str, Any]]:
        """Figures for each number of users. One user comes first, asked for or not."""
        found = []
        for number in sorted({1, *users}):
            phase = self.run(number)
            made = figures(phase, self._a.slo, self.alone)
            if not self.alone:
                self.alone = first_texts(phase.answers)
            say(f"{number} users: {made['completed']} answers, {made['output_throughput']:.1f} tok/s")
            for error in sorted({answer.error for answer in phase.answers if answer.error})[:3]:
                say(f"failed: {error}")
            found += [made] if number in users else []
        return found

    def run(self, users: int) -> Phase:
        """One phase. No cache holds its prompts, unless --no-salt leaves those of earlier phases there."""
        self._phases += 1
        salt = f"phase-{os.getpid()}-{self._phases}" if self._a.salt else None
        requests = max(self._a.requests or max(len(self.bodies), _TURNS * users), users)
        return asyncio.run(closed_loop(self.target, self.bodies, users, requests, salt, self._a.timeout))


def peer(load: Load, served: Served, threads: int, a: argparse.Namespace) -> dict[str, Any]:
    """8 users of ours and 8 streams of llama.cpp's batched decode in turns; the side that is not measured is stopped.
    Our time includes prompts, HTTP, and the end of the phase, when fewer than 8 users are left; the peer's does not.
    """
    try:
        served.hold()
        python, gguf = peers.python_of("llama"), peers.prepared(peers.gguf(a.layers))
        worker = Worker("llama", [str(python), "-m", "benchmarks.workers.llama", str(gguf), "--threads", str(threads)])
    except (Absent, WorkerFailed) as error:
        say(str(error))
        return {"absent": str(error)}
    finally:
        served.wake()
    ours, theirs = [], []
    try:
        for number in range(1, a.rounds + 1):
            ours.append(figures(load.run(STREAMS), a.slo, load.alone)["output_throughput"])
            served.hold()
            seconds = worker.ask("streams", m=STREAMS, steps=_STEPS, depth=_DEPTH)["seconds"]
            served.wake()
            theirs.append(STREAMS * _STEPS / seconds)
            say(f"round {number}: ours {ours[-1]:.1f}, llama.cpp {theirs[-1]:.1f} tok/s in all")
    finally:
        served.wake()
        worker.close()
    ratio = median(all_ratios(ours, theirs))
    return {"ours": summary(ours), "llama": summary(theirs), "ratio": ratio, "versions": worker.facts["versions"]}


async def served_model(target: Target) -> str:
    """What the server calls its first model."""
    status, body = await fetch(target, "GET", "/v1/models")
    if status != 200:
        raise WireError(f"/v1/models answers {status}; name a model with --model")
    return str(json.loads(body)["data"][0]["id"])


def report(result: dict[str, Any]) -> str:
    """The page: machine, conditions, table, peer."""
    phases = result["phases"]
    rows = [("users", *(str(p["users"]) for p in phases))]
    rows += [(name, *(_cell(name, p[name]) for p in phases)) for name in _FIGURES]
    kept = ", ".join(f"{kind} <= {limit:g} ms" for kind, limit in result["slo_ms"].items())
    lines = [
        f"# {heading(result['machine'], result['date'])}",
        "",
        f"{result['model']}, {result['machine']['threads']} threads; {result['prompts']}, at most "
        f"{result['max_tokens']} tokens an answer, greedy. request_goodput: {kept}.",
        "",
        table(rows),
    ]
    return "\n".join([*lines, *_peer_lines(result.get("peer"))])


def _peer_lines(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return []
    if "absent" in found:
        return [f"llama.cpp: {found['absent']}", ""]
    ours, theirs = found["ours"]["median"], found["llama"]["median"]
    return [
        f"{STREAMS} users: {ours:.1f} tok/s in all, prompts and HTTP included; llama.cpp's batched decode of {STREAMS} "
        f"streams: {theirs:.1f} tok/s. Ratio {found['ratio']:.2f}, median of {len(found['ours']['all'])} rounds.",
        "",
    ]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "correct":
        return f"{value:.1%}"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--url", help="of a server that runs already")
    p.add_argument("--serve", metavar="MODEL", help="start our own server with this model")
    p.add_argument("--options", type=str.split, default=[], help="of our own server, in one argument")
    p.add_argument("--peer", action="store_true", help="serve the synthetic model and compare with llama.cpp")
    p.add_argument("--layers", type=int, default=32, help="of the synthetic model; fewer only to try things out")
    p.add_argument("--rounds", type=int, default=3, help="interleaved rounds with the peer")
    p.add_argument("--model", help="name to ask for; default the server's first")
    p.add_argument("--users", type=_numbers, default=[1, 2, 4, 8], help="such as 1,2,4,8")
    p.add_argument("--data", type=Path, help="JSONL with messages, prompt or question; default a few rows of our own")
    p.add_argument("--prompts", type=int, default=16, help="conversations to take")
    p.add_argument("--requests", type=int, help="of each number of users; default each prompt once, and 4 a user")
    p.add_argument("--max-tokens", type=int, default=64, help="of an answer")
    p.add_argument("--ignore-eos", action="store_true", help="have every answer go on to --max-tokens")
    p.add_argument("--slo", type=_limits, default={"ttft": 500.0}, help="such as ttft:500,tpot:100, in ms")
    p.add_argument("--no-salt", dest="salt", action="store_false", help="let phases use each other's cached prompts")
    p.add_argument("--timeout", type=float, default=600.0, help="seconds for one answer")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder for the .md and .json")
    a = p.parse_args(arguments)
    if sum(map(bool, (a.url, a.serve, a.peer))) != 1:
        p.error("give one of --url, --serve and --peer")
    if a.peer:
        a.serve = "synthetic" if a.layers == 32 else f"synthetic:{a.layers}"
        a.ignore_eos = True  # random weights end where they like
    return a


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("users are 1 or more")
    return numbers


def _limits(text: str) -> dict[str, float]:
    pairs = [part.partition(":") for part in text.split(",")]
    if wrong := [kind for kind, _, _ in pairs if kind not in ("ttft", "tpot", "e2el")]:
        raise argparse.ArgumentTypeError(f"{wrong[0]} is not one of ttft, tpot, e2el")
    return {kind: float(limit) for kind, _, limit in pairs}


if __name__ == "__main__":
    sys.exit(main())
