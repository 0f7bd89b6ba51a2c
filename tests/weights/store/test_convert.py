"""Converting under stress: little memory, a full disk, kill -9, two at once; the source is never touched."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from phi4mini.errors import BadCheckpoint, NoSpace
from phi4mini.weights.checkpoints.folder import open_folder
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests.weights.twins import config_json, small_folder, write_folder

CONVERT = """
import sys
from pathlib import Path
from phi4mini.errors import Phi4MiniError
from phi4mini.weights.store.convert import convert
from phi4mini.weights.checkpoints.folder import open_folder
def progress(done, total):
    print(done, total, flush=True)
try:
    convert(open_folder(Path(sys.argv[1])), sys.argv[3], Path(sys.argv[2]), progress=progress)
except Phi4MiniError as error:
    print(type(error).__name__, error, file=sys.stderr)
    raise SystemExit(2)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # since exec, not the parent's
print("peak", int(peak.split()[1]) * 1024)
"""


def child(folder: Path, out: Path, quant: str = "q4", limit: int | None = None) -> subprocess.Popen[str]:
    def before() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", CONVERT, str(folder), str(out), quant]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before if limit else None
    )


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    """A checkpoint of 640 MB, almost all of it in one tensor, made without writing it: the file is sparse zeros."""
    numbers = config_json(vocab_size=100_000, hidden_size=1600, num_attention_heads=25, num_key_value_heads=25)
    folder = write_folder(tmp_path_factory.mktemp("big"), numbers, tensors={})
    sparse(folder / "model.safetensors", numbers)
    return folder


def sparse(path: Path, numbers: dict) -> None:
    import json

    from phi4mini.model.config import Config
    from phi4mini.weights.checkpoints import tensor_names

    header, at = {}, 0
    for name, (ours, i) in tensor_names.inverse(Config.from_json(numbers), "hf").items():
        shape = tensor_names.parts(Config.from_json(numbers), "hf")[ours][i].shape
        end = at + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def test_memory_stays_at_a_few_chunks(big, tmp_path):
    size = (big / "model.safetensors").stat().st_size
    assert size > 600 << 20
    running = child(big, tmp_path / "m.phi4", "q8")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    peak = int(out.splitlines()[-1].split()[1])
    print(f"peak {peak >> 20} MiB for {size >> 20} MiB")
    assert peak < 200 << 20, f"peak of {peak >> 20} MiB for a checkpoint of {size >> 20} MiB"


def test_A10_a_disk_known_to_be_too_small_is_refused_before_a_byte_is_written(tmp_path, monkeypatch):
    class Small:
        f_bavail, f_frsize = 10, 4096

    checkpoint = open_folder(small_folder(tmp_path / "m"))
    monkeypatch.setattr(os, "statvfs", lambda path: Small())
    with pytest.raises(NoSpace, match=r"m\.phi4.*bytes needed, 40960 free"):
        convert(checkpoint, "f32", tmp_path / "m.phi4")
    assert sorted(os.listdir(tmp_path)) == ["m"]


def test_A10_a_disk_that_fills_while_converting_leaves_nothing_and_a_rerun_succeeds(tmp_path):
    folder = small_folder(tmp_path / "m", vocab_size=4000, hidden_size=256)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path / "out"
    out.mkdir()
    for limit in (1 << 12, 1 << 17, 1 << 19, 1 << 20):
        running = child(folder, out / "m.phi4", "q8", limit)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 2, err
        assert err.startswith("NoSpace") and "m.phi4" in err and "bytes needed" in err
        assert len(err.splitlines()) == 1 and os.listdir(out) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    running = child(folder, out / "m.phi4", "q8")
    running.communicate(timeout=60)
    assert running.returncode == 0
    open_store(out / "m.phi4", verify=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_A10_a_really_full_disk_is_one_line(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let tests mount a tmpfs")
    try:
        folder = small_folder(tmp_path / "m", vocab_size=4000, hidden_size=256)
        running = child(folder, disk / "m.phi4", "f32")
        _, err = running.communicate(timeout=60)
        assert running.returncode == 2 and err.startswith("NoSpace") and len(err.splitlines()) == 1
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_A11_kill_9_leaves_the_old_store_and_the_next_run_sweeps(big, tmp_path):
    path = tmp_path / "m.phi4"
    convert(open_folder(small_folder(tmp_path / "small")), "q4", path)
    old = path.read_bytes()
    for delay in (0.0, 0.15, 0.4):
        running = child(big, path, "f32")
        assert running.stdout is not None
        running.stdout.readline()  # the tokenizer is written: conversion is under way
        time.sleep(delay)
        running.kill()
        running.communicate(timeout=30)
        assert path.read_bytes() == old
        assert any(name.endswith(".tmp") for name in os.listdir(tmp_path))
    convert(open_folder(tmp_path / "small"), "q8", path)
    assert sorted(os.listdir(tmp_path)) == ["m.phi4", "small"]
    assert open_store(path, verify=True).recipe == "q8"


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.gate_up_proj.weight"])
def test_nan_in_the_weights_is_named_and_nothing_is_written(tmp_path, name):
    from phi4mini.model.config import Config
    from tests.weights.twins import random_tensors

    tensors = random_tensors(Config.from_json(config_json()))
    tensors[name].reshape(-1)[7] = np.nan
    checkpoint = open_folder(write_folder(tmp_path / "m", config_json(), tensors))
    told = "norm holds NaN" if "norm" in name else r"layers\.1\.gate_up, rows 0 to 191: the weights hold NaN"
    with pytest.raises(BadCheckpoint, match=told):
        convert(checkpoint, "q4", tmp_path / "m.phi4")
    assert os.listdir(tmp_path) == ["m"]


def test_a_shard_cut_while_converting_is_one_line(tmp_path):
    folder = small_folder(tmp_path / "m")
    checkpoint = open_folder(folder)
    os.truncate(folder / "model.safetensors", 30_000)
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors: truncated"):
        convert(checkpoint, "q4", tmp_path / "m.phi4")
    assert os.listdir(tmp_path) == ["m"]
