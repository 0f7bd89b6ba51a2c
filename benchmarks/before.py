"""This tree against an earlier commit of its own: whether a change made anything slower, in one interleaved run.

    python -m benchmarks.before HEAD~3 [--rounds 5] [--model synthetic] [--json]

The commit is checked out into a temporary git worktree; each side is a worker process of its own tree
(workers/driver.py), and the side that is not asked is held. Prefill of 512 tokens, decode in turns of 16, eight
streams, and the time from the start of `phi4mini run` to its first token. A ratio is now over before, above 1 is
faster; medians with minimum and maximum.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rounds import median, summary
from benchmarks.workers.driver import ROOT, Worker

PROMPT, TURN, TURNS, STREAMS, STEPS = 512, 16, 4, 8, 16
ROWS = (f"prefill {PROMPT}", f"decode {TURN}", f"{STREAMS} streams", "start")
Speeds = dict[str, list[float]]  # a row -> tok/s round by round; of "start", starts a second


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A worktree of `commit` that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def environment(tree: Path) -> dict[str, str]:
    """So that a child of this interpreter imports that tree's package."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def worker_module(tree: Path) -> str:
    """The module of our worker in that tree; commits before 2026-11-28 have it beside this file."""
    moved = (tree / "benchmarks" / "workers" / "ours.py").is_file()
    return "benchmarks.workers.ours" if moved else "benchmarks.worker_ours"


def worker(name: str, tree: Path, model: str) -> Worker:
    """One side, its first passes made."""
    command = [sys.executable, "-m", worker_module(tree), model, "--ctx", "2048"]
    made = Worker(name, command, environment(tree), tree)
    made.ask("prefill", n=PROMPT, seed=99)
    made.ask("decode", n=4)
    made.ask("streams", m=STREAMS, steps=2, depth=32)
    return made


def start(tree: Path, model: str) -> float:
    """Seconds from the start of the process to its end after one token."""
    command = [sys.executable, "-m", "phi4mini", "run", "-m", model, "-n", "1", "Hello"]
    began = time.perf_counter()
    subprocess.run(command, cwd=tree, env=environment(tree), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def one_round(sides: dict[str, tuple[Path, Worker]], model: str, number: int, into: dict[str, Speeds]) -> None:
    """All rows once, side by side; the side that goes first changes from round to round."""
    order = list(sides)[:: 1 if number % 2 else -1]
    for name in order:
        seconds = sides[name][1].ask("prefill", n=PROMPT, seed=number)["seconds"]
        into[name][ROWS[0]].append(PROMPT / seconds)
    for _ in range(TURNS):
        for name in order:
            into[name][ROWS[1]].append(TURN / sides[name][1].ask("decode", n=TURN)["seconds"])
    for name in order:
        seconds = sides[name][1].ask("streams", m=STREAMS, steps=STEPS, depth=32)["seconds"]
        into[name][ROWS[2]].append(STREAMS * STEPS / seconds)
    for name in order:
        into[name][ROWS[3]].append(1 / start(sides[name][0], model))


def table(speeds: dict[str, Speeds]) -> list[str]:
    """The result as Markdown."""
    lines = ["| row | before | now | now / before |", "|---|---|---|---|"]
    for row in ROWS:
        before, now = speeds["before"][row], speeds["now"][row]
        pairs = [n / b for n, b in zip(now, before, strict=True)]
        ratio = f"{median(pairs):.3f} ({min(pairs):.2f} to {max(pairs):.2f})"
        lines.append(f"| {row} | {median(before):.2f} | {median(now):.2f} | {ratio} |")
    return lines


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("commit", help="what to compare this tree with")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--model", default="synthetic")
    p.add_argument("--json", action="store_true", help="one line with every figure, last")
    a = p.parse_args()
    speeds: dict[str, Speeds] = {name: {row: [] for row in ROWS} for name in ("before", "now")}
    with checkout(a.commit) as tree:
        trees = {"before": tree, "now": ROOT}
        for name in trees:
            start(trees[name], a.model)  # makes the store and the kernels
        sides = {name: (path, worker(name, path, a.model)) for name, path in trees.items()}
        try:
            for number in range(a.rounds):
                one_round(sides, a.model, number, speeds)
                print(f"round {number + 1} of {a.rounds}", file=sys.stderr)
        finally:
            for _, side in sides.values():
                side.close()
    print("\n".join(table(speeds)))
    if a.json:
        print(json.dumps({name: {row: summary(of[row]) for row in ROWS} for name, of in speeds.items()}))


if __name__ == "__main__":
    main()
