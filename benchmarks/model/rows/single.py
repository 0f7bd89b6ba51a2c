"""Rows 1 and 2: 512 tokens in, 64 tokens out, one stream, against both peers and both ceilings.

A round is: prefill of ours and of llama.cpp, then decode of both in turns of 16 tokens with the memory's speed read
before, between and after, then OpenVINO, which does both in one call. Turns in which memory changed its speed are not
counted; where fewer are left than there are rounds, more rounds follow, up to two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.model.bench import CONTEXT, Bench
from benchmarks.peers import gguf
from benchmarks.report import Line, at_least, speed
from benchmarks.rounds import Reading, all_ratios, median, ratios, shares, summary

PROMPT, NEW, TURN = 512, 64, 16
_TURNS = NEW // TURN  # of a round
_EXTRA = 2  # rounds to make up for unsteady turns


@dataclass
class Side:
    """What one program did, tok/s: prefill round by round, decode turn by turn."""

    prefill: list[float] = field(default_factory=list)
    decode: list[Reading] = field(default_factory=list)


def run(bench: Bench, rows: set[int]) -> list[Line]:
    """Both rows come from the same rounds."""
    sides, dots = {name: Side() for name in ("ours", "llama", "openvino")}, list[float]()
    facts = bench.ours(bench.full, ctx=CONTEXT).facts
    for number in range(bench.rounds + _EXTRA):
        _round(bench, sides, dots, number)
        steady = ratios(sides["ours"].decode, sides["llama"].decode) or [
            r.value for r in sides["ours"].decode if r.steady
        ]
        if number + 1 >= bench.rounds and len(steady) >= bench.rounds:
            break
    _note(bench, sides)
    peak = [2 * facts["layer_weights"] * tok / top / 1e9 for tok, top in zip(sides["ours"].prefill, dots, strict=True)]
    moved = (facts["weight_bytes"] + facts["kv_bytes"] * (PROMPT + NEW / 2)) / 1e9
    lines = _prefill(bench, sides, peak) if 1 in rows else []
    return lines + (_decode(bench, sides, shares(sides["ours"].decode, moved)) if 2 in rows else [])


def _round(bench: Bench, sides: dict[str, Side], dots: list[float], number: int) -> None:
    ours, llama = bench.ours(bench.full, ctx=CONTEXT), bench.llama(gguf(bench.layers))
    openvino = bench.openvino() if number < bench.rounds else None
    if number == 0:  # first passes compile and touch
        ours.ask("prefill", n=PROMPT, seed=99)
        ours.ask("decode", n=4)
    dots.append(bench.dots())
    sides["ours"].prefill.append(PROMPT / ours.ask("prefill", n=PROMPT, seed=number)["seconds"])
    if llama:
        sides["llama"].prefill.append(PROMPT / llama.ask("prefill", n=PROMPT, seed=number)["seconds"])
    before = bench.read()
    for _ in range(_TURNS):
        for name, worker in (("ours", ours), ("llama", llama)):
            if worker:
                made = TURN / worker.ask("decode", n=TURN)["seconds"]
                after = bench.read()
                sides[name].decode.append(Reading(made, before, after))
                before = after
    if openvino:
        both = openvino.ask("prefill", n=PROMPT, seed=number, then=NEW)
        sides["openvino"].prefill.append(PROMPT / both["seconds"])
        sides["openvino"].decode.append(Reading(NEW / both["decode_seconds"], before, bench.read()))
    last = {name: f"{s.prefill[-1]:.1f}/{s.decode[-1].value:.1f}" for name, s in sides.items() if s.decode}
    bench.say(f"round {number + 1}: prefill/decode tok/s {last}, memory {before:.1f} GB/s")


def _note(bench: Bench, sides: dict[str, Side]) -> None:
    bench.data["single"] = {
        name: {
            "prefill_tok_s": summary(side.prefill),
            "decode_tok_s": summary([r.value for r in side.decode]),
            "decode_read_gb_s": [[r.before, r.after] for r in side.decode],
        }
        for name, side in sides.items()
    }


def _prefill(bench: Bench, sides: dict[str, Side], peak: list[float]) -> list[Line]:
    ours = sides["ours"].prefill
    lines = []
    for peer, label, need in (("llama", "llama.cpp Q4_0", 2.4), ("openvino", "OpenVINO int4", 1.35)):
        target, theirs = f"prefill {PROMPT}: >= {need} x {label}", sides[peer].prefill
        if theirs:
            lines.append(at_least(1, target, need, speed(ours), all_ratios(ours, theirs), f"{speed(theirs)}"))
        else:
            lines.append(Line(1, target, speed(ours), bench.why(peer)))
    ceiling = f"{median(bench.ceilings['dot_gops']):.0f} GOPS peak"
    bench.data["single"]["prefill_share_of_peak"] = summary(peak)
    return [*lines, at_least(1, f"prefill {PROMPT}: >= 70 % of the int8 peak", 0.70, speed(ours), peak, ceiling)]


def _decode(bench: Bench, sides: dict[str, Side], share: list[float]) -> list[Line]:
    ours = sides["ours"].decode
    figure = speed([r.value for r in ours])
    lines = []
    for peer, label, need in (("llama", "llama.cpp Q4_0", 1.3), ("openvino", "OpenVINO int4", 1.0)):
        target, theirs = f"decode {NEW} after {PROMPT}: >= {need} x {label}", sides[peer].decode
        if theirs:
            near = ours if peer == "llama" else ours[_TURNS - 1 :: _TURNS]  # the turn right before OpenVINO's call
            pairs = ratios(near, theirs)
            bench.data["single"][f"decode_ratio_{peer}"] = summary(pairs)
            label = f"{speed([r.value for r in theirs])}, {len(pairs)} of {len(theirs)} turns"
            lines.append(at_least(2, target, need, figure, pairs, label))
        else:
            lines.append(Line(2, target, figure, bench.why(peer)))
    ceiling = f"{median([r.bandwidth for r in ours]):.1f} GB/s read"
    bench.data["single"]["decode_share_of_read"] = summary(share)
    target = f"decode {NEW} after {PROMPT}: >= 92 % of the read bandwidth"
    return [*lines, at_least(2, target, 0.92, figure, share, ceiling)]
