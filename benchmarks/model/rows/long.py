"""Row 5: 8,192 tokens of context, filled by computing them and decoded after, and 32,768 of our own.

A peer's 8,192 tokens take minutes, so each program fills once; decode of ours and of llama.cpp then alternates, and
OpenVINO, which does prompt and answer in one call, runs once, and ours again after it. Our 32,768 tokens are not
computed: the cache is filled with plausible random bytes, which take the same time to read.
"""

from __future__ import annotations

from benchmarks.model.bench import CONTEXT, Bench
from benchmarks.peers import gguf
from benchmarks.report import Line, at_least, speed
from benchmarks.rounds import Reading, median, ratios, summary

DEPTH, FAR = 8192, 32768
_NEW = 16


def run(bench: Bench, rows: set[int]) -> list[Line]:
    """Prefill and decode at 8K against both peers, decode at 32K against the bytes it must read."""
    far = _far(bench)
    depth = 2048 if bench.quick else DEPTH
    ours, llama, openvino = bench.ours(bench.full, ctx=CONTEXT), bench.llama(gguf(bench.layers)), bench.openvino()
    prefill = {"ours": depth / ours.ask("prefill", n=depth, seed=1)["seconds"]}
    bench.say(f"ours: {depth} tokens at {prefill['ours']:.1f} tok/s")
    if llama:
        prefill["llama"] = depth / llama.ask("prefill", n=depth, seed=1)["seconds"]
        bench.say(f"llama.cpp: {depth} tokens at {prefill['llama']:.1f} tok/s")
    decode: dict[str, list[Reading]] = {"ours": [], "llama": [], "openvino": [], "after": []}
    for _ in range(bench.rounds):
        before = bench.read()
        for name, worker in (("ours", ours), ("llama", llama)):
            if worker:
                made = _NEW / worker.ask("decode", n=_NEW)["seconds"]
                decode[name].append(Reading(made, before, after := bench.read()))
                before = after
    if openvino:
        both = openvino.ask("prefill", n=depth, seed=1, then=_NEW)
        prefill["openvino"], now = depth / both["seconds"], bench.read()
        # its decode ends the call: the reading before that was minutes ago, the one right after is the nearest
        decode["openvino"].append(Reading(_NEW / both["decode_seconds"], now, now))
        decode["after"].append(Reading(_NEW / ours.ask("decode", n=_NEW)["seconds"], now, bench.read()))
        bench.say(f"OpenVINO: {depth} tokens at {prefill['openvino']:.1f} tok/s")
    bench.data["long"] = {
        "depth": depth,
        "prefill_tok_s": prefill,
        "decode_tok_s": {name: summary([r.value for r in readings]) for name, readings in decode.items()},
        "decode_read_gb_s": {name: [[r.before, r.after] for r in readings] for name, readings in decode.items()},
    }
    return [*_against(bench, depth, prefill, decode), *far]


def _against(bench: Bench, depth: int, prefill: dict[str, float], decode: dict[str, list[Reading]]) -> list[Line]:
    lines = []
    fast = speed([r.value for r in decode["ours"]])
    for peer, label, fill, more in (("llama", "llama.cpp Q4_0", 3.5, 3.5), ("openvino", "OpenVINO int4", 1.3, 2.0)):
        targets = f"prefill {depth}: >= {fill} x {label}", f"decode at {depth}: >= {more} x {label}"
        if peer not in prefill:
            figures = f"{prefill['ours']:.1f} tok/s", fast
            lines += [Line(5, t, f, bench.why(peer)) for t, f in zip(targets, figures, strict=True)]
            continue
        ratio = prefill["ours"] / prefill[peer]
        figure = f"{prefill['ours']:.1f} tok/s"
        lines.append(Line(5, targets[0], figure, f"{prefill[peer]:.1f} tok/s", ratio, ratio >= fill))
        pairs = ratios(decode["after" if peer == "openvino" else "ours"], decode[peer])
        theirs = speed([r.value for r in decode[peer]])
        lines.append(at_least(5, targets[1], more, fast, pairs, theirs))
    return lines


def _far(bench: Bench) -> list[Line]:
    """Decode at 32K: time over the time that reading weights and cache at the measured bandwidth would take."""
    ours = bench.ours(bench.full, ctx=CONTEXT)
    ours.ask("fill", n=FAR, seed=3)
    facts, readings = ours.facts, list[Reading]()
    ours.ask("decode", n=4)
    for _ in range(bench.rounds):
        before = bench.read()
        readings.append(Reading(_NEW / ours.ask("decode", n=_NEW)["seconds"], before, bench.read()))
    moved = (facts["weight_bytes"] + facts["kv_bytes"] * FAR) / 1e9
    over = [r.bandwidth / (r.value * moved) for r in readings if r.steady]
    bench.data["far"] = {"depth": FAR, "decode_tok_s": summary([r.value for r in readings]), "over": summary(over)}
    figure, target = speed([r.value for r in readings]), f"decode at {FAR}: <= 1.3 x the time of its {moved:.2f} GB"
    bench.say(f"decode at {FAR}: {figure}, {median(over):.2f} x the time of its bytes")
    if not over:
        return [Line(5, target, figure, "no steady round")]
    ceiling = f"{median([r.bandwidth for r in readings]):.1f} GB/s read"
    return [Line(5, target, figure, ceiling, median(over), median(over) <= 1.3)]
