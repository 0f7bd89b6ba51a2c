"""Causal attention over the paged cache: one arithmetic for one row or many, so decode and prefill give equal bits.

A query's KV axis is cut into chunks of 1,024 tokens (fixed, so that the number of threads cannot matter), a chunk
into pages of 64. Per page, in ascending order, for each query by itself (FlashAttention's online softmax):

    s = (q . k) * scale          m' = max(m, max s)          p = exp(s - m'), 0 where masked          a = exp(m - m')
    l = l a + sum p              o = o a + p . v

`attend` leaves (o, m, l) of each (row, head, chunk) in scratch memory; `merge` joins the chunks in ascending order by
the same formula, divides by l and puts the row where the output projection reads it. With an int8 cache q . k is exact
in integers under the scales of q and k; p times V's scales is rounded to 16 bits against its largest in the page, and
p . v is exact in integers, upper and lower byte apart. (8 bits of p alone cost 0.0002 of KL on the demo model.)

The queries of one KV head are done together, `tall` rows of them, so K and V are read once for all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from phi4mini.kernels.kv import CHUNK, PAGE, KVLayout
from phi4mini.kernels.lang import F32, I8, I32, I64, LANES, LINE, PTR, Kernel, V, Var, kernel, vec
from phi4mini.kernels.quantize import BLOCK, SINK_FIELDS, store_block

TILE_WORDS = 4  # of a tile, i64: first row, number of rows, position of the first row, address of its page table (i32)
LOW = -1e30  # smaller than any score, and finite: differences stay numbers
GROUPS = PAGE // LANES


def tall_tile(group: int) -> int:
    """Rows of a prefill tile: about 12 queries share each line of K and V."""
    return max(1, 12 // group)


def partial_floats(head_dim: int) -> int:
    """f32 of one partial result: o, then a line with m and l."""
    return head_dim + LANES


def scratch_bytes(tall: int, group: int, head_dim: int) -> int:
    """Bytes a thread needs: scores and probabilities of a page, l (vectors), then o."""
    queries = tall * group
    return queries * (PAGE * 4 + 4 * LANES + 4 * LANES + 4 * head_dim)


@kernel(
    "q:ptr q_scale:ptr q_start:ptr pool:ptr page_stride:int tiles:ptr counts:ptr partial:ptr scale:float window:int "
    "ticket:ptr scratch:ptr scratch_stride:int"
)
def attend(k: Kernel, kind: str, heads: int, kv_heads: int, head_dim: int, tall: int) -> None:
    """tiles i64 (n, 4); counts i64: [n, chunks of the longest row]; partial f32 (rows, heads, chunks, head_dim + 16).

    window: a key is seen while query position - key position < window.
    """
    tiles, chunks = k.load(k.counts, I64), k.load(k.counts.at(8), I64)
    scratch = k.scratch.at(k.tid * k.scratch_stride)
    with k.until() as leave:
        item = k.fetch_add(k.ticket, 1)
        leave(item >= tiles * chunks * kv_heads)
        chunk, unit = item % chunks, item // chunks
        tile = k.tiles.at(unit // kv_heads * (8 * TILE_WORDS))
        rows, start = k.load(tile.at(8), I64), k.load(tile.at(16), I64)
        with k.when(chunk * CHUNK < start + rows):
            work = _Tile(
                k, KVLayout(kind, head_dim, kv_heads), heads, tall, tile, unit % kv_heads, chunk, chunks, scratch
            )
            work.run()


class _Tile:
    """The queries of `tall` rows and one KV head, against one chunk. Rows past the tile's number are computed and not
    stored.
    """

    def __init__(
        self, k: Kernel, layout: KVLayout, heads: int, tall: int, tile: V, head: V, chunk: V, chunks: V, scratch: V
    ) -> None:
        self.k, self.layout, self.dim = k, layout, layout.head_dim
        self.group = heads // layout.kv_heads
        self.queries = [(r, g) for r in range(tall) for g in range(self.group)]
        self.first_row, self.rows = k.load(tile, I64), k.load(tile.at(8), I64)
        self.start, self.table = k.load(tile.at(16), I64), k.load(tile.at(24), PTR)
        self.head, self.heads, self.chunk, self.chunks = head, heads, chunk, chunks
        n = len(self.queries)
        self.scores = scratch
        self.sums = scratch.at(n * PAGE * 4)
        self.alphas = self.sums.at(n * LINE)
        self.out = self.alphas.at(n * LINE)
        self.few = n <= 4  # too few sums to keep the dot units busy: more of the page at once
        self.peaks = [k.var(F32, LOW) for _ in self.queries]
        self.steps = [k.var(F32, 0.0) for _ in self.queries]

    def index(self, r: int, g: int) -> V:
        """Which (row, head) a query is; a row past the last repeats the last one."""
        row = self.first_row + self.k.minimum(self.k.like(r, I64), self.rows - 1)
        return row * self.heads + self.head * self.group + g

    def run(self) -> None:
        k = self.k
        for i in range(len(self.queries)):
            k.store(self.sums.at(i * LINE), k.const(vec(F32), 0.0))
            for d in range(0, self.dim, LANES):
                k.store(self.out.at((i * self.dim + d) * 4), k.const(vec(F32), 0.0))
        first = self.chunk * CHUNK
        end = k.minimum(first + CHUNK, self.start + self.rows)
        for token in k.span(first, end, PAGE):
            base = self.page(token)
            self.dot_keys(base)
            self.soften(base, token)
            self.weigh_values(base, token, self.page(k.minimum(token + PAGE, end - 1)))
        self.leave_partials()

    def page(self, token: V) -> V:
        """Where this head's part of the token's page lies."""
        k = self.k
        number = k.widen(k.load(self.table.at(token // PAGE * 4), I32), I64)
        return k.pool.at(number * k.page_stride + self.head * self.layout.head_bytes)

    def dot_keys(self, base: V) -> None:
        """Scores of all queries against the 64 tokens, without scales, into scratch as i32 or f32. Meanwhile the page's
        values are fetched.
        """
        k, whole = self.k, self.layout.kind == "int8"
        lines = self.dim // (4 if whole else 1)  # of one group of 16 tokens
        queries = [self.index(r, g) for r, g in self.queries]
        at = [k.q.at(q * (self.dim * self.layout.width)) for q in queries]
        together = GROUPS if self.few else 1
        for group in k.span(0, GROUPS, together):
            starts = [k.spread(k.q_start.at(q * 4), I32) if whole else 0 for q in queries]
            acc = [[k.var(vec(I32) if whole else vec(F32), start) for start in starts] for _ in range(together)]
            for d in k.span(0, lines, 4):
                for j, g in product(range(4), range(together)):
                    line = ((group + g) * lines + d + j) * LINE
                    keys = k.load(base.at(line), vec(I8, 64) if whole else vec(F32))
                    k.prefetch(base.at(line + self.layout.v_offset))
                    for a, q in zip(acc[g], at, strict=True):
                        x = q.at((d + j) * 4)
                        a.set(k.dot4(a.get(), keys, k.spread4(x)) if whole else k.fma(keys, k.spread(x, F32), a.get()))
            for g, i in product(range(together), range(len(queries))):
                k.store(self.scores.at((group + g) * LINE + i * PAGE * 4), acc[g][i].get().bits(vec(F32)))

    def soften(self, base: V, token: V) -> None:
        """Scores to probabilities, in place: f32, or u8 in the first 64 bytes. Notes the factor a and the step of the
        integers.
        """
        k, whole = self.k, self.layout.kind == "int8"
        for i, (r, g) in enumerate(self.queries):
            at = self.scores.at(i * PAGE * 4)
            position = self.start + k.minimum(k.like(r, I64), self.rows - 1)
            last = k.narrow(position - token, I32)
            low = k.narrow(k.maximum(position - k.window - token, -1), I32)
            seen, scores = [], []
            factor = k.scale * k.load(k.q_scale.at(self.index(r, g) * 4), F32) if whole else k.scale
            for j in range(GROUPS):
                lanes = k.const(vec(I32), list(range(j * LANES, (j + 1) * LANES)))
                seen.append((lanes <= last) & (lanes > low))
                s = k.load_float(at.at(j * LINE))
                if whole:
                    s = k.to_float(s.bits(vec(I32))) * k.load_float(base.at(self.layout.scale_offset + j * LINE))
                scores.append(k.select(seen[j], s * factor, LOW))
            before = self.peaks[i].get()
            peak = k.maximum(before, k.peak(self._pairwise(scores, k.maximum)))
            weights = [k.select(seen[j], k.exp(scores[j] - peak), 0.0) for j in range(GROUPS)]
            alpha = k.exp(before - peak)
            self.peaks[i].set(peak)
            k.store(self.alphas.at(i * LINE), k.splat(alpha))
            total = self._pairwise(weights, lambda a, b: a + b)
            k.store(self.sums.at(i * LINE), k.fma(k.load_float(self.sums.at(i * LINE)), k.splat(alpha), total))
            self._keep(i, at, base, weights, seen)

    def _pairwise(self, v: list[V], join: Callable[[V, V], V]) -> V:
        return join(join(v[0], v[1]), join(v[2], v[3]))

    def _keep(self, i: int, at: V, base: V, weights: list[V], seen: list[V]) -> None:
        k = self.k
        if self.layout.kind == "f32":
            for j, w in enumerate(weights):
                k.store(at.at(j * LINE), w)
            return
        scales = [k.load_float(base.at(self.layout.scale_offset + PAGE * 4 + j * LINE)) for j in range(GROUPS)]
        # masked after the product: past the sequence's end lie an earlier one's scales, and 0 * NaN is NaN
        scaled = [k.select(m, w * s, 0.0) for m, w, s in zip(seen, weights, scales, strict=True)]
        peak = k.magnitude(scaled)
        inverse = k.select(peak > 0.0, k.like(65535.0, peak) / peak, 0.0)
        self.steps[i].set(peak * (1.0 / 65535.0))
        for j, w in enumerate(scaled):
            whole = k.to_int(w * inverse)
            k.store(at.at(j * LANES), k.narrow(whole >> 8, I8))
            k.store(at.at(j * LANES + PAGE), k.narrow(whole, I8))

    def weigh_values(self, base: V, token: V, following: V) -> None:
        """o = o a + p . v for 16 dims at a time. Meanwhile the next page's keys are fetched."""
        k, whole = self.k, self.layout.kind == "int8"
        together = 2 if self.few else 1
        for d in k.span(0, self.dim // LANES, together):
            cells = list(product(range(together), range(len(self.queries))))
            outs = [self.out.at((d + b) * LINE + i * self.dim * 4) for b, i in cells]
            old = [
                k.load_float(o) * k.load_float(self.alphas.at(i * LINE)) for o, (_, i) in zip(outs, cells, strict=True)
            ]
            coarse = [k.var(vec(I32) if whole else vec(F32), 0 if whole else x) for x in old]
            fine = [k.var(vec(I32), 0) for _ in old]
            rows = PAGE // 4 if whole else PAGE
            for t in k.span(0, rows, 4):
                for j, b in product(range(4), range(together)):
                    k.prefetch(following.at(((d + b) * rows + t + j) * LINE))
                    self._weigh(base, token, t + j, d + b, b, coarse, fine)
            for o, x, a, f, (_, i) in zip(outs, old, coarse, fine, cells, strict=True):
                joined = k.to_float((a.get() << 8) + f.get()) if whole else a.get()
                k.store(o, k.fma(joined, k.splat(self.steps[i].get()), x) if whole else joined)

    def _weigh(self, base: V, token: V, t: V, d: V, b: int, coarse: list[Var], fine: list[Var]) -> None:
        """One line of V, 16 dims of one token (f32) or of four, into the sums of all queries."""
        k, whole, n = self.k, self.layout.kind == "int8", len(self.queries)
        at = base.at(t * (self.dim * 4) + d * LINE + self.layout.v_offset)
        line = k.load(at, vec(I8, 64) if whole else vec(F32))
        if not whole:  # past the sequence's end lies what an earlier one left, and 0 * NaN is NaN
            line = k.select(t < self.start + self.rows - token, line, 0.0)
        for i in range(n):
            p, a, f = self.scores.at(t * 4 + i * PAGE * 4), coarse[b * n + i], fine[b * n + i]
            if not whole:
                a.set(k.fma(line, k.spread(p, F32), a.get()))
                continue
            a.set(k.dot4(a.get(), k.spread4(p), line))
            f.set(k.dot4(f.get(), k.spread4(p.at(PAGE)), line))

    def leave_partials(self) -> None:
        k, width = self.k, partial_floats(self.dim) * 4
        for i, (r, g) in enumerate(self.queries):
            with k.when(self.rows > r):
                to = k.partial.at((self.index(r, g) * self.chunks + self.chunk) * width)
                for d in range(0, self.dim, LANES):
                    k.store(to.at(d * 4), k.load_float(self.out.at((i * self.dim + d) * 4)))
                k.store(to.at(self.dim * 4), self.peaks[i].get())
                k.store(to.at(self.dim * 4 + 4), k.sum(k.load_float(self.sums.at(i * LINE))))


@kernel("partial:ptr counts:ptr positions:ptr rows:ptr " + SINK_FIELDS)
def merge(k: Kernel, format: str, heads: int, head_dim: int) -> None:
    """Chunks joined in ascending order, divided by l, into the sink (rows, heads * head_dim). positions i64 (rows,)."""
    chunks = k.load(k.counts.at(8), I64)
    width = partial_floats(head_dim) * 4
    first, end = k.share(k.load(k.rows, I64) * heads)
    for item in k.span(first, end):
        row, head = item // heads, item % heads
        base = k.partial.at(item * chunks * width)
        out = [k.var(vec(F32), k.load_float(base.at(d * 4))) for d in range(0, head_dim, LANES)]
        peak = k.var(F32, k.load(base.at(head_dim * 4), F32))
        total = k.var(F32, k.load(base.at(head_dim * 4 + 4), F32))
        for chunk in k.span(1, k.load(k.positions.at(row * 8), I64) // CHUNK + 1):
            part = base.at(chunk * width)
            theirs = k.load(part.at(head_dim * 4), F32)
            new = k.maximum(peak.get(), theirs)
            a, b = k.exp(peak.get() - new), k.exp(theirs - new)
            peak.set(new)
            total.set(k.fma(total.get(), a, k.load(part.at(head_dim * 4 + 4), F32) * b))
            for i, o in enumerate(out):
                o.set(k.fma(o.get(), k.splat(a), k.load_float(part.at(i * LINE)) * k.splat(b)))
        inverse = k.splat(k.like(1.0, F32) / total.get())
        for pair in range(0, head_dim // LANES, 2):
            block = head * (head_dim // BLOCK) + pair // 2
            low, high = out[pair].get() * inverse, out[pair + 1].get() * inverse
            odd = (pair // 2) % 2 == 1
            if head_dim % (2 * BLOCK) == 0:
                store_block(k, format, heads * head_dim, row, block, odd, low, high)
                continue
            with k.when((block % 2).equals(0)):
                store_block(k, format, heads * head_dim, row, block, False, low, high)
            with k.when((block % 2).equals(1)):
                store_block(k, format, heads * head_dim, row, block, True, low, high)
