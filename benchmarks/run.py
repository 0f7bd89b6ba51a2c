"""`make bench`: the eight rows of the speed targets as a Markdown table, one JSON line last, and a plot.

    python -m benchmarks.run [--rows 1,2,7] [--quick] [--layers N] [--rounds N] [--out FOLDER]

A whole run is saved in results/ under the machine's name, a part of one only where --out says. Progress goes to
stderr. A peer that is absent is named in its rows; a row that fails says why and the others go on.
Exit code 0 when everything ran, 1 when a row failed; a missed target is a result, not a failure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.model import plot
from benchmarks.model.bench import Bench
from benchmarks.model.rows import fidelity, long, process, single, small, speculation, streams
from benchmarks.report import Line, heading, markdown, save
from benchmarks.rounds import summary
from benchmarks.workers.driver import WorkerFailed
from phi4mini.errors import Phi4MiniError

RESULTS = Path(__file__).parent / "results"
ALL, FULL = set(range(1, 9)), 32
_Row = Callable[[Bench, set[int]], list[Line]]
# In the order in which they run: what needs the full-size workers first. `process` starts programs of its own and must
# not share memory with them.
PLAN: list[tuple[set[int], _Row]] = [
    ({1, 2}, single.run),
    ({3}, streams.run),
    ({5}, long.run),
    ({6}, process.run),
    ({4}, speculation.run),
    ({7}, small.run),
    ({8}, fidelity.run),
]


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen rows, print, save."""
    a = _parse(arguments)
    bench = Bench(a.layers, a.rounds or (3 if a.quick else 5), a.quick)
    lines, failed = [], False
    try:
        for rows, run in PLAN:
            if chosen := rows & a.rows:
                if run is process.run:
                    bench.release()
                made, broke = _attempt(bench, run, chosen)
                lines += made
                failed = failed or broke
    finally:
        bench.release()
    lines.sort(key=lambda line: line.row)
    result = _result(bench, lines)
    table = f"{_heading(result)}\n\n{markdown(lines)}"
    print(table)
    whole = a.rows == ALL and a.layers == FULL and not a.quick
    if folder := a.out or (RESULTS if whole else None):
        _save(bench, folder, result, table)
    print(json.dumps(result))
    return int(failed)


def _attempt(bench: Bench, run: _Row, rows: set[int]) -> tuple[list[Line], bool]:
    """The lines of a measurement, or one line that says how it failed."""
    bench.say(f"row {', '.join(map(str, sorted(rows)))}")
    try:
        return run(bench, rows), False
    except (WorkerFailed, Phi4MiniError) as error:
        bench.say(f"failed: {error}")
        bench.release()  # whatever state they are in
        return [Line(min(rows), "ran to the end", f"failed: {error}", met=False)], True


def _result(bench: Bench, lines: list[Line]) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.describe(bench.threads),
        "layers": bench.layers,
        "rounds": bench.rounds,
        "quick": bench.quick,
        "ceilings": {name: summary(values) for name, values in bench.ceilings.items()},
        "absent": bench.absent,
        "lines": [line.to_json() for line in lines],
        "data": bench.data,
    }


def _heading(result: dict[str, Any]) -> str:
    m, ceilings = result["machine"], result["ceilings"]
    peers = result["data"].get("peers", {})
    versions = {**m["versions"], **{k: v for peer in peers.values() for k, v in peer.items() if k != "numpy"}}
    read, dots = ceilings["read_gb_s"], ceilings["dot_gops"]
    return "\n".join(
        [
            f"# {heading(m, result['date'])}",
            "",
            f"{m['system']}, Python {m['python']}, " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".",
            f"Synthetic Phi-4-mini of {result['layers']} layers, {m['threads']} threads on every side, "
            f"{result['rounds']} interleaved rounds, medians.",
            f"Memory read {_range(read)} GB/s, int8 peak {_range(dots)} GOPS, measured between the rounds.",
        ]
    )


def _range(ceiling: dict[str, Any]) -> str:
    if ceiling["median"] is None:
        return "(not measured)"
    return f"{ceiling['median']:.0f} ({ceiling['min']:.0f} to {ceiling['max']:.0f})"


def _save(bench: Bench, folder: Path, result: dict[str, Any], table: str) -> None:
    name = machine.file_name(result["machine"])
    save(folder, name, table, result)
    bench.say(plot.save(result, folder / f"{name}.png"))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0] if __doc__ else "")
    p.add_argument("--rows", type=_rows, default=ALL, help="such as 1,2,7; default all")
    p.add_argument("--quick", action="store_true", help="three rounds, 2,048 tokens for the long context")
    p.add_argument("--layers", type=int, default=FULL, help="of the synthetic model; fewer only to try things out")
    p.add_argument("--rounds", type=int, help="interleaved rounds")
    p.add_argument("--out", type=Path, help="folder for .md, .json and .png")
    return p.parse_args(arguments)


def _rows(text: str) -> set[int]:
    rows = {int(part) for part in text.split(",")}
    if not rows <= ALL:
        raise argparse.ArgumentTypeError("rows are 1 to 8")
    return rows


if __name__ == "__main__":
    sys.exit(main())
