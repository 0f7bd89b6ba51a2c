"""What differs between instruction sets: int8 dot products and nibbles, exact integers on all of them.

AVX-512 VNNI and AVX-VNNI have u8 x s8 with 32-bit sums. AVX2 sums pairs in 16 bits, which saturate; NEON's sdot is
signed x signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from llvmlite import ir

from phi4mini.kernels.values import I8, I16, I32, V, vec

if TYPE_CHECKING:
    from phi4mini.kernels.lang import Kernel


class Dots:
    """The part of `Kernel` that looks at `isa`: "avx512vnni", "avxvnni", "avx2" or "neon"."""

    isa: str
    b: ir.IRBuilder
    module: ir.Module

    @property
    def _kernel(self) -> Kernel:
        return cast("Kernel", self)

    def const(self, type: ir.Type, value: Any) -> V:
        """A number, or a list of them one a lane, as a constant of an IR type."""
        if isinstance(type, ir.VectorType):
            values = value if isinstance(value, list | tuple) else [value] * type.count
            return V(self._kernel, ir.Constant(type, [ir.Constant(type.element, x) for x in values]))
        return V(self._kernel, ir.Constant(type, value))

    def declare(self, name: str, result: ir.Type, args: list[ir.Type]) -> ir.Function:
        """An external function, declared once a module."""
        found = self.module.globals.get(name)
        return found or ir.Function(self.module, ir.FunctionType(result, args), name)

    @property
    def high_factor(self) -> int:
        """What `high_nibble` multiplies its result by."""
        return 16 if self.isa in ("avx512vnni", "avxvnni") else 1

    def low_nibble(self, line: V) -> V:
        return line & 15

    def high_nibble(self, line: V) -> V:
        """Upper nibbles times `high_factor`: a mask where the dot product can take 240, else a shift."""
        return line & -16 if self.high_factor == 16 else line >> 4

    def dot4(self, acc: V, u: V, s: V, small: bool = False) -> V:
        """acc i32x16 + sums of four products of u (u8x64) and s (s8x64, never -128), exactly. small: every u is below
        128.
        """
        if self.isa == "avx512vnni":
            f = self.declare("llvm.x86.avx512.vpdpbusd.512", vec(I32), [vec(I32), vec(I8, 64), vec(I8, 64)])
            return V(self._kernel, self.b.call(f, [acc.v, u.v, s.v]))
        if self.isa == "avxvnni":
            f = self.declare("llvm.x86.avx512.vpdpbusd.256", vec(I32, 8), [vec(I32, 8), vec(I8, 32), vec(I8, 32)])
            return self._in_parts(2, lambda a, x, y: V(self._kernel, self.b.call(f, [a.v, x.v, y.v])), acc, u, s)
        if self.isa == "neon":
            return self._dot4_neon(acc, u, s, small)
        return self._in_parts(2, lambda a, x, y: self._dot4_avx2(a, x, y, small), acc, u, s)

    def _in_parts(self, parts: int, f: Callable[[V, V, V], V], acc: V, u: V, s: V) -> V:
        def part(v: V, i: int) -> V:
            n = v.type.count // parts
            return v.lanes(list(range(i * n, (i + 1) * n)))

        return self.join([f(part(acc, i), part(u, i), part(s, i)) for i in range(parts)])

    def join(self, parts: list[V]) -> V:
        """Vectors of equal length, end to end."""
        while len(parts) > 1:
            n = parts[0].type.count
            mask = ir.Constant(vec(I32, 2 * n), list(range(2 * n)))
            parts = [
                V(self._kernel, self.b.shuffle_vector(a.v, b.v, mask))
                for a, b in zip(parts[::2], parts[1::2], strict=True)
            ]
        return parts[0]

    def _dot4_avx2(self, acc: V, u: V, s: V, small: bool) -> V:
        """maddubs saturates at 16 bits, so a full-range u8 goes as |u - 128| with the sign moved to s, plus 128 * s."""
        maddubs = self.declare("llvm.x86.avx2.pmadd.ub.sw", vec(I16, 16), [vec(I8, 32), vec(I8, 32)])
        madd = self.declare("llvm.x86.avx2.pmadd.wd", vec(I32, 8), [vec(I16, 16), vec(I16, 16)])
        ones = self.const(vec(I16, 16), 1)

        def pairs(a: V, b: V) -> V:
            return V(self._kernel, self.b.call(madd, [self.b.call(maddubs, [a.v, b.v]), ones.v]))

        if small:
            return acc + pairs(u, s)
        sign = self.declare("llvm.x86.avx2.psign.b", vec(I8, 32), [vec(I8, 32), vec(I8, 32)])
        w = u ^ -128
        size = V(self._kernel, self.b.call(sign, [w.v, w.v]))
        flipped = V(self._kernel, self.b.call(sign, [s.v, w.v]))
        return acc + pairs(size, flipped) + pairs(self.const(vec(I8, 32), -128), s)

    def _dot4_neon(self, acc: V, u: V, s: V, small: bool) -> V:
        """sdot is signed x signed: u - 128 fits, and 128 * s comes back through a second sdot."""
        f = self.declare("llvm.aarch64.neon.sdot.v4i32.v16i8", vec(I32, 4), [vec(I32, 4), vec(I8, 16), vec(I8, 16)])

        def sdot(a: V, x: V, y: V) -> V:
            return V(self._kernel, self.b.call(f, [a.v, x.v, y.v]))

        def full(a: V, x: V, y: V) -> V:
            half = self.const(vec(I8, 16), 64)
            return sdot(sdot(sdot(a, x ^ -128, y), half, y), half, y)

        return self._in_parts(4, sdot if small else full, acc, u, s)
