"""Row 3: several streams at once, in total tok/s, against one stream and against llama.cpp's own batching."""

from __future__ import annotations

from benchmarks.model.bench import CONTEXT, Bench
from benchmarks.peers import gguf
from benchmarks.report import Line, at_least, speed
from benchmarks.rounds import Reading, ratios, summary

WIDTHS = (1, 4, 8)
_STEPS, _DEPTH = 16, 32


def run(bench: Bench, rows: set[int]) -> list[Line]:
    """All widths of ours and the same of llama.cpp in every round."""
    ours, llama = bench.ours(bench.full, ctx=CONTEXT), bench.llama(gguf(bench.layers))
    sides: dict[str, dict[int, list[Reading]]] = {n: {m: [] for m in WIDTHS} for n in ("ours", "llama")}
    for m in WIDTHS:  # first passes record their programs
        ours.ask("streams", m=m, steps=2, depth=_DEPTH)
    for number in range(bench.rounds):
        before = bench.read()
        for name, worker in (("ours", ours), ("llama", llama)):
            for m in WIDTHS if worker else ():
                seconds = worker.ask("streams", m=m, steps=_STEPS, depth=_DEPTH)["seconds"] if worker else 0.0
                after = bench.read()
                sides[name][m].append(Reading(m * _STEPS / seconds, before, after))
                before = after
        said = {n: [round(side[m][-1].value, 1) for m in WIDTHS if side[m]] for n, side in sides.items()}
        bench.say(f"round {number + 1}: {WIDTHS} streams, total tok/s {said}")
    bench.data["streams"] = {
        name: {str(m): summary([r.value for r in side[m]]) for m in WIDTHS} for name, side in sides.items()
    }
    return _lines(bench, sides)


def _lines(bench: Bench, sides: dict[str, dict[int, list[Reading]]]) -> list[Line]:
    ours, theirs = sides["ours"], sides["llama"]
    one = speed([r.value for r in ours[1]])
    lines = [
        at_least(3, f"{m} streams: >= {need} x one", need, _speed(ours[m]), ratios(ours[m], ours[1]), f"one: {one}")
        for m, need in ((4, 3.0), (8, 5.0))
    ]
    target = "8 streams: >= 4 x llama.cpp's batched 8"
    if not theirs[8]:
        return [*lines, Line(3, target, _speed(ours[8]), bench.why("llama"))]
    # eight rows are bound by arithmetic on both sides: the memory's phases between the two do not matter
    pairs = [a.value / b.value for a, b in zip(ours[8], theirs[8], strict=True)]
    return [*lines, at_least(3, target, 4.0, _speed(ours[8]), pairs, _speed(theirs[8]))]


def _speed(readings: list[Reading]) -> str:
    return speed([r.value for r in readings])
