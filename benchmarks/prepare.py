"""`make bench-peers`, after the environments: the models that the rows need, each made once, in our cache folder.

    python -m benchmarks.prepare [--layers N] [--only ours,llama,openvino]

Promise: what lies there under its name is whole; a model is made beside its place and renamed into it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.peers import Absent
from benchmarks.workers.driver import ROOT
from phi4mini.errors import NoSpace, Phi4MiniError
from phi4mini.kernels.cpu import cpu
from phi4mini.model.config import Config
from phi4mini.weights.load import ensure_store
from phi4mini.weights.sources.demo import demo_gguf

_GB_A_LAYER = 0.21  # of the bfloat16 folder, 2 bytes a weight; the embedding comes on top
_MEMORY_GB = 16.0  # that the export of 32 layers has taken


def main() -> int:
    """Make what is missing. 0, or 2 with one line for each part that could not be made."""
    p = argparse.ArgumentParser()
    p.add_argument("--layers", type=int, default=32)
    p.add_argument("--only", default="ours,llama,openvino")
    a = p.parse_args()
    parts: dict[str, Callable[[int], None]] = {"ours": _ours, "llama": _llama, "openvino": _openvino}
    peers.models_folder().mkdir(parents=True, exist_ok=True)
    failed = False
    for name in a.only.split(","):
        try:
            parts[name](a.layers)
        except (Absent, Phi4MiniError, subprocess.CalledProcessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0


def _ours(layers: int) -> None:
    _say("our stores and the demo model")
    demo_gguf()
    ensure_store("synthetic" if layers == 32 else f"synthetic:{layers}")
    ensure_store("demo")
    ensure_store("demo", "f32")


def _llama(layers: int) -> None:
    target = peers.gguf(layers)
    if target.exists():
        return
    python = peers.python_of("llama")
    _say(f"writing {target.name}")
    with _beside(target) as folder:
        made = folder / target.name
        _run(python, "-m", "benchmarks.synth.synth_gguf", str(made), str(layers))
        made.rename(target)


def _openvino(layers: int) -> None:
    target = peers.openvino_folder(layers)
    if target.exists():
        return
    python = peers.python_of("openvino")
    _check_room(layers)
    _say(f"writing {target.name}: a folder of random weights, then its export; minutes, and much memory")
    with _beside(target) as folder:
        source, made = folder / "hf", folder / target.name
        _run(python, "-m", "benchmarks.synth.synth_hf", str(source), said=json.dumps(hf_config(layers)))
        _tokenizer(source)
        _run(
            python.parent / "optimum-cli", "export", "openvino", "-m", str(source),
            "--task", "text-generation-with-past",
            "--weight-format", "int4", "--group-size", "128", "--ratio", "1.0", str(made),
        )  # fmt: skip
        made.rename(target)


def hf_config(layers: int) -> dict[str, Any]:
    """Phi-4-mini's numbers as Phi3Config takes them."""
    c = Config.phi4_mini()
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "partial_rotary_factor": c.rotary_dim / c.head_dim,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": list(c.short_factor or ()),
            "long_factor": list(c.long_factor or ()),
        },
        "max_position_embeddings": c.max_position_embeddings,
        "original_max_position_embeddings": c.original_max_position_embeddings,
        "sliding_window": c.sliding_window,
        "tie_word_embeddings": c.tie_word_embeddings,
        "bos_token_id": c.bos_token_id,
        "eos_token_id": c.eos_token_ids[0],
        "pad_token_id": c.pad_token_id,
    }


def _tokenizer(folder: Path) -> None:
    """Any tokenizer does for timing with ids; the pipeline asks for one."""
    from phi4mini.tokenizer import phi4_mini

    phi4_mini().save_json(folder / "tokenizer.json")
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def _check_room(layers: int) -> None:
    """Refuse before an hour is spent: the export holds the model in memory, its source lies on disk."""
    share = layers / 32
    memory, need = cpu().memory_available / 1e9, 2.0 + (_MEMORY_GB - 2.0) * share
    if memory < need:
        raise NoSpace(f"the export for OpenVINO takes {need:.0f} GB of memory; {memory:.1f} GB are available")
    disk, need = shutil.disk_usage(peers.models_folder()).free / 1e9, 1.3 * (1.3 + layers * _GB_A_LAYER)
    if disk < need:
        raise NoSpace(f"the export for OpenVINO takes {need:.0f} GB of disk; {disk:.1f} GB are free")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder on the target's disk that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as folder:
        yield Path(folder)


def _run(program: Path, *arguments: str, said: str = "") -> None:
    # the programs' own chatter goes to stderr: stdout stays empty
    subprocess.run([str(program), *arguments], cwd=ROOT, input=said, text=True, check=True, stdout=sys.stderr)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
