"""How a test runs a kernel: pools by number of threads, arrays as kernels want them, tolerances by derivation."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

from phi4mini.formats.format_table import FORMATS, STEP
from phi4mini.kernels import cpu
from phi4mini.kernels.threads.pool import Call, Pool, Program, aligned

U = 2.0**-24  # the largest relative error of one f32 rounding
PAD = 12  # rows past the last that a register tile may compute
ROOT = Path(__file__).resolve().parents[2]


def gamma(n: int) -> float:
    """The largest relative error of a product of n roundings (Higham)."""
    return n * U / (1 - n * U)


@cache
def pool(threads: int) -> Pool:
    """A pool that stays for the session; more threads than cores are fine, only slow."""
    return Pool(threads)


def run(*calls: Call, threads: int = 1) -> None:
    """Run calls in their order as one program."""
    pool(threads).run(Program(calls))


def word(value: int) -> np.ndarray:
    """A number that kernels read from memory: i64 on a cache line of its own."""
    out = aligned(8, np.int64)
    out[0] = value
    return out


def sink(format: str, rows: int, cols: int) -> dict[str, np.ndarray]:
    """Activations as a matrix of `format` with `cols` inputs reads them, zeroed, with rows to spare."""
    f = FORMATS[format]
    width, rows = f.padded(cols), rows + PAD
    few = rows if f.block else 0
    return {
        "q": aligned((rows, width), np.int8 if f.block else np.float32),
        "scale": aligned((few, width // f.act_group)),
        "start": aligned((few, width // f.run), np.int32),
        "sums": aligned((few, width // f.act_group)),
    }


def starts(q: np.ndarray, format: str) -> np.ndarray:
    """The start values that belong to int8 activations (rows, width): i32, one a run of inputs."""
    f = FORMATS[format]
    sums = q.reshape(len(q), -1, f.run).astype(np.int32).sum(2)
    in_place = cpu.cpu().isa in ("avx512vnni", "avxvnni")  # there upper bits of bytes are not shifted down
    factors = [f.factor(run * f.run // f.group) if in_place else 1 for run in range(STEP // f.run)]
    return sums * (-f.zero * np.resize(factors, sums.shape[1]))


def fitted(values: np.ndarray, pad: int = PAD) -> np.ndarray:
    """A copy that begins on a cache line, with zeroed rows to spare."""
    out = aligned((len(values) + pad, *values.shape[1:]), values.dtype)
    out[: len(values)] = values
    return out


def apart(values: np.ndarray, pad: int = PAD) -> np.ndarray:
    """As fitted, with 24 NaN between the rows of (rows, cols): a view, whose strides[0] is what kernels must use."""
    out = aligned((len(values) + pad, values.shape[1] + 24), values.dtype)
    out[:] = np.nan
    inside = out[:, : values.shape[1]]
    inside[:] = 0
    inside[: len(values)] = values
    return inside


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, NaN and the sign of zero included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def runnable_isas() -> list[str]:
    """The instruction sets that kernels know and this CPU has."""
    import llvmlite.binding as llvm

    present = {name for name, on in llvm.get_host_cpu_features().items() if on}
    return [isa for isa, needed in cpu.ISAS.items() if needed <= present]


def under_isa(isa: str, module: str) -> str:
    """What `python -m module` prints with kernels held to an instruction set."""
    environment = {**os.environ, "PHI4MINI_ISA": isa}
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(f"{module} under {isa}: {done.stderr[-2000:]}")
    return done.stdout
