"""The only part of the language that differs between instruction sets: int8 dot products and parts of
bytes. Results are exact integers on all of them, so the difference cannot show in a kernel's bits.

| set | instruction | what it takes | what has to be done |
|---|---|---|---|
| AVX-512 VNNI | vpdpbusd, 64 bytes | u8 x s8, four products into 32 bits | nothing |
| AVX-VNNI | vpdpbusd, 32 bytes | the same | two halves |
| AVX2 | vpmaddubsw | u8 x s8, two products into 16 bits, saturating | small: sums within 16 bits; else |u - 128| |
| NEON | sdot, 16 bytes | s8 x s8, four products into 32 bits | small: nothing; else u - 128, and 128 s added back |

"small" is a left side below 128, as nibbles are. The 16-lane values of all other operations are split by LLVM.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

from phi4mini.kernels.lang.values import I8, I16, I32, V, Writer, vec


class Dots(Writer):
    """The part of `Kernel` that looks at `isa`: "avx512vnni", "avxvnni", "avx2" or "neon"."""

    isa: str

    @property
    def takes_any_byte(self) -> bool:
        """True if `dot4` takes any u8 at no extra cost, so that weights may stay multiplied by a power of two.

        That saves a shift for every line of upper nibbles; the factor goes into the group's scale, which is exact. (On
        AVX2 two products of 240 x 127 would not fit into 16 bits.)
        """
        return self.isa in ("avx512vnni", "avxvnni")

    def bits_of_bytes(self, line: V, low: int, count: int, in_place: bool = False) -> V:
        """Bits low .. low + count - 1 of every byte: moved down to bit 0, or left in place with the others cleared."""
        if count == 8:
            return line
        if in_place or not low:
            mask = ((1 << count) - 1) << low
            return line & (mask if mask < 128 else mask - 256)
        moved = line >> low
        return moved if low + count == 8 else moved & ((1 << count) - 1)

    def dot4(self, acc: V, u: V, s: V, small: bool = False) -> V:
        """acc i32x16 + sums of four products of u (u8x64) and s (s8x64, never -128), exactly. small: every u is below
        128.
        """
        if self.isa == "avx512vnni":
            f = self.declare("llvm.x86.avx512.vpdpbusd.512", vec(I32), [vec(I32), vec(I8, 64), vec(I8, 64)])
            return V(self, self.b.call(f, [acc.v, u.v, s.v]))
        if self.isa == "avxvnni":
            f = self.declare("llvm.x86.avx512.vpdpbusd.256", vec(I32, 8), [vec(I32, 8), vec(I8, 32), vec(I8, 32)])
            return self._in_parts(2, lambda a, x, y: V(self, self.b.call(f, [a.v, x.v, y.v])), acc, u, s)
        if self.isa == "neon":
            return self._dot4_neon(acc, u, s, small)
        return self._in_parts(2, lambda a, x, y: self._dot4_avx2(a, x, y, small), acc, u, s)

    def dot_runs(self, sums: list[V], count: int, pair: Callable[[int, int], tuple[V, V]], largest: int) -> list[V]:
        """Each of `sums` plus dot4 over its `count` pairs in turn; pair(i, n) is the n-th (u, s) of sum i.

        Written pair by pair across the sums, so that neighbouring instructions do not wait for each other: on Zen 4 a
        vpdpbusd takes 4 cycles and one starts every cycle. No u is above `largest`: AVX2 sums as many products in 16
        bits as that allows, for nibbles eight pairs (15 x 127 x 2 x 8 = 30,480), and widens once.
        """
        step = max(32767 // (2 * 127 * largest), 1) if self.isa == "avx2" else 1
        sums = list(sums)
        for first in range(0, count, step):
            group = range(first, min(first + step, count))
            for i in range(len(sums)):
                pairs = [pair(i, n) for n in group]
                sums[i] = self.dot4(sums[i], *pairs[0], largest < 128) if step == 1 else self._sum_in_16(sums[i], pairs)
        return sums

    def _sum_in_16(self, start: V, pairs: list[tuple[V, V]]) -> V:
        parts = [self._maddubs_halves(*pair) for pair in pairs]
        halves = [functools.reduce(operator.add, half) for half in zip(*parts, strict=True)]
        return start + self.join([self._madd(half) for half in halves])

    def _maddubs_halves(self, u: V, s: V) -> list[V]:
        return [self._maddubs(*half) for half in zip(self._halves(u), self._halves(s), strict=True)]

    def _halves(self, v: V) -> list[V]:
        n = v.type.count // 2
        return [v.lanes(list(range(n))), v.lanes(list(range(n, 2 * n)))]

    def _maddubs(self, u: V, s: V) -> V:
        """Sums of two products u8 x s8 as i16, saturating."""
        f = self.declare("llvm.x86.avx2.pmadd.ub.sw", vec(I16, 16), [vec(I8, 32), vec(I8, 32)])
        return V(self, self.b.call(f, [u.v, s.v]))

    def _madd(self, pairs: V) -> V:
        """Neighbouring i16 added as i32."""
        f = self.declare("llvm.x86.avx2.pmadd.wd", vec(I32, 8), [vec(I16, 16), vec(I16, 16)])
        return V(self, self.b.call(f, [pairs.v, self.const(vec(I16, 16), 1).v]))

    def _in_parts(self, parts: int, f: Callable[[V, V, V], V], acc: V, u: V, s: V) -> V:
        def part(v: V, i: int) -> V:
            n = v.type.count // parts
            return v.lanes(list(range(i * n, (i + 1) * n)))

        return self.join([f(part(acc, i), part(u, i), part(s, i)) for i in range(parts)])

    def _dot4_avx2(self, acc: V, u: V, s: V, small: bool) -> V:
        """maddubs saturates at 16 bits, so a u8 of the full range goes as |u - 128| with its sign moved to s, plus 128
        s: both stay within 2 x 128 x 127 = 32,512.
        """
        if small:
            return acc + self._madd(self._maddubs(u, s))
        sign = self.declare("llvm.x86.avx2.psign.b", vec(I8, 32), [vec(I8, 32), vec(I8, 32)])
        w = u ^ -128
        size = V(self, self.b.call(sign, [w.v, w.v]))
        flipped = V(self, self.b.call(sign, [s.v, w.v]))
        half = self._maddubs(self.const(vec(I8, 32), -128), s)
        return acc + self._madd(self._maddubs(size, flipped)) + self._madd(half)

    def _dot4_neon(self, acc: V, u: V, s: V, small: bool) -> V:
        """sdot is signed x signed: u - 128 fits, and 128 * s comes back through a second sdot."""
        f = self.declare("llvm.aarch64.neon.sdot.v4i32.v16i8", vec(I32, 4), [vec(I32, 4), vec(I8, 16), vec(I8, 16)])

        def sdot(a: V, x: V, y: V) -> V:
            return V(self, self.b.call(f, [a.v, x.v, y.v]))

        def full(a: V, x: V, y: V) -> V:
            half = self.const(vec(I8, 16), 64)
            return sdot(sdot(sdot(a, x ^ -128, y), half, y), half, y)

        return self._in_parts(4, sdot if small else full, acc, u, s)
