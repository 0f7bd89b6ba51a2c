"""bench: prefill and decode in tokens a second, and their share of this machine's memory bandwidth and int8 peak.

Promises: the two ceilings are measured in the same run, between the repetitions, because memory speed drifts; figures
are medians. Each prompt is new random ids, so that no cached page is reused.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phi4mini.cli.common import open_model, put, put_json, say, size
from phi4mini.cli.options import command, engine_options, given, json_option
from phi4mini.cli.timing import seconds
from phi4mini.errors import BadInput

if TYPE_CHECKING:
    from phi4mini.engine.engine import Engine
    from phi4mini.llm.model import Model


_MANY = click.IntRange(min=1)


@dataclass
class Samples:
    """One figure a repetition, in tok/s, tok/s, GB/s and GOPS."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    bandwidth: list[float] = field(default_factory=list)
    dots: list[float] = field(default_factory=list)


@command()
@engine_options
@click.option("--synthetic", is_flag=True, help="Full-size Phi-4-mini with random weights; nothing is fetched.")
@click.option("-p", "--prompt-tokens", type=_MANY, default=512, show_default=True, help="Prompt tokens.")
@click.option("-n", "--new-tokens", type=_MANY, default=64, show_default=True, help="New tokens.")
@click.option("-d", "--depth", type=click.IntRange(0), default=0, show_default=True, help="Tokens before the prompt.")
@click.option("-r", "--repetitions", type=_MANY, default=3, show_default=True, help="Repetitions.")
@click.option("--profile", "split", is_flag=True, help="Show the time of each operation of a token and of a prompt.")
@json_option
def bench(
    synthetic: bool,
    prompt_tokens: int,
    new_tokens: int,
    depth: int,
    repetitions: int,
    split: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Time a prompt of -p tokens after -d others, and the -n tokens that follow it."""
    if synthetic and given("model"):
        raise BadInput("--synthetic is a model of its own; leave -m out")
    if values["rope"] != "auto":
        raise BadInput("bench takes the LongRoPE factors for all its tokens together; --rope has no place in it")
    if synthetic:
        values["model"] = "synthetic"
    start = time.perf_counter()
    with open_model(values) as model:
        loaded = time.perf_counter() - start
        how = f"{model.store.recipe}, {values['kv']} KV, {model.engine.facts.threads} threads"
        say(f"{model.name} ({how}), ready in {loaded:.2f} s")
        seconds(model.engine, prompt_tokens, 1, depth, seed=0)  # compiles the kernels and touches all memory
        if split:
            from phi4mini.cli.profile import profile, put_profile

            found = profile(model, prompt_tokens, new_tokens, depth, repetitions)
            put_json(found, indent=None) if as_json else put_profile(found)
            return
        samples = Samples()
        resident = _peak_resident()  # before the ceilings take memory of their own
        for number in range(1, repetitions + 1):
            _measure(model.engine, samples, prompt_tokens, new_tokens, depth, number)
            say(f"{number}/{repetitions}: prefill {samples.prefill[-1]:.1f}, decode {samples.decode[-1]:.1f} tok/s")
        facts = _facts(model, samples, prompt_tokens, new_tokens, depth)
        facts |= {"kv": values["kv"], "load_seconds": loaded, "resident_bytes": resident}
    put_json(facts, indent=None) if as_json else _put(facts)


def _measure(engine: Engine, samples: Samples, prompt: int, new: int, depth: int, seed: int) -> None:
    from phi4mini.kernels.peak import dot_peak, read_bandwidth

    samples.bandwidth.append(read_bandwidth(engine.facts.threads))
    samples.dots.append(dot_peak(engine.facts.threads))
    prefill, decode = seconds(engine, prompt, new, depth, seed)
    samples.prefill.append(prompt / prefill)
    samples.decode.append(new / decode)


def _facts(model: Model, samples: Samples, prompt: int, new: int, depth: int) -> dict[str, Any]:
    """All figures under their names in the JSON. Bytes and operations are those that the arithmetic needs."""
    config, engine = model.config, model.engine.facts
    context = depth + prompt + new / 2
    moved = engine.pass_bytes + context * engine.kv_token_bytes
    head = config.vocab_size * config.hidden_size
    seen = prompt * (depth + (prompt + 1) / 2)  # pairs of a query and a key
    work: float = 2 * prompt * (config.matrix_elements_per_token - head) + 2 * head  # one row of the head
    work += 4 * config.num_layers * config.q_rows * seen
    pp, tg = statistics.median(samples.prefill), statistics.median(samples.decode)
    read, dots = statistics.median(samples.bandwidth), statistics.median(samples.dots)
    return {
        "model": model.name,
        "quant": model.store.recipe,
        "threads": engine.threads,
        "prompt_tokens": prompt,
        "new_tokens": new,
        "depth": depth,
        "repetitions": len(samples.prefill),
        "pp_tok_s": pp,
        "pp_tok_s_all": samples.prefill,
        "tg_tok_s": tg,
        "tg_tok_s_all": samples.decode,
        "bytes_per_token": int(moved),
        "read_gb_s": moved * tg / 1e9,
        "read_ceiling_gb_s": read,
        "read_share": moved * tg / 1e9 / read,
        "dot_gops": work / prompt * pp / 1e9,
        "dot_ceiling_gops": dots,
        "dot_share": work / prompt * pp / 1e9 / dots,
    }


def _peak_resident() -> int:
    """Most bytes of memory that this process has held. On Linux getrusage counts what its parent held as well."""
    import resource

    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _put(f: dict[str, Any]) -> None:
    put(
        f"pp {f['prompt_tokens']:<6} {f['pp_tok_s']:8.1f} tok/s ± {_spread(f['pp_tok_s_all']):.1f}   "
        f"{f['dot_gops']:.0f} GOPS, {f['dot_share']:.0%} of this machine's {f['dot_ceiling_gops']:.0f}\n"
        f"tg {f['new_tokens']:<6} {f['tg_tok_s']:8.1f} tok/s ± {_spread(f['tg_tok_s_all']):.1f}   "
        f"{f['read_gb_s']:.1f} GB/s ({size(f['bytes_per_token'])} a token), "
        f"{f['read_share']:.0%} of this machine's {f['read_ceiling_gb_s']:.1f}\n"
        f"peak memory {size(f['resident_bytes'])}\n"
    )


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
