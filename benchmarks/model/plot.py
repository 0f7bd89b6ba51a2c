"""The picture: tokens a second against tokens a pass, under the machine's two ceilings.

One token a pass waits for memory, 512 for arithmetic; the lines are where each would be if nothing else cost time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from phi4mini.model.config import Config

_LOOKS = {"ours": ("phi4mini", "#c2410c", "o"), "llama": ("llama.cpp Q4_0", "#1d4ed8", "s")}
_LOOKS["openvino"] = ("OpenVINO int4", "#15803d", "^")
_BITS = 4.5  # a weight, in q4


def save(result: dict[str, Any], path: Path) -> str:
    """Draw a run's figures into a PNG; returns a line that says what was done, or why nothing was."""
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed (pip install phi4mini[bench])"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = points(result["data"])
    if not drawn or result["ceilings"]["read_gb_s"]["median"] is None:
        return "no plot: rows 1 to 3 were not measured"
    figure, axes = pyplot.subplots(figsize=(8.5, 5.5), layout="constrained")
    _ceilings(axes, result)
    for side, dots in drawn.items():
        label, colour, marker = _LOOKS[side]
        look = {"marker": marker, "color": colour, "linewidth": 0.8, "linestyle": ":", "markersize": 7}
        axes.plot(*zip(*dots, strict=True), label=label, **look)
    for x, y in drawn.get("ours", []):
        axes.annotate(f"{y:.0f}", (x, y), (0, -15), textcoords="offset points", ha="center", color=_LOOKS["ours"][1])
    axes.set(xscale="log", yscale="log", xlabel="tokens a pass (streams, or a prompt of 512)", ylabel="tokens a second")
    shown = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    axes.set_xticks(shown, [str(x) for x in shown])
    low, high = axes.get_ylim()
    ticks = [y for y in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if low <= y <= high]
    axes.set_yticks(ticks, [str(y) for y in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    m = result["machine"]
    axes.set_title(
        f"Phi-4-mini's shape, {result['layers']} layers, random weights: "
        f"{m['cpu']} ({m['llvm_cpu']}), {m['threads']} threads, {result['date']}"
    )
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return f"plot: {path.name}"


def points(data: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """(tokens a pass, tok/s) of each side, in order, of what was measured."""
    found: dict[str, dict[float, float]] = {}

    def note(side: str, x: float, figures: dict[str, Any]) -> None:
        if figures["median"] is not None:
            found.setdefault(side, {})[x] = figures["median"]

    for side, widths in data.get("streams", {}).items():
        for m, figures in widths.items():
            note(side, float(m), figures)
    for side in _LOOKS:
        if side in data.get("single", {}):
            note(side, 1.0, data["single"][side]["decode_tok_s"])
            note(side, 512.0, data["single"][side]["prefill_tok_s"])
    return {side: sorted(dots.items()) for side, dots in found.items()}


def roofs(layers: int, read: float, dots: float) -> tuple[float, float]:
    """(passes a second that memory allows, tokens a second that arithmetic allows): from GB/s and GOPS."""
    c = Config.phi4_mini()
    head = c.vocab_size * c.hidden_size
    body = (c.matrix_elements_per_token - head) * layers / c.num_layers
    return read * 1e9 / ((body + head) * _BITS / 8), dots * 1e9 / (2 * body)


def _ceilings(axes: Any, result: dict[str, Any]) -> None:
    read, dots = result["ceilings"]["read_gb_s"], result["ceilings"]["dot_gops"]
    xs = [2 ** (i / 8) for i in range(8 * 9 + 1)]
    middle, compute = roofs(result["layers"], read["median"], dots["median"])
    low, high = (roofs(result["layers"], read[end], dots["median"])[0] for end in ("min", "max"))

    def under(passes: float) -> Iterable[float]:
        return [min(x * passes, compute) for x in xs]

    label = f"memory {read['median']:.0f} GB/s ({read['min']:.0f} to {read['max']:.0f}), int8 {dots['median']:.0f} GOPS"
    axes.fill_between(xs, under(low), under(high), color="#9ca3af", alpha=0.25, linewidth=0)
    axes.plot(xs, under(middle), color="#374151", linestyle="--", linewidth=1.2, label=label)
