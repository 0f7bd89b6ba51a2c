"""Where every bit of a stored matrix lies, as tables: one row of `FORMATS` for each format.

NumPy (matrix.py) and the kernels (kernels/unpack.py) read the same tables, so that a new format is a new row and
nothing else. This file knows no model, no kernel and no file.

Every format cuts a matrix (rows = outputs, cols = inputs) into *strips* of 16 rows, one row a lane of a 512-bit vector,
so that a kernel reads one strip as one stream from front to back. Rows are padded to 16 and cols to a whole superblock,
with zeros.

Dense formats (f32, bf16): strip = [cols][16 rows]. A vector of 16 outputs takes one fma an input.

Block formats: strip = [superblocks]; superblock = header, then lines of 64 bytes. A line holds 16 rows x 4 consecutive
inputs, a *quad*: the natural unit of one VNNI or sdot lane (u8 weight x s8 activation, four products summed into an
int32). Weights are unsigned; where a format is symmetric its zero point is folded in through the sum of the
activations, which costs nothing.

64 inputs, a *step*, are 16 quads. `planes` says how the bits of an integer are spread: (4,) is a half byte, (2, 1) is
two bits in one set of lines and the third bit in another. A plane of n bits takes 2n lines a step; its first lines
hold quads 0, 1, .. in their lowest n bits, the next quads in the next n bits, and so on:

    (8,)     line i         quad i
    (4,)     line i < 8     quad i in bits 0-3, quad i + 8 in bits 4-7
    (2, 1)   line i < 4     bits 0 and 1 of quads i, i + 4, i + 8, i + 12
             line 4 + i     bit 2 of quads i, i + 2, .. i + 14

    one-level header   superblock = 64 inputs:   scale f16 [2 groups][16 rows], minimum f16 [2][16] where there is one
    two-level header   superblock = 256 inputs:  d f16 [16], dmin f16 [16], scale (u8 or s8) [groups][16],
                                                 minimum u8 [groups][16] where there is one

    value of a weight  one level:   scale * (q - zero) + minimum
                       two levels:  d * scale * (q - zero) - dmin * minimum

| format | bits a weight | group | activations | carries exactly |
|---|---|---|---|---|
| q4  | 4.5   | 32 | 32 | GGUF Q4_0 |
| q4m | 5     | 32 | 32 | GGUF Q4_1 |
| q5m | 9     | 32 | 32 | GGUF Q5_1 (q4m's header, a byte a weight) |
| q8  | 8.5   | 32 | 16 | GGUF Q8_0, Q5_0, IQ4_NL (the integers its table holds) |
| q2k | 9.125 | 16 | 16 | GGUF Q2_K |
| q4k | 4.625 | 32 | 32 | GGUF Q4_K (its own 6-bit scales, widened to bytes) |
| q5k | 8.625 | 32 | 32 | GGUF Q5_K |
| q6k | 8.625 | 16 | 16 | GGUF Q6_K, Q3_K |
| q8k | 8.375 | 32 | 16 | GGUF IQ4_XS (the integers its table holds) |

`activations` is the number of activations that share a scale when they are multiplied by the format. With 8-bit weights
the rounding of activations is the larger error, and half the group leaves little more than half of it (KL 0.0024 to
0.0014 on the demo model); with 4-bit weights speed comes first, and 32 is what others use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from phi4mini.errors import BadInput

LANES = 16  # rows of a strip: the logical vector width on every CPU
LINE = 64  # bytes of a line: 16 rows x 4 inputs
STEP = 64  # inputs whose lines form a unit: the kernels unpack a step at a time
QUADS = STEP // 4  # quads of a step


@dataclass(frozen=True)
class Field:
    """A row of the table of a step: some bits of a range of quads, and where they lie.

    For i < `width`: bits `low` .. `low + count - 1` of every byte of line `line + i` are bits `to` .. `to + count - 1`
    of the integers of quad `quad + i`.
    """

    quad: int
    line: int
    width: int
    low: int
    count: int
    to: int

    @cached_property
    def mask(self) -> int:
        """As many ones as there are bits."""
        return (1 << self.count) - 1

    @cached_property
    def quads(self) -> slice:
        return slice(self.quad, self.quad + self.width)

    @cached_property
    def lines(self) -> slice:
        return slice(self.line, self.line + self.width)

    def line_of(self, quad: int) -> int | None:
        """The line that holds these bits of a quad, None if the field does not speak for the quad."""
        i = quad - self.quad
        return self.line + i if 0 <= i < self.width else None


@dataclass(frozen=True)
class HeaderField:
    """A row of the table of a header: an array of `Blocks`, stored as [count][16 rows] in bytes `at` .. `end - 1`."""

    name: str  # of the array in `Blocks`
    dtype: str  # as NumPy writes it: f2, u1, i1
    count: int  # numbers a superblock
    at: int
    end: int

    @property
    def width(self) -> int:
        """Bytes of one number for all 16 rows."""
        return (self.end - self.at) // self.count


@dataclass(frozen=True)
class Format:
    """One way to store a matrix. Block formats store integers in groups that share a scale, the others floats."""

    name: str
    bits: int
    group: int = 1  # inputs that share one scale
    superblock: int = 1  # inputs that one header serves
    two_level: bool = False
    minimum: bool = False
    zero: int = 0  # the integer that means 0.0 (before a minimum)
    signed_scale: bool = False  # second-level scales are s8 instead of u8
    top: int = 0  # the largest integer where it is less than the bits allow
    act_group: int = 32  # activations that share one scale when a matrix of this format is multiplied
    planes: tuple[int, ...] = ()  # bits of an integer that lie together, lowest first; () is one plane of all bits

    def __post_init__(self) -> None:
        if self.block:
            self._check()

    def _check(self) -> None:
        """What kernels take for granted of a block format. Raises `BadInput`."""
        planes = self.planes or (self.bits,)
        if sum(planes) != self.bits or not set(planes) <= {1, 2, 4, 8} or self.bits > 8:
            raise BadInput(f"format {self.name}: planes of 1, 2, 4 or 8 bits must add up to {self.bits} of at most 8")
        if self.superblock % STEP or STEP % self.group:
            raise BadInput(f"format {self.name}: groups must fill {STEP} inputs, and these superblocks")
        if self.act_group not in (16, 32) or self.group % self.act_group:
            raise BadInput(f"format {self.name}: activations share scales by 16 or 32, and no group may cut them")
        if not 0 <= self.zero <= self.largest < 1 << self.bits:
            raise BadInput(f"format {self.name}: zero and top must be integers of {self.bits} bits")

    @property
    def block(self) -> bool:
        return self.superblock > 1

    @property
    def largest(self) -> int:
        """The largest stored integer."""
        return self.top or (1 << self.bits) - 1

    @property
    def run(self) -> int:
        """Inputs whose products are summed as integers before a scale is needed."""
        return min(self.group, self.act_group)

    @property
    def groups(self) -> int:
        """Groups of one superblock."""
        return self.superblock // self.group

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The table of a step of a block format: which bits of which line hold which bits of which quad."""
        found: list[Field] = []
        line = to = 0
        for count in self.planes or (self.bits,):
            width = QUADS * count // 8
            found += [Field(i * width, line, width, i * count, count, to) for i in range(8 // count)]
            line, to = line + width, to + count
        return tuple(found)

    @property
    def lines(self) -> int:
        """Lines of one step."""
        return QUADS * self.bits // 8

    def factor(self, group: int) -> int:
        """What the integers of a group of a step are multiplied by if their bits stay where they lie in their bytes: a
        power of two; 1 if the group's bits do not lie in one place.
        """
        first, end = group * self.group // 4, (group + 1) * self.group // 4
        places = [f for f in self.fields if f.quad < end and first < f.quad + f.width]
        return 1 << places[0].low if len({f.low for f in places}) == 1 and places[0].count == self.bits else 1

    @cached_property
    def header(self) -> dict[str, HeaderField]:
        """The table of a block format's header, by name, in the order of the bytes; half floats come first."""
        rows = [("d", "f2", 1), ("dmin", "f2", 1)] if self.two_level else []
        small = ("i1" if self.signed_scale else "u1") if self.two_level else "f2"
        rows.append(("scale", small, self.groups))
        if self.minimum:
            rows.append(("minimum", "u1" if self.two_level else "f2", self.groups))
        found: dict[str, HeaderField] = {}
        at = 0
        for name, dtype, count in rows:
            end = at + count * LANES * int(dtype[1])
            found[name] = HeaderField(name, dtype, count, at, end)
            at = end
        return found

    @cached_property
    def header_bytes(self) -> int:
        return max(field.end for field in self.header.values()) if self.block else 0

    @property
    def half_bytes(self) -> int:
        """Bytes of a header that are half floats, its first ones."""
        return max((field.end for field in self.header.values() if field.dtype == "f2"), default=0) if self.block else 0

    @property
    def superblock_bytes(self) -> int:
        """Bytes of one superblock of one strip (for dense formats: of one input)."""
        return self.header_bytes + LANES * self.superblock * self.bits // 8

    @property
    def bits_a_weight(self) -> float:
        """Bits that one weight takes, its share of the header included."""
        return 8 * self.superblock_bytes / (LANES * self.superblock)

    def padded(self, cols: int) -> int:
        """Inputs of a row after padding to whole superblocks."""
        return -(-cols // self.superblock) * self.superblock

    def strip_bytes(self, cols: int) -> int:
        return self.padded(cols) // self.superblock * self.superblock_bytes

    def matrix_bytes(self, rows: int, cols: int) -> int:
        return -(-rows // LANES) * self.strip_bytes(cols)


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("f32", 32),
        Format("bf16", 16),
        Format("q8", 8, group=32, superblock=64, zero=128, act_group=16),
        Format("q4", 4, group=32, superblock=64, zero=8),
        Format("q4m", 4, group=32, superblock=64, minimum=True),
        Format("q5m", 8, group=32, superblock=64, minimum=True, top=31),
        Format("q2k", 8, group=16, superblock=256, two_level=True, minimum=True, top=3, act_group=16),
        Format("q4k", 4, group=32, superblock=256, two_level=True, minimum=True),
        Format("q5k", 8, group=32, superblock=256, two_level=True, minimum=True, top=31),
        Format("q6k", 8, group=16, superblock=256, two_level=True, zero=32, signed_scale=True, top=63, act_group=16),
        Format("q8k", 8, group=32, superblock=256, two_level=True, zero=128, signed_scale=True, act_group=16),
    )
}
