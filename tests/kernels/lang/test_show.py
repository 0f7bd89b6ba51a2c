"""What a kernel becomes, as text: for every operation of the room, and one line for what is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from phi4mini.errors import BadInput
from phi4mini.kernels import gather, matmul
from phi4mini.kernels.lang.build import Target, assembly, write_ir
from phi4mini.kernels.lang.show import arguments, main, operations, spec_of, text_of
from tests.kernels.harness import ROOT

FEW = ["format=q4", "rows=2", "cols=3072", "residual=True"]


def test_every_operation_of_the_room_is_found() -> None:
    found = {f"{file} {operation.__name__}" for file, operation in operations()}
    wanted = {"matmul rows_few", "matmul_dense dense", "attention attend", "attention_merge merge", "gather gather"}
    assert wanted | {"pool run_program", "peak dots", "round_weights encode"} <= found


def test_words_of_a_command_line_are_a_spec() -> None:
    assert spec_of("matmul", "rows_few", FEW) == matmul.rows_few(format="q4", rows=2, cols=3072, residual=True)
    assert spec_of("norm", "rmsnorm", ["format=q4", "cols=96"]).params == (("format", "q4"), ("cols", 96))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["gather", "scatter"], "there is no kernel gather scatter; gather has gather"),
        (["nowhere", "gather"], "there is no kernel nowhere gather$"),
        (["gather", "gather"], "gather gather takes cols=, got nothing"),
        (["gather", "gather", "cols=64", "rows=2"], "gather gather takes cols=, got cols=64 rows=2"),
        (["gather", "gather", "cols=wide"], "gather gather: cols is int, not 'wide'"),
        (["matmul", "rows_few", *FEW[:3], "residual=1"], "matmul rows_few: residual is bool, not '1'"),
        (["swiglu", "swiglu", "format=q9", "cols=64"], "swiglu swiglu: there is no 'q9'"),
    ],
)
def test_what_is_no_kernel_is_one_line(words: list[str], error: str) -> None:
    with pytest.raises(BadInput, match=error):
        spec_of(words[0], words[1], words[2:])


def test_arguments_are_told_with_their_sizes() -> None:
    told = arguments(spec_of("matmul", "rows_few", FEW)).splitlines()
    assert told[0] == "   0 weights: u8 [27648 * strips]" and told[1] == "   8 q: i8 [2; 3072]"
    assert "  40 out: f32 [2, out_stride bytes apart; 16 * strips]" in told and told[-1] == "  56 out_stride: int"


def test_text_is_that_of_the_compiler() -> None:
    spec, target = gather.gather(cols=64), Target.pinned("avx2")
    ir = text_of(spec, "ir", target)
    assert ir == write_ir(spec, "avx2", target.triple) and "alloca" in ir
    assert "alloca" not in text_of(spec, "optimized", target) and "define void @gather" in ir.replace('"', "")
    assert text_of(spec, "asm", target) == assembly(spec, target)


def test_the_command_prints_one_or_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swiglu"]) == 0 and capsys.readouterr().out == "swiglu swiglu format= cols=\n"
    assert main(["matmul", "rows_few", *FEW, "--isa", "avx2"]) == 0
    assert "vpmaddubsw" in capsys.readouterr().out
    assert main(["matmul", "rows_few", "--ir", *FEW, "--isa", "neon"]) == 0
    assert "llvm.aarch64.neon.sdot" in capsys.readouterr().out
    assert main(["gather", "gather"]) == 2
    assert capsys.readouterr().err == "gather gather takes cols=, got nothing\n"


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "phi4mini.kernels.lang.show", "gather", "gather", "cols=32", "--arguments"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[0] == "   0 x: f32 [_, stride bytes apart; 32]" and not done.stderr
