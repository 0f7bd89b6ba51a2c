"""A matrix, activations and their product by any of the matmul kernels: what its tests share.

The error bound. An output is a chain of n fused multiply-adds (one a run of inputs, two where a format has a minimum;
one an input for dense formats) over terms that are products of at most three exact or once-rounded factors. Each fma
rounds once, each term's factor (scale times activation scale, or activation sum) once more, so (Higham, Accuracy and
Stability of Numerical Algorithms)

    |got - exact| <= gamma(n + 1) * (|residual| + sum of |terms|),    gamma(n) = n u / (1 - n u),  u = 2^-24

Integer sums are exact: at most 32 x 255 x 127 x 16 < 2^24.
"""

from __future__ import annotations

import numpy as np

from phi4mini.formats.format_table import FORMATS, LANES
from phi4mini.formats.matrix import pack_blocks, pack_dense
from phi4mini.kernels import activations, matmul, matmul_dense
from phi4mini.kernels.lang.kernel import Spec
from phi4mini.kernels.threads.pool import Call, aligned
from tests import tiny
from tests.kernels.harness import fitted, gamma, run, sink, word

STRIDE = 1 << 17  # bytes of one thread's scratch


class Case:
    """Random weights (outputs, cols) in a format, and `rows` rows of activations as that format reads them.

    `weights` and `activations` are float64 and exactly what the stored bytes mean. `extreme`: every integer weight is
    the largest or the smallest of its format and every integer activation 127 or -127, in runs of one sign, so that a
    sum in too few bits would overflow.
    """

    def __init__(self, format: str, outputs: int, cols: int, rows: int, seed: int = 0, extreme: bool = False) -> None:
        rng = np.random.default_rng([seed, outputs, cols])
        f = self.format = FORMATS[format]
        self.outputs, self.cols, self.rows = outputs, cols, rows
        values = (rng.standard_normal((outputs, cols)) * np.exp(rng.standard_normal((outputs, 1)))).astype(np.float32)
        if f.block:
            self.parts = tiny.parts(values, f, rng)
            if extreme:
                self.parts.q[:] = np.where(np.arange(outputs) % 3, f.largest, 0)[:, None]
            self.weights, self.minimum = tiny.exact(self.parts, f)
            self.matrix = tiny.stored(pack_blocks(self.parts, f), f, outputs, cols)
        else:
            self.matrix = tiny.stored(pack_dense(values, f), f, outputs, cols)
            self.weights = self.matrix.dequantize().astype(np.float64)
        x = (rng.standard_normal((rows, cols)) * np.exp(rng.standard_normal((rows, cols)))).astype(np.float32)
        if extreme:
            x = np.where(np.arange(cols) // 32 * (1 + np.arange(rows)[:, None]) % 2, -3.5, 3.5).astype(np.float32)
        self.residual = rng.standard_normal((rows, outputs)).astype(np.float32)
        self.sink = sink(format, rows, cols)
        run(Call(activations.quantize(format=format, cols=cols), x=fitted(x), rows=word(rows), **self.sink))
        self.integers = self.sink["q"][:rows, :cols].astype(np.float64)
        scale = (
            np.repeat(self.sink["scale"][:rows].astype(np.float64), f.act_group, axis=1)[:, :cols] if f.block else 1.0
        )
        self.activations = self.integers * scale

    def spec(self, rows: int, residual: bool, panel: int | None = None) -> Spec:
        strips, name = len(self.matrix.strips()), self.format.name
        if panel:
            wide, cols = matmul.tile_strips(strips), self.format.padded(self.cols)
            return matmul.rows_many(format=name, wide=wide, cols=cols, residual=residual, panel=panel)
        if self.format.block:
            return matmul.matmul(name, rows, strips, self.cols, residual)
        wide = matmul.tile_strips(strips)
        tall = matmul_dense.dense_tall(rows)
        return matmul_dense.dense(format=name, tall=tall, wide=wide, cols=self.cols, residual=residual)

    def product(
        self, rows: int, first: int = 0, residual: bool = False, threads: int = 1, panel: int | None = None
    ) -> np.ndarray:
        """Rows first .. first + rows - 1 through the kernel for that many rows, or `rows_many` with a panel: f32 (rows,
        outputs).
        """
        strips = len(self.matrix.strips())
        width = strips * LANES
        out = fitted(np.zeros((rows, width), np.float32))
        out[:rows, : self.outputs] = self.residual[first : first + rows]
        if not residual:
            out[:rows] = np.nan  # what lies there must not matter
        part = {name: a[first:] for name, a in self.sink.items()}
        common = {"weights": self.matrix.data, "out": out, "strips": strips, "out_stride": out.strides[0]}
        spec = self.spec(rows, residual, panel)
        if not self.format.block:
            call = Call(spec, **common, x=part["q"], rows=word(rows), ticket=word(0))
        elif rows <= matmul.FEW and not panel:
            call = Call(spec, **common, **part)
        else:
            scratch = aligned(STRIDE * threads, np.uint8)
            call = Call(spec, **common, **part, rows=word(rows), ticket=word(0), scratch=scratch, scratch_stride=STRIDE)
        run(call, threads=threads)
        return out[:rows, : self.outputs].copy()


def bound(c: Case, residual: bool) -> np.ndarray:
    """The largest error of each output, (rows, outputs)."""
    f = c.format
    run = f.run if f.block else 1
    pad = ((0, 0), (0, f.padded(c.cols) - c.cols))
    x = np.pad(c.activations, pad).reshape(c.rows, -1, run)
    low = np.pad(c.minimum, pad) if f.block else np.zeros_like(c.weights)
    w = (np.pad(c.weights, pad) - low).reshape(c.outputs, -1, run)
    terms = np.abs(np.einsum("mgk,ngk->gmn", x, w)).sum(0)
    terms += np.abs(np.einsum("mgk,ngk->gmn", x, low.reshape(w.shape))).sum(0)
    chain = w.shape[1] * (2 if f.minimum else 1)
    return gamma(chain + 1) * (terms + (np.abs(c.residual) if residual else 0))
