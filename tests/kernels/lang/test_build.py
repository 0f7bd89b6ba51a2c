"""From kernels to machine code: the cache on disk, its key, what other CPUs get."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phi4mini.engine.compute.forward import Network
from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels import (
    activations,
    attention,
    attention_merge,
    gather,
    matmul,
    matmul_dense,
    norm,
    refine_logits,
    rope,
    swiglu,
)
from phi4mini.kernels.lang import build
from phi4mini.kernels.lang.build import Library, Target, compile_object
from phi4mini.kernels.lang.kernel import Kernel, Spec, kernel
from phi4mini.kernels.threads.pool import Call, Pool, run_program
from tests import tiny
from tests.kernels.harness import ROOT

HEADS = {"heads": 4, "kv_heads": 2, "head_dim": 32}
SAMPLE = [gather.gather(cols=32), gather.gather(cols=64), refine_logits.floors()]
MAIN = [
    matmul.rows_few(format="q4", rows=1, cols=128, residual=False),
    matmul.rows_few(format="q4m", rows=4, cols=128, residual=True),
    matmul.rows_few(format="q6k", rows=2, cols=256, residual=True),
    matmul.rows_many(format="q4", wide=4, cols=320, residual=True),
    attention.attend(kind="int8", **HEADS, tall=1),
    attention.attend(kind="int8", **HEADS, tall=2),
]
INTEGER_FREE = [
    matmul_dense.dense(format="bf16", tall=3, wide=4, cols=128, residual=True),
    attention_merge.merge(format="q4", heads=4, head_dim=32),
    norm.rmsnorm(format="q8", cols=128, fine=4),
    refine_logits.refine(format="q4", cols=128, fine=4),
    swiglu.swiglu(format="q4", cols=128),
    rope.rope_append(kind="int8", **HEADS, half=12),
    activations.quantize(format="q6k", cols=128),
    run_program(profile=True),
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Spec]:
    """Every kernel that this process compiles, in order."""
    specs: list[Spec] = []

    def counted(spec: Spec, target: Target) -> bytes:
        specs.append(spec)
        return compile_object(spec, target)

    monkeypatch.setattr(build, "compile_object", counted)
    return specs


@pytest.fixture
def compiled(tmp_path: Path, made: list[Spec]) -> Callable[..., int]:
    """How many of some kernels a new process-like library has to compile, with its folder in tmp_path."""

    def compiled(specs: list[Spec] = SAMPLE, target: Target | None = None) -> int:
        made.clear()
        library = Library(target, folder=tmp_path / "kernels")
        library.need(specs)
        for spec in specs:
            assert library.address(spec)
        return len(made)

    return compiled


def gathered(library: Library) -> bool:
    """Whether the library's gather works."""
    spec = SAMPLE[0]
    x = np.arange(96, dtype=np.float32).reshape(3, 32)
    out, index = np.zeros((2, 32), np.float32), np.array([2, 0], np.int64)
    call = Call(spec, x=x, stride=x.strides[0], index=index, rows=np.array([2], np.int64), out=out)
    library.function(spec)(call.block.ctypes.data, 0, 1)
    return np.array_equal(out, x[index])


def test_kernels_are_compiled_once_and_found_again(
    compiled: Callable[..., int], tmp_path: Path, made: list[Spec]
) -> None:
    assert compiled(SAMPLE[:1]) == 1
    assert compiled(SAMPLE) == 2
    assert compiled(SAMPLE) == 0
    assert gathered(Library(folder=tmp_path / "kernels"))
    library = Library(folder=tmp_path / "kernels")
    made.clear()
    library.need(SAMPLE)
    assert made == []


def test_what_will_be_needed_is_compiled_at_once_and_said(tmp_path: Path, made: list[Spec], caplog) -> None:  # type: ignore[no-untyped-def]
    Library(folder=tmp_path / "kernels").prepare(SAMPLE)
    assert made == SAMPLE
    Library(folder=tmp_path / "kernels").prepare(SAMPLE)
    said = f"compiling {len(SAMPLE)} kernels for {Target.host().cpu}, this once"
    assert [record.message for record in caplog.records] == [said]


def test_objects_of_a_season_ago_go_when_new_ones_come(tmp_path: Path) -> None:
    old, young = tmp_path / "old.o", tmp_path / "young.o"
    for file, days in ((old, 91), (young, 89)):
        file.write_bytes(b"an object")
        os.utime(file, (then := time.time() - days * 86400, then))
    Library(folder=tmp_path).prepare(SAMPLE[:1])
    assert not old.exists() and young.exists() and len(list(tmp_path.glob("*.o"))) == 2
    os.utime(young, (0, 0))
    Library(folder=tmp_path).prepare(SAMPLE[:1])
    assert young.exists(), "nothing was compiled"


def test_a_folder_that_cannot_be_written_is_said_once_and_the_kernels_run(
    tmp_path: Path, made: list[Spec], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    library = Library(folder=tmp_path / "kernels")
    library.prepare(SAMPLE)
    library.need(SAMPLE)
    library.prepare(SAMPLE)
    assert gathered(library) and made == SAMPLE, "each is compiled once"
    assert caplog.text.count("compiled kernels cannot be kept") == 1


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "hash", "other kernel"])
def test_a_damaged_object_is_made_again(compiled: Callable[..., int], tmp_path: Path, damage: str) -> None:
    compiled()
    folder = tmp_path / "kernels"
    files = sorted(folder.iterdir())
    for file in files:
        data = bytearray(file.read_bytes())
        if damage == "flipped":
            data[len(data) // 2] ^= 1
        if damage == "hash":
            data[0] ^= 1
        size = {"empty": 0, "short": len(data) - 1, "other kernel": 40}.get(damage, len(data))
        file.write_bytes(data[:size])
    assert compiled() == len(SAMPLE)
    assert compiled() == 0
    assert gathered(Library(folder=folder))
    assert sorted(folder.iterdir()) == files


def test_two_processes_compile_at_once(compiled: Callable[..., int], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.kernels.lang.test_build import *\n"
        "library = Library(folder=Path(sys.argv[1])); library.need(SAMPLE); assert gathered(library)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "kernels")]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()[-2000:]
    assert compiled() == 0
    assert [f.suffix for f in (tmp_path / "kernels").iterdir()] == [".o"] * len(SAMPLE)


def test_the_key_is_everything_that_decides_the_code(compiled: Callable[..., int]) -> None:
    host = Target.host()
    assert compiled(target=host) == len(SAMPLE)
    others = [
        replace(host, cpu="x86-64-v3"),
        replace(host, features=host.features + ",-prfchw"),
        replace(host, isa="avx2"),
    ]
    for other in others:
        assert compiled(target=other) == len(SAMPLE)
        assert compiled(target=other) == 0
    assert compiled(target=host) == 0


def test_names_tell_kernels_apart() -> None:
    """A symbol a kernel: all those of engines in every format, both caches, one row and many."""
    specs: set[Spec] = set()
    for format in FORMATS:
        for kv in ("int8", "f32"):
            network = Network(tiny.weights(tiny.config(num_layers=1), format), kv, 1, Pool(1))
            for rows, outputs, tall in ((1, 1, 1), (8, 0, 6), (512, 64, 6)):
                specs |= {call.spec for call in network._record(rows, outputs, tall)}
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names) > 60
    assert all(name.isidentifier() for name in names)


def test_ir_and_assembly_are_kept_where_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of kernels that are compiled and of kernels that the cache holds."""
    Library(folder=tmp_path / "kernels").need(SAMPLE)
    for name, specs in (("cached", SAMPLE), ("new", [gather.gather(cols=96)])):
        monkeypatch.setenv("PHI4MINI_KEEP_IR", str(tmp_path / name))
        library = Library(folder=tmp_path / "kernels")
        library.need(specs)
        kept = {file.name: file.read_text() for file in (tmp_path / name).iterdir()}
        assert set(kept) == {spec.name + end for spec in specs for end in (".ll", ".s")}
        target = library.target
        assert kept[f"{specs[0].name}.ll"] == build.write_ir(specs[0], target.isa, target.triple)
        assert kept[f"{specs[0].name}.s"] == build.assembly(specs[0], target)
    monkeypatch.setenv("PHI4MINI_KEEP_IR", str(tmp_path / "kernels" / next((tmp_path / "kernels").iterdir()).name))
    library = Library(folder=tmp_path / "kernels")
    library.need(SAMPLE)
    assert gathered(library) and caplog.text.count("PHI4MINI_KEEP_IR: ") == 1


def test_debug_records_tell_what_was_compiled_and_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "phi4mini.kernels")
    Library(folder=tmp_path).need(SAMPLE)
    Library(folder=tmp_path).need(SAMPLE)
    lines = [record.message for record in caplog.records]
    assert [line.split(":")[0] for line in lines[:3]] == [spec.name for spec in SAMPLE]
    assert all("bytes in" in line for line in lines[:3])
    assert [line.startswith("3 kernels loaded in") for line in lines[3:]] == [True, True]


# other CPUs ---------------------------------------


@pytest.mark.parametrize("spec", MAIN + INTEGER_FREE, ids=lambda spec: spec.name)
def test_neon_code_is_made_here(spec: Spec) -> None:
    """Cross-compiled for aarch64 with dotprod: an ELF object of that machine, sdot where integers are multiplied."""
    target = Target.pinned("neon")
    machine = target.machine()
    module = build.optimize(build.write_ir(spec, target.isa, target.triple), machine)
    code = machine.emit_object(module)
    assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64
    if spec in MAIN:
        assert "sdot" in machine.emit_assembly(module)


@pytest.mark.parametrize("spec", MAIN[::2], ids=lambda spec: spec.name)
def test_alder_lake_code_has_the_short_dot_product(spec: Spec) -> None:
    text = build.assembly(spec, Target.pinned("avxvnni"))
    assert "{vex}\tvpdpbusd" in text or "{vex} vpdpbusd" in text
    assert "zmm" not in text


@pytest.mark.parametrize("spec", MAIN[:4], ids=lambda spec: spec.name)
def test_haswell_code_has_neither_vnni_nor_wide_registers(spec: Spec) -> None:
    text = build.assembly(spec, Target.pinned("avx2"))
    assert "vpmaddubsw" in text and "vpdpbusd" not in text and "zmm" not in text


def test_an_operation_that_makes_no_sense_is_refused_when_written() -> None:
    @kernel("x:float out:f32[]")
    def remainder(k: Kernel) -> None:
        k.store(k.out, k.x % 2)

    with pytest.raises(TypeError, match="no such operation on float"):
        build.write_ir(remainder(), "avx2", Target.pinned("avx2").triple)
