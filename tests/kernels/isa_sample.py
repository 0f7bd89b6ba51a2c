"""A sample of kernels as hashes of their results, to be taken under one instruction set and another.

PHI4MINI_ISA=avx2 python -m tests.kernels.isa_sample
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.lang.build import Library
from phi4mini.kernels.lang.kernel import I8, I32, Kernel, kernel, vec
from phi4mini.kernels.threads.pool import Call
from tests.kernels.matmuls import Case


@kernel("acc:i32[] u:u8[] s:i8[] out:i32[]")
def dot(k: Kernel, small: bool) -> None:
    """out = acc + the sums of four products."""
    acc = k.load(k.acc, vec(I32))
    k.store(k.out, k.dot4(acc, k.load(k.u, vec(I8, 64)), k.load(k.s, vec(I8, 64)), small=small))


def dot_cases(small: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Accumulators, u8 and s8 of one call: the corners, then a random sample."""
    top = 127 if small else 255
    for u in (0, 1, 15, 127, *(() if small else (128, 129, 240, 255))):
        for s in (-127, -1, 0, 1, 127):
            yield np.arange(16, dtype=np.int32) - 8, np.full(64, u, np.uint8), np.full(64, s, np.int8)
    rng = np.random.default_rng(1)
    for _ in range(200):
        acc = rng.integers(-(1 << 30), 1 << 30, 16).astype(np.int32)
        yield acc, rng.integers(0, top + 1, 64).astype(np.uint8), rng.integers(-127, 128, 64).astype(np.int8)


def dots(library: Library, small: bool) -> tuple[np.ndarray, np.ndarray]:
    """All cases by the kernel and by NumPy: i32 (cases, 16) each."""
    spec = dot(small=small)
    function = library.function(spec)
    got, want = [], []
    for acc, u, s in dot_cases(small):
        out = np.zeros(16, np.int32)
        call = Call(spec, acc=acc, u=u, s=s, out=out)  # kept: the kernel reads its block
        function(call.block.ctypes.data, 0, 1)
        got.append(out)
        want.append((acc + (u.astype(np.int64) * s).reshape(16, 4).sum(1)).astype(np.int32))
    return np.array(got), np.array(want)


def sample() -> dict[str, str]:
    """Hashes by name."""
    results: dict[str, str] = {"isa": cpu().isa}
    with tempfile.TemporaryDirectory() as folder:
        library = Library(folder=Path(folder))
        for small in (True, False):
            results[f"dot4 {small}"], results[f"dot4 {small} by NumPy"] = map(digest, dots(library, small))
    for name in FORMATS:
        case = Case(name, 256, 512, 15)
        results[name] = digest(np.concatenate([case.product(13, residual=True), case.product(1, 13)]))
        extreme = Case(name, 256, 512, 13, extreme=True)
        results[f"{name}, extreme"] = digest(np.concatenate([extreme.product(13, residual=True), extreme.product(1)]))
    return results


def digest(a: np.ndarray) -> str:
    return hashlib.sha256(a.tobytes()).hexdigest()


if __name__ == "__main__":
    print(json.dumps(sample()))
