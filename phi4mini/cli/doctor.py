"""doctor: checks of this machine: CPU, threads, memory, caches, tokenizer, kernels. Each check reports what it found.

Promises: it writes one probe file in the cache folder, removed at once, and nothing else; exit code 2 if a check fails.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from phi4mini.cli.common import put, put_json, size
from phi4mini.cli.options import command, json_option
from phi4mini.errors import Phi4MiniError


@dataclass
class Finding:
    """One line of the report; `wrong` is the fault and its remedy."""

    name: str
    text: str
    facts: dict[str, Any]
    wrong: str | None = None


@command()
@click.option("--measure", is_flag=True, help="Also measure memory bandwidth and int8 peak (two seconds).")
@json_option
def doctor(measure: bool, as_json: bool) -> int | None:
    """Check this machine: CPU, threads, memory, caches, models, tokenizer, kernels."""
    findings = [_checked(check) for check in (*_CHECKS, *([_ceilings] if measure else []))]
    bad = [finding for finding in findings if finding.wrong]
    if as_json:
        put_json({"ok": not bad, **{f.name: f.facts | ({"wrong": f.wrong} if f.wrong else {}) for f in findings}})
    else:
        for finding in findings:
            put(f"{'WRONG' if finding.wrong else 'ok':<6}{finding.name:<11}{finding.wrong or finding.text}\n")
    return 2 if bad else None


def _checked(check: Callable[[], Finding]) -> Finding:
    """Run a check; an error of the machine becomes a finding, so that the report goes on."""
    try:
        return check()
    except (Phi4MiniError, OSError) as error:
        return Finding(check.__name__.strip("_"), "", {}, str(error))


def _software() -> Finding:
    from importlib.metadata import version

    from phi4mini import __version__

    parts = {name: version(name) for name in ("numpy", "llvmlite", "tokenizers")}
    told = ", ".join(f"{name} {number}" for name, number in parts.items())
    facts = {"phi4mini": __version__, "python": platform.python_version(), "system": platform.platform(), **parts}
    return Finding("software", f"phi4mini {__version__}, Python {facts['python']}, {told}, {facts['system']}", facts)


def _processor() -> Finding:
    from phi4mini.kernels.cpu import cpu

    here = cpu()
    forced = " (forced by PHI4MINI_ISA)" if here.isa_forced else ""
    levels = {"l1": here.l1, "l2": here.l2, "l3": here.l3}
    told = ", ".join(f"{name.upper()} {level / 1024:.0f} KiB" for name, level in levels.items() if level)
    facts = {"name": here.name, "isa": here.isa, "forced": here.isa_forced, **levels}
    return Finding("processor", f"{here.name}, {here.isa}{forced}; {told or 'caches unknown'}", facts)


def _threads() -> Finding:
    from phi4mini.kernels.cpu import cpu
    from phi4mini.kernels.threads.count import most_threads

    here, most = cpu(), most_threads()
    quota = "no quota" if here.quota is None else f"a quota of {here.quota:g} CPUs"
    text = f"{most}: {here.cpus} logical CPUs allowed, {here.cores} physical cores among them, {quota}"
    facts = {"threads": most, "cpus": here.cpus, "cores": here.cores, "quota": here.quota}
    return Finding("threads", text, facts)


def _memory() -> Finding:
    from phi4mini.kernels.cpu import cpu

    total, available = cpu().memory_total, cpu().memory_available
    text = f"{size(available)} available of {size(total)} (cgroup limits counted)"
    return Finding("memory", text, {"total": total, "available": available})


def _cache() -> Finding:
    from phi4mini.files import atomic_write, cache_home

    home = cache_home()
    home.mkdir(parents=True, exist_ok=True)
    probe = home / f".probe-{os.getpid()}"
    with atomic_write(probe) as file:
        file.write(b"x")
    probe.unlink()
    free = shutil.disk_usage(home).free
    return Finding("cache", f"{home} is writable, {size(free)} free", {"path": str(home), "free": free})


def _models() -> Finding:
    from phi4mini.weights.library import list_models

    models = list_models()
    broken = [model for model in models if model.broken]
    total = sum(model.nbytes for model in models)
    facts = {"count": len(models), "bytes": total, "broken": [str(model.path) for model in broken]}
    wrong = f"{broken[0].broken}; `phi4mini rm {broken[0].path.name}` removes it" if broken else None
    return Finding("models", f"{len(models)} in the cache, {size(total)}", facts, wrong)


def _hub() -> Finding:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    offline = bool(constants.HF_HUB_OFFLINE)
    token = bool(os.environ.get("HF_TOKEN"))
    text = f"downloads go to {folder}{', offline' if offline else ''}{', HF_TOKEN is set' if token else ''}"
    return Finding("hub", text, {"cache": str(folder), "offline": offline, "token": token})


def _tokenizer() -> Finding:
    from phi4mini.tokenizer import ranks

    digest = hashlib.sha256(ranks.tiktoken_file()).hexdigest()
    damaged = f"the shipped ranks have sha256 {digest}, not {ranks.SHA256}: install again"
    text = f"o200k_base, {ranks.COUNT} ranks, sha256 as it should be"
    return Finding("tokenizer", text, {"sha256": digest}, None if digest == ranks.SHA256 else damaged)


def _kernels() -> Finding:
    """Compile or load kernels, run them, and compare the result with the reference."""
    import numpy as np

    from phi4mini.files import cache_home
    from phi4mini.formats.format_table import FORMATS
    from phi4mini.formats.rounding import quantize

    folder = cache_home() / "kernels"
    numbers = np.linspace(-1, 1, 16 * 64, dtype=np.float32).reshape(16, 64)
    close = float(np.abs(quantize(numbers, FORMATS["q8"]).dequantize() - numbers).max()) < 0.01
    wrong = _try_engine() if close else "quantising and back changes numbers"
    count = len(list(folder.glob("*.o"))) if folder.is_dir() else 0
    facts = {"path": str(folder), "count": count}
    return Finding("kernels", f"compile and run here; {count} in {folder}", facts, wrong)


def _try_engine() -> str | None:
    """Run a one-layer model through the engine and through the NumPy reference; None if they agree."""
    import numpy as np

    from phi4mini.engine.engine import Engine
    from phi4mini.model.reference import forward

    weights = tiny_weights()
    engine = Engine(weights, kv="f32", ctx=64)
    try:
        apart = float(np.abs(engine.logits([1, 2, 3]) - forward(weights, [1, 2, 3])).max())
    finally:
        engine.close()
    return None if apart < 1e-3 else f"engine and definition differ by {apart:.3g}: kernels compute wrongly here"


def tiny_weights() -> Any:
    """Random weights of a one-layer Llama: 32 tokens, 64 wide."""
    import numpy as np

    from phi4mini.formats.format_table import FORMATS
    from phi4mini.formats.rounding import quantize
    from phi4mini.model.arrays import LayerWeights, Weights
    from phi4mini.model.config import Config

    config = Config.from_json(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 32,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "max_position_embeddings": 64,
            "tie_word_embeddings": True,
            "eos_token_id": 0,
        }
    )
    random = np.random.default_rng(0)

    def matrix(rows: int, cols: int) -> Any:
        return quantize(random.standard_normal((rows, cols)).astype(np.float32) / 8, FORMATS["f32"])

    made = {name: matrix(rows, cols) for name, (rows, cols) in config.layer_shapes.items()}
    ones = np.ones(64, np.float32)
    embed = matrix(32, 64)
    return Weights(config, embed, [LayerWeights(input_norm=ones, post_norm=ones, **made)], ones, embed)


def _ceilings() -> Finding:
    from phi4mini.kernels.peak import dot_peak, read_bandwidth
    from phi4mini.kernels.threads.count import most_threads

    threads = most_threads()
    read, dots = read_bandwidth(threads), dot_peak(threads)
    text = f"{read:.1f} GB/s read from memory, {dots:.0f} GOPS int8, with {threads} threads"
    return Finding("ceilings", text, {"read_gb_s": read, "dot_gops": dots, "threads": threads})


_CHECKS: tuple[Callable[[], Finding], ...] = (
    _software,
    _processor,
    _threads,
    _memory,
    _cache,
    _models,
    _hub,
    _tokenizer,
    _kernels,
)
