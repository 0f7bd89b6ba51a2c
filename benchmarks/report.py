"""Lines of the result and how they are printed: a Markdown table, and the same as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.rounds import median

_HEADINGS = ("row", "target", "figure", "peer", "ratio", "met")


@dataclass(frozen=True)
class Line:
    """One line of the table. `ratio` is what the target speaks of; `met` is None with nothing to compare with."""

    row: int
    target: str
    figure: str
    peer: str = "-"
    ratio: float | None = None
    met: bool | None = None

    def to_json(self) -> dict[str, Any]:
        ratio = self.ratio if self.ratio is None or math.isfinite(self.ratio) else None
        return asdict(self) | {"ratio": ratio if ratio is None else float(f"{ratio:.4g}")}


def at_least(row: int, target: str, need: float, figure: str, values: Sequence[float], peer: str = "-") -> Line:
    """A line whose target is that the median of `values` reaches `need`; no values, no verdict."""
    if not values:
        return Line(row, target, figure, f"{peer}: no steady pair" if peer != "-" else "no steady round")
    return Line(row, target, figure, peer, median(values), median(values) >= need)


def at_most(row: int, target: str, limit: float, figure: str, value: float, peer: str = "-") -> Line:
    """A line whose target is that `value` stays within `limit`."""
    return Line(row, target, figure, peer, value / limit, value <= limit)


def speed(values: Sequence[float]) -> str:
    """A median in tokens a second."""
    return f"{median(values):.1f} tok/s" if values else "not measured"


def markdown(lines: Sequence[Line]) -> str:
    """The lines as a table."""
    return table([_HEADINGS, *(_cells(line) for line in lines)])


def table(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row being the heads; columns padded for people who read the source."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {row} |" for row in [text[0], rule, *text[1:]]) + "\n"


def save(folder: Path, name: str, text: str, result: dict[str, Any]) -> None:
    """Keep a result as `name`.md and `name`.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def heading(machine: dict[str, Any], date: str) -> str:
    """The machine, in one line."""
    cpu = f"{machine['cpu']} ({machine['llvm_cpu']}, {machine['isa']})"
    return f"{cpu}, {machine['cores']} cores, {machine['memory_gb']} GB, {date}"


def _cells(line: Line) -> tuple[str, ...]:
    ratio = "-" if line.ratio is None else f"{line.ratio:.2f}"
    met = {True: "yes", False: "NO", None: "-"}[line.met]
    return (str(line.row), line.target, line.figure, line.peer, ratio, met)
