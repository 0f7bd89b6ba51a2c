"""out[m] = residual[m] + W x[m]: one definition, two ways through memory, equal bits.

For each output the sum goes over runs of inputs in ascending order, starting from the residual (or zero):

    I   = sum over a run of q * a                     exact int32; q unsigned, a int8, zero point in the start value
    acc = fma(float(I), scale_w * scale_a, acc)       a run is what shares one scale_w and one scale_a: 32 inputs, or 16
    acc = fma(minimum_w, scale_a * sum(a), acc)       formats with a minimum

There are two kernels because two things bind. `rows_few` (1 to 8 rows: decode, a few streams, a guess to verify) reads
the weights once and unpacks them in registers. One row waits for memory: a line of q4 holds 128 weights, which are two
dot products, and Zen 4 computes those in 2 cycles while memory needs about 12 to deliver the next line. So up to four
rows cost little more than one, and eight wait for the dot units. `rows_many` (prefill) unpacks a panel of weights into
the core's L1 once and runs a register tile over all rows: bound by the dot units. Two scales a group of 32 cost a
product and a fused add on the same two ports as the dot products, so 80 % of the peak is the roof (Zen 4): eight rows
reach 79 % in cache and 66 to 74 in the model, a tile over a panel 77.

Each output is one chain of fma, runs in ascending order, in both kernels. That chain is why the number of rows never
changes a bit: a decoded token, a verified guess and a token of a prompt get the same logits.

unpack.py reads the layout of a format; nothing here depends on where its bits lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from phi4mini.formats.format_table import FORMATS, LANES, LINE, QUADS, STEP, Format
from phi4mini.kernels.activations import SINK_FIELDS, sink_names
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.lang.kernel import F32, I8, I32, I64, Kernel, Spec, V, Var, kernel, vec
from phi4mini.kernels.unpack import factor, first_level, group_scale, integers

# Rows of the kernel for few: in q4, 8 float accumulators and, for the two runs of 64 inputs, 16 integer ones fill 24 of
# 32 vector registers; weights and scales take the rest.
FEW = 8
SMALL_PANEL = 256  # inputs unpacked at once: 64 outputs x 256 = 16 KB, half of the smallest L1
_LARGE_L1 = 48 << 10
_PARTS, WORTH_CUTTING = 4, 32  # parts of a last tile, and turns of rows that pay for unpacking it once a part


def matmul(format: str, rows: int, strips: int, cols: int, residual: bool) -> Spec:
    """The kernel for `rows` rows of activations and a block-format matrix of `strips` strips."""
    if rows <= FEW:
        return rows_few(format=format, rows=rows, cols=FORMATS[format].padded(cols), residual=residual)
    wide, cols = tile_strips(strips), FORMATS[format].padded(cols)
    return rows_many(format=format, wide=wide, cols=cols, residual=residual, panel=panel_inputs())


def panel_inputs() -> int:
    """Inputs of a panel: as many as fill half of an L1 of 32 KB, or two thirds of one of 48.

    A longer panel stores and loads partial sums less often, a shorter one leaves room for the rows' activations. On Zen
    4 (32 KB) panels of 256, 512 and 1,024 gave 362, 349 and 350 GOPS; on Zen 5 (48 KB) 512 gave 8 % over 256, when
    partial sums were not yet fetched ahead (`_tile`).
    """
    return 2 * SMALL_PANEL if cpu().l1 >= _LARGE_L1 else SMALL_PANEL


def tile_strips(strips: int) -> int:
    """Strips of one register tile: as many as divide the matrix evenly, at most four."""
    return next(n for n in (4, 3, 2, 1) if strips % n == 0)


def tile_rows(wide: int) -> int:
    """Rows of one register tile: 12 integer and 12 float accumulators are what 32 registers hold.

    With twice as many, LLVM spills inside the hot loop and speed halves. Three rows x four strips is the best shape of
    twelve: 362 GOPS against 350, 347 and 339 for 4 x 3, 6 x 2 and 12 x 1 (Zen 4, one thread).
    """
    return 12 // wide


# few rows ------------------------------------------------------------------------------------------------------------


@kernel(
    "weights:u8[strips * strip_bytes] " + SINK_FIELDS + " out:f32[rows:out_stride, strips * 16] "
    "strips:int out_stride:int",
    sink_names,
)
def rows_few(k: Kernel, format: str, rows: int, cols: int, residual: bool) -> None:
    """Weights read once, `rows` accumulators a strip. q s8 (rows, cols); scale, sums f32 and start i32: activations.py.

    Each thread has its fixed part of the strips, in one stream. Tickets gained nothing here: a decode pass with a busy
    neighbour ran at 7.4 tokens a second with them and 7.7 without.
    """
    x = Activations(FORMATS[format], cols, k.q, k.scale, k.start, k.sums)
    first, end = k.share(k.strips)
    for strip in k.span(first, end):
        one_strip(k, x, k.weights, strip, k.out.at(strip * LINE), rows, residual)


@dataclass(frozen=True)
class Activations:
    """Activations as a matrix of a format with (padded) `cols` inputs reads them: where each array of a sink begins."""

    format: Format
    cols: int
    q: V
    scale: V
    start: V
    sums: V

    def row(self, m: V) -> Activations:
        """The same arrays from row m on."""
        f, cols = self.format, self.cols
        groups, runs = m * (cols // f.act_group * 4), m * (cols // f.run * 4)
        arrays = (self.q.at(m * cols), self.scale.at(groups), self.start.at(runs), self.sums.at(groups))
        return Activations(f, cols, *arrays)


def one_strip(k: Kernel, x: Activations, weights: V, strip: V, out: V, rows: int, residual: bool) -> None:
    """One strip times the first `rows` of x, into lines at `out`, k.out_stride bytes apart.

    One strip at a time: two are two streams from memory, which one thread read at 14 to 24 GB/s instead of 28 to 33
    (Zen 4), and two to four abreast gained nothing for eight rows either (46 to 53 ns a superblock, one: 45.6).
    """
    f, cols = x.format, x.cols
    base = weights.at(strip * f.strip_bytes(cols))
    acc = [k.var(vec(F32), k.load_float(out.at(k.out_stride * m)) if residual else 0.0) for m in range(rows)]
    for block in k.span(0, cols // f.superblock):
        _superblock(k, x, base.at(block * f.superblock_bytes), block, acc)
    for m in range(rows):
        k.store(out.at(k.out_stride * m), acc[m].get())


def _superblock(k: Kernel, x: Activations, header: V, block: V, acc: list[Var]) -> None:
    """All groups of one superblock of one strip, for all rows."""
    f, cols, rows = x.format, x.cols, len(acc)
    levels = first_level(k, f, header)
    # Into L2, 2 KB ahead for one row, where no distance differs from another beyond noise, and 8 KB for more: two rows
    # went from 23.1 to 30.5 GB/s. Into L1, two superblocks of q4 ahead.
    ahead, near = (max(1, n // f.superblock_bytes) * f.superblock_bytes for n in (2048 if rows == 1 else 8192, 1152))
    for step in k.span(0, f.superblock // STEP):
        lines = header.at(step * (f.lines * LINE) + f.header_bytes)
        for i in range(f.lines + (1 if f.superblock == STEP else 0)):
            k.prefetch(lines.at(ahead + (i - 1) * LINE))
            if rows >= 4:  # busy enough to wait for L2 as well: eight rows 632 to 664 GOPS; one row lost 7 % by it
                k.prefetch(lines.at(near + (i - 1) * LINE), locality=3)
        unit = block * (f.superblock // STEP) + step  # counts steps of the whole row
        totals = _dots(k, x, lines, unit, rows)
        for g in range(STEP // f.group):
            group = step * (STEP // f.group) + g
            scale, minimum = group_scale(k, f, header, levels, group, factor(k, f, g))
            for r in range(g * f.group // f.run, (g + 1) * f.group // f.run):
                for m in range(rows):
                    around = (unit * (STEP // f.act_group) + r * f.run // f.act_group) * 4
                    around = around + m * (cols // f.act_group * 4)
                    _accumulate(k, acc[m], totals[r][m], scale, x.scale.at(around), minimum, x.sums.at(around))


def _dots(k: Kernel, x: Activations, lines: V, unit: V, rows: int) -> list[list[V]]:
    """Integer sums of the runs in a step: [run][row] of i32x16."""
    f, cols = x.format, x.cols
    inputs = [x.q.at(unit * STEP + m * cols) for m in range(rows)]
    weights = dict(integers(k, f, lines))

    def pair(cell: int, n: int) -> tuple[V, V]:
        quad = cell // rows * (f.run // 4) + n
        return weights[quad], k.spread4(inputs[cell % rows].at(quad * 4))

    starts = [_start(k, x, unit * (STEP // f.run) + r, m) for r in range(STEP // f.run) for m in range(rows)]
    sums = k.dot_runs(starts, f.run // 4, pair, f.largest)
    return [sums[i : i + rows] for i in range(0, len(sums), rows)]


# many rows -----------------------------------------------------------------------------------------------------------


@kernel(
    "weights:u8[strips * strip_bytes] " + SINK_FIELDS + " out:f32[rows:out_stride, strips * 16] "
    "strips:int out_stride:int rows:i64[1] ticket:i64[1] scratch:u8[] scratch_stride:int",
    sink_names,
)
def rows_many(k: Kernel, format: str, wide: int, cols: int, residual: bool, panel: int = SMALL_PANEL) -> None:
    """Tiles of 64 outputs handed out by ticket, the last ones in parts; rows (i64 in memory) are computed `tall` at a
    time, past the last one into the padding.

    Tickets, because a tile takes long enough to lose a core meanwhile: with a busy neighbour 76 tokens of a prompt a
    second against 53 with fixed parts, and no loss without one (102.7 against 100.6).
    """
    f = FORMATS[format]
    tall = tile_rows(wide)
    at = _Panel(k.scratch.at(k.tid * k.scratch_stride), panel, wide)
    work = _Work(k, k.strips // wide, (k.load(k.rows, I64, align=8) + (tall - 1)) // tall)
    following = k.var(I64, k.fetch_add(k.ticket, 1))
    with k.until() as leave:
        item = following.get()
        leave(item >= work.items)
        following.set(k.fetch_add(k.ticket, 1))  # drawn early, so that the next tile's first panel can be fetched
        tile, (start, end) = work.tile(item), work.turns_of(item)
        base = k.weights.at(tile * (wide * f.strip_bytes(cols)))
        next_tile = k.weights.at(work.tile(k.minimum(following.get(), work.items - 1)) * (wide * f.strip_bytes(cols)))
        for first in k.span(0, cols, panel):
            width = k.minimum(k.like(cols, first) - first, panel) if cols % panel else k.like(panel, first)
            _unpack_panel(k, f, base, first, width, at, cols)
            after = base.at((first + panel) // f.superblock * f.superblock_bytes)
            coming = k.select(first + panel < cols, after, next_tile)
            for turn in k.span(start, end):
                _fetch_panel(k, f, coming, turn - start, end - start, at, cols)
                out = k.out.at(tile * (wide * LINE) + turn * tall * k.out_stride)
                _tile(k, f, at, first, width, turn * tall, out, tall, cols, residual)


class _Work:
    """What tickets stand for: whole tiles (all `turns` of rows against 64 outputs), and at the end parts of tiles.

    48 tiles on two threads would leave one thread waiting for half a tile on average. As many last tiles as there are
    threads are cut in four by rows; unpacking the panel once for each part is repaid from `WORTH_CUTTING` turns on.
    """

    def __init__(self, k: Kernel, tiles: V, turns: V) -> None:
        self.k, self.turns = k, turns
        self.parts = k.select(turns >= WORTH_CUTTING, k.like(_PARTS, turns), 1)
        self.whole = tiles - k.minimum(tiles, k.threads)
        self.items = self.whole + (tiles - self.whole) * self.parts

    def tile(self, item: V) -> V:
        """The tile of an item: items below `whole` are tiles, the others parts of the tiles after those."""
        return self.k.minimum(item, self.whole) + self._beyond(item) // self.parts

    def turns_of(self, item: V) -> tuple[V, V]:
        """First turn and end of an item's rows."""
        k, part = self.k, self._beyond(item) % self.parts
        parts = k.select(item < self.whole, k.like(1, item), self.parts)
        return self.turns * part // parts, self.turns * (part + 1) // parts

    def _beyond(self, item: V) -> V:
        return self.k.maximum(item - self.whole, 0)


def scratch_bytes(format: str, wide: int) -> int:
    """Bytes a thread needs for its panel: integers, scales, minimums."""
    f, inputs = FORMATS[format], panel_inputs()
    return inputs * wide * LANES + inputs // f.group * wide * LINE * (2 if f.minimum else 1)


@dataclass(frozen=True)
class _Panel:
    """Where a thread unpacks: integers as lines [input / 4][strip], then scales and minimums, f32x16 [group][strip]."""

    base: V
    inputs: int
    wide: int

    def line(self, quad: V | int, strip: int) -> V:
        return self.base.at(quad * (self.wide * LINE) + strip * LINE)

    def scale(self, group: V, strip: int) -> V:
        return self.base.at(group * (self.wide * LINE) + (strip * LINE + self.inputs * self.wide * LANES))

    def minimum(self, group: V, strip: int, f: Format) -> V:
        return self.scale(group, strip).at(self.inputs // f.group * self.wide * LINE)


def _unpack_panel(k: Kernel, f: Format, base: V, first: V, width: V, panel: _Panel, cols: int) -> None:
    """Integers and scales of one panel."""
    for s in range(panel.wide):
        for step in k.span(0, width // STEP):
            unit = first // STEP + step
            header = base.at(unit // (f.superblock // STEP) * f.superblock_bytes + s * f.strip_bytes(cols))
            inside = unit % (f.superblock // STEP)
            lines = header.at(inside * (f.lines * LINE) + f.header_bytes)
            levels = first_level(k, f, header)
            for quad, weights in integers(k, f, lines):
                k.store(panel.line(step * QUADS + quad, s), weights)
            for g in range(STEP // f.group):
                group = inside * (STEP // f.group) + g
                scale, minimum = group_scale(k, f, header, levels, group, factor(k, f, g))
                group = step * (STEP // f.group) + g
                k.store(panel.scale(group, s), scale)
                if minimum is not None:
                    k.store(panel.minimum(group, s, f), minimum)


def _fetch_panel(k: Kernel, f: Format, packed: V, turn: V, turns: V, panel: _Panel, cols: int) -> None:
    """The part of the next panel's packed bytes that is fetched into L2 at one of `turns` turns. All at once would fill
    the core's queue of misses, and the multiplication would wait behind it (359 against 364 GOPS).
    """
    lines = panel.inputs // f.superblock * f.superblock_bytes // LINE
    each = (turns + (lines - 1)) // turns
    for i in k.span(turn * each, k.minimum(turn * each + each, lines)):
        for s in range(panel.wide):
            k.prefetch(packed.at(i * LINE + s * f.strip_bytes(cols)))


def _tile(
    k: Kernel, f: Format, panel: _Panel, first: V, width: V, row: V, out: V, tall: int, cols: int, residual: bool
) -> None:
    """`tall` rows x the panel's strips, accumulators in registers.

    The first thing that the next rows need is fetched meanwhile: their partial sums, scales and start values. Waiting
    for partial sums was all that longer panels had saved: gate_up went from 334 to 362 GOPS with panels of 256.
    """
    cells = [(m, s) for m in range(tall) for s in range(panel.wide)]
    x = Activations(f, cols, k.q, k.scale, k.start, k.sums)
    for m, s in cells:
        k.prefetch(out.at(k.out_stride * (m + tall) + s * LINE), locality=3)
    for m in range(tall):
        later = x.row(row + (m + tall))
        k.prefetch(later.scale.at(first // f.act_group * 4), locality=3)
        k.prefetch(later.start.at(first // f.run * 4), locality=3)
    acc = {}
    for m, s in cells:
        old = k.load_float(out.at(k.out_stride * m + s * LINE))
        acc[m, s] = k.var(vec(F32), old if residual else k.select(k.splat(first > 0), old, 0.0))
    inputs = [x.q.at((row + m) * cols + first) for m in range(tall)]
    for g in k.span(0, width // f.group):
        for r in range(f.group // f.run):
            at = g * f.group + r * f.run  # input, counted inside the panel
            quad, run = at // 4, (first + at) // f.run

            def pair(cell: int, n: int, at: V = at, quad: V = quad) -> tuple[V, V]:
                m, s = cells[cell]
                return k.load(panel.line(quad + n, s), vec(I8, 64)), k.spread4(inputs[m].at(at + n * 4))

            starts = [_start(k, x, run, row + m) for m, _ in cells]
            totals = k.dot_runs(starts, f.run // 4, pair, f.largest)
            for (m, s), total in zip(cells, totals, strict=True):
                around = ((row + m) * (cols // f.act_group) + (first + at) // f.act_group) * 4
                minimum = k.load_float(panel.minimum(g, s, f)) if f.minimum else None
                scale = k.load_float(panel.scale(g, s))
                _accumulate(k, acc[m, s], total, scale, k.scale.at(around), minimum, k.sums.at(around))
    for m, s in cells:
        k.store(out.at(k.out_stride * m + s * LINE), acc[m, s].get())


# what both share: the arithmetic -------------------------------------------------------------------------------------


def _start(k: Kernel, x: Activations, run: V, row: V | int) -> V:
    """The value that a run's sum starts from: minus the zero point times the sum of its activations, so that unsigned
    weights cost nothing.
    """
    if not x.format.zero:
        return k.const(vec(I32), 0)
    offset = (run + k.like(row, run) * (x.cols // x.format.run)) * 4
    return k.spread(x.start.at(offset), I32)


def _accumulate(k: Kernel, acc: Var, total: V, scale: V, act_scale: V, minimum: V | None, act_sum: V) -> None:
    """One run into its output's chain: the only place that says in which order an output is summed."""
    value = k.fma(k.to_float(total), scale * k.spread(act_scale, F32), acc.get())
    if minimum is not None:
        value = k.fma(minimum, k.spread(act_sum, F32), value)
    acc.set(value)
