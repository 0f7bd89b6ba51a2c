"""Causal attention over the paged cache: one arithmetic for one row or many, so decode and prefill give equal bits.

The KV axis of a query is cut into chunks of 1,024 tokens, a chunk into pages of 64. The cuts are fixed, so that neither
the number of threads nor the other rows of a pass can change a sum. Per page, in ascending order, for each query by
itself (FlashAttention's online softmax):

    s = (q . k) * scale          m' = max(m, max s)          p = exp(s - m'), 0 where masked          a = exp(m - m')
    l = l a + sum p              o = o a + p . v

`attend` leaves (o, m, l) of each (row, head, chunk) in `partial`; attention_merge.py joins the chunks in ascending
order by the same formula, divides by l and puts the row where the output projection reads it. With an int8 cache q . k
is exact in integers under the scales of q and k; p times V's scales is rounded to 16 bits against its largest in the
page, and p . v is exact in integers, upper and lower byte apart. (8 bits of p alone cost 0.0002 of KL on the demo
model; the second byte takes up to a third of attention's time in a long prefill.)

What binds: one row waits for memory, a tile of a prompt for the dot units and the softmax (keys 24 % of its time,
softmax 27, values 54, measured apart). So the query heads of one KV head and the `tall` rows of a tile are done
together, and K and V are read once for all of them. Where there is work enough, a thread takes the KV heads of a page
one after the other, as they lie in memory. What is read next is prefetched while the units are busy.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from itertools import product

from phi4mini.kernels.kv import CHUNK, PAGE, KVLayout, query_names
from phi4mini.kernels.lang.kernel import F32, I8, I32, I64, LANES, LINE, PTR, Kernel, V, Var, kernel, vec

TILE_WORDS = 4  # of a tile, i64: first row, number of rows, position of the first row, address of its page table (i32)
LOW = -1e30  # of a hidden key: smaller than any score, and finite, because -inf minus -inf would be NaN
GROUPS = PAGE // LANES  # vectors of scores in a page
# Queries whose softmax is written side by side. 256 rows at 4,096 tokens: one 68.3 ms, two 64.9, three 64.4, four 66.0.
ABREAST = 3


def heights(group: int) -> tuple[int, ...]:
    """Rows of a tile that kernels are made for: one, two (a guess of one token), about 12 queries (prefill).

    Twelve queries are twelve sums of upper and twelve of lower bytes (24 of 32 registers). The tile of two exists
    because a guess of one token in a tile of four cost 1.32 of one row at 4,000 tokens, and costs 1.12 in its own.
    """
    tallest = max(1, 12 // group)
    return tuple(sorted({1, min(2, tallest), tallest}))


def height(longest: int, group: int) -> int:
    """The smallest tile that holds `longest`, the rows of the longest run of a pass; else the tallest tile."""
    return next((rows for rows in heights(group) if rows >= longest), heights(group)[-1])


def partial_floats(head_dim: int) -> int:
    """f32 of one partial result: o, then a line with m and l."""
    return head_dim + LANES


def scratch_bytes(tall: int, group: int, kv_heads: int, head_dim: int) -> int:
    """Bytes a thread needs: scores or probabilities of a page, a and the step of integers; each head's m, l and o."""
    return tall * group * (PAGE * 4 + 2 * LINE + kv_heads * _state_floats(head_dim) * 4)


def heads_together(items: int, kv_heads: int, threads: int) -> int:
    """KV heads of one item where there are `items` tiles x chunks: as many as leave each thread four items.

    Heads lie side by side in a page, and memory is faster the longer one reads on: 14 GB/s a core in scattered blocks
    of one head, 21 of four, 30 in long runs (Zen 4). Four items a thread, so that none waits long for the last one.
    """
    together = kv_heads
    while together > 1 and items * -(-kv_heads // together) < 4 * threads:
        together = -(-together // 2)
    return together


def _state_floats(head_dim: int) -> int:
    """f32 of what a query keeps from page to page: a line with m, one with l (by lanes), o."""
    return 2 * LANES + head_dim


@kernel(
    "q:query[_, heads * head_dim] q_scale:f32[_, heads] q_start:i32[_, heads] pool:u8[] page_stride:int "
    "tiles:i64[_, 4] counts:i64[3] partial:f32[] scale:float window:int ticket:i64[1] scratch:u8[] scratch_stride:int",
    query_names,
)
def attend(k: Kernel, kind: str, heads: int, kv_heads: int, head_dim: int, tall: int) -> None:
    """tiles i64 (n, 4); counts i64: [n, chunks of the longest row, KV heads of one item]; partial f32 (rows, heads,
    chunks, head_dim + 16).

    window: a key is seen while query position - key position < window.
    """
    tiles, chunks, together = (k.load(k.counts[i]) for i in range(3))
    parts = (together + (kv_heads - 1)) // together
    scratch = k.scratch.at(k.tid * k.scratch_stride)
    with k.until() as leave:
        item = k.fetch_add(k.ticket, 1)
        leave(item >= tiles * chunks * parts)
        chunk, unit = item % chunks, item // chunks
        tile = k.tiles.at(unit // parts * (8 * TILE_WORDS))
        rows, start = k.load(tile.at(8), I64), k.load(tile.at(16), I64)
        first = unit % parts * together
        with k.when(chunk * CHUNK < start + rows):
            work = _Tile(k, KVLayout(kind, head_dim, kv_heads), heads, tall, tile, chunk, chunks, scratch)
            work.run(first, k.minimum(first + together, kv_heads))


class _Tile:
    """The queries of `tall` rows against one chunk, one KV head after the other in each page. A tile with fewer rows
    repeats its last row, so that inner loops have no branch; the repetitions are not stored.

    Scratch memory of a thread: scores (later probabilities) of a page, a and the step of integers of every query; then
    m, l and o of every query of every KV head of the item, which live from page to page.
    """

    def __init__(
        self, k: Kernel, layout: KVLayout, heads: int, tall: int, tile: V, chunk: V, chunks: V, scratch: V
    ) -> None:
        self.k, self.layout, self.dim = k, layout, layout.head_dim
        self.group = heads // layout.kv_heads
        self.queries = [(r, g) for r in range(tall) for g in range(self.group)]
        self.first_row, self.rows = k.load(tile, I64), k.load(tile.at(8), I64)
        self.start, self.table = k.load(tile.at(16), I64), k.load(tile.at(24), PTR)
        self.heads, self.chunk, self.chunks = heads, chunk, chunks
        n = len(self.queries)
        self.few = n <= 4  # so few sums that each would wait for its own last addition (latency 4, one a cycle)
        self.scores = scratch
        self.alphas = scratch.at(n * PAGE * 4)
        self.steps = self.alphas.at(n * LINE)
        self.states = self.steps.at(n * LINE)

    def at_head(self, head: V, first: V) -> None:
        """Turn to KV head number `head`; `first` is the first one of this item."""
        n = len(self.queries)
        self.head = head
        self.peaks = self.states.at((head - first) * (n * _state_floats(self.dim) * 4))
        self.sums = self.peaks.at(n * LINE)
        self.out = self.sums.at(n * LINE)

    def index(self, r: int, g: int) -> V:
        """The index of a query in arrays of (row, head); a row past the last repeats the last one."""
        row = self.first_row + self.k.minimum(self.k.like(r, I64), self.rows - 1)
        return row * self.heads + self.head * self.group + g

    def run(self, first: V, end: V) -> None:
        """KV heads first .. end - 1."""
        k = self.k
        for head in k.span(first, end):
            self.at_head(head, first)
            self.clear()
        begin = self.chunk * CHUNK
        stop = k.minimum(begin + CHUNK, self.start + self.rows)
        for token in k.span(begin, stop, PAGE):
            page, following = self.page(token), self.page(k.minimum(token + PAGE, stop - 1))
            for head in k.span(first, end):
                self.at_head(head, first)
                base = page.at(head * self.layout.head_bytes)
                self.dot_keys(base)
                self.soften(base, token)
                after = base.at(self.layout.head_bytes)
                self.weigh_values(
                    base, token, k.select(head + 1 < end, after, following.at(first * self.layout.head_bytes))
                )
        for head in k.span(first, end):
            self.at_head(head, first)
            self.leave_partials()

    def clear(self) -> None:
        """The state before the first page."""
        k = self.k
        for i in range(len(self.queries)):
            k.store(self.peaks.at(i * LINE), k.like(LOW, F32))
            k.store(self.sums.at(i * LINE), k.const(vec(F32), 0.0))
            for d in range(0, self.dim, LANES):
                k.store(self.out.at((i * self.dim + d) * 4), k.const(vec(F32), 0.0))

    def page(self, token: V) -> V:
        """The address of the page that holds a token of this sequence."""
        k = self.k
        return k.pool.at(k.widen(k.load(self.table.at(token // PAGE * 4), I32), I64) * k.page_stride)

    def dot_keys(self, base: V) -> None:
        """Scores of all queries against the 64 tokens, without scales, into scratch as i32 or f32.

        Meanwhile the page's values are fetched, a line for each line of keys, so that both streams arrive in time: with
        the same for the next page's keys (weigh_values) one row at 512 tokens went from 0.24 to 0.11 ms a layer.
        """
        k, whole = self.k, self.layout.kind == "int8"
        lines = self.dim // (4 if whole else 1)  # of one group of 16 tokens
        queries = [self.index(r, g) for r, g in self.queries]
        at = [k.q.at(q * (self.dim * self.layout.width)) for q in queries]
        # Few queries need more independent sums. Integers have no order, so each sum is cut in four parts and keys are
        # read in one stream; floats keep their order and are summed for all four groups of tokens at once instead.
        together, parts = (1, 4) if self.few and whole else (GROUPS if self.few else 1, 1)
        kind = vec(I32) if whole else vec(F32)
        for group in k.span(0, GROUPS, together):
            starts = [k.spread(k.q_start.at(q * 4), I32) if whole else 0 for q in queries]
            acc = [[[k.var(kind, 0 if p else x) for x in starts] for p in range(parts)] for _ in range(together)]
            for d in k.span(0, lines, 4):
                for j, g in product(range(4), range(together)):
                    line = ((group + g) * lines + d + j) * LINE
                    keys = k.load(base.at(line), vec(I8, 64) if whole else vec(F32))
                    k.prefetch(base.at(line + self.layout.v_offset))
                    for a, q in zip(acc[g][j % parts], at, strict=True):
                        x = q.at((d + j) * 4)
                        a.set(k.dot4(a.get(), keys, k.spread4(x)) if whole else k.fma(keys, k.spread(x, F32), a.get()))
            for g, i in product(range(together), range(len(queries))):
                total = functools.reduce(operator.add, (part[i].get() for part in acc[g]))
                k.store(self.scores.at((group + g) * LINE + i * PAGE * 4), total.bits(vec(F32)))

    def soften(self, base: V, token: V) -> None:
        """Scores to probabilities, in place: f32, or the upper bytes of 64 integers and then the lower ones. Leaves the
        factor a and the step of the integers in scratch, and m and l in the state.
        """
        queries = list(range(len(self.queries)))
        for first in range(0, len(queries), ABREAST):
            self._soften(queries[first : first + ABREAST], base, token)

    def _soften(self, some: list[int], base: V, token: V) -> None:
        """A few queries, step by step side by side: the steps of one query are a chain that waits for itself (a maximum
        over lanes, exp, a sum), so LLVM gets several chains to interleave.
        """
        k = self.k
        seen = {i: self._seen(i, token) for i in some}
        scores = {i: self._scores(i, base, seen[i]) for i in some}
        before = {i: k.load(self.peaks.at(i * LINE), F32) for i in some}
        peaks = {i: k.maximum(before[i], k.peak(_pairwise(scores[i], k.maximum))) for i in some}
        weights = {
            i: [k.select(m, k.exp(s - peaks[i]), 0.0) for m, s in zip(seen[i], scores[i], strict=True)] for i in some
        }
        alphas = {i: k.splat(k.exp(before[i] - peaks[i])) for i in some}
        for i in some:
            k.store(self.peaks.at(i * LINE), peaks[i])
            k.store(self.alphas.at(i * LINE), alphas[i])
            sums = self.sums.at(i * LINE)
            k.store(sums, k.fma(k.load_float(sums), alphas[i], _pairwise(weights[i], operator.add)))
        if self.layout.kind == "int8":
            self._keep_integers(base, weights, seen)
        else:
            for i, j in product(some, range(GROUPS)):
                k.store(self.scores.at(i * PAGE * 4 + j * LINE), weights[i][j])

    def _seen(self, i: int, token: V) -> list[V]:
        """The tokens of the page that a query may look at, four masks of 16: not after its own position, not before the
        sliding window.
        """
        k, row = self.k, self.queries[i][0]
        position = self.start + k.minimum(k.like(row, I64), self.rows - 1)
        last = k.narrow(position - token, I32)
        low = k.narrow(k.maximum(position - k.window - token, -1), I32)
        lanes = [k.const(vec(I32), list(range(j * LANES, (j + 1) * LANES))) for j in range(GROUPS)]
        return [(at <= last) & (at > low) for at in lanes]

    def _scores(self, i: int, base: V, seen: list[V]) -> list[V]:
        """The scores of a query with all scales in, LOW where it must not look."""
        k, at = self.k, self.scores.at(i * PAGE * 4)
        s = [k.load_float(at.at(j * LINE)) for j in range(GROUPS)]
        factor = k.scale
        if self.layout.kind == "int8":
            factor = factor * k.load(k.q_scale.at(self.index(*self.queries[i]) * 4), F32)
            scales = [k.load_float(base.at(self.layout.scale_offset + j * LINE)) for j in range(GROUPS)]
            s = [k.to_float(x.bits(vec(I32))) * scale for x, scale in zip(s, scales, strict=True)]
        return [k.select(m, x * factor, LOW) for m, x in zip(seen, s, strict=True)]

    def _keep_integers(self, base: V, weights: dict[int, list[V]], seen: dict[int, list[V]]) -> None:
        """Probabilities times V's scales as 16 bits against the largest of the page, upper and lower bytes apart, as
        dot4 takes them.
        """
        k = self.k
        scales = [k.load_float(base.at(self.layout.scale_offset + PAGE * 4 + j * LINE)) for j in range(GROUPS)]
        # masked after the product: beyond the last token lie scales of an earlier sequence, and 0 * NaN is NaN
        scaled = {
            i: [k.select(m, w * s, 0.0) for m, w, s in zip(seen[i], weights[i], scales, strict=True)] for i in weights
        }
        peaks = {i: k.magnitude(values) for i, values in scaled.items()}
        inverses = {i: k.select(peak > 0.0, k.like(65535.0, peak) / peak, 0.0) for i, peak in peaks.items()}
        for i, values in scaled.items():
            k.store(self.steps.at(i * LINE), k.splat(peaks[i] * (1.0 / 65535.0)))
            for j, w in enumerate(values):
                whole, to = k.to_int(w * inverses[i]), self.scores.at(i * PAGE * 4 + j * LANES)
                k.store(to, k.narrow(whole >> 8, I8))
                k.store(to.at(PAGE), k.narrow(whole, I8))

    def weigh_values(self, base: V, token: V, following: V) -> None:
        """o = o a + p . v for 16 dims at a time.

        Meanwhile the scales and keys that come next are fetched: of the next KV head of this page, or of the next page.
        With heads in the order of memory this took one row at 8,192 tokens from 24 to 40 GB/s (Zen 4, two threads).
        """
        k, whole = self.k, self.layout.kind == "int8"
        together = 2 if self.few else 1
        for at in range(self.layout.scale_offset, self.layout.head_bytes, LINE):
            k.prefetch(following.at(at))
        for d in k.span(0, self.dim // LANES, together):
            cells = list(product(range(together), range(len(self.queries))))
            outs = [(self.out.at((d + b) * LINE + i * self.dim * 4), i) for b, i in cells]
            # Floats are added in their order, from o a on. Integers take o a at the end: loaded before, it would live
            # through all sums in registers (66.0 to 61.7 ms for 256 rows at 4,096 tokens).
            coarse = [k.var(vec(I32), 0) if whole else k.var(vec(F32), self._faded(o, i)) for o, i in outs]
            fine = [k.var(vec(I32), 0) for _ in outs]
            rows = PAGE // 4 if whole else PAGE
            for t in k.span(0, rows, 4):
                for j, b in product(range(4), range(together)):
                    k.prefetch(following.at(((d + b) * rows + t + j) * LINE))
                    self._weigh(base, token, t + j, d + b, b, coarse, fine)
            for (o, i), a, f in zip(outs, coarse, fine, strict=True):
                if whole:
                    joined = k.to_float((a.get() << 8) + f.get())
                    k.store(o, k.fma(joined, k.load_float(self.steps.at(i * LINE)), self._faded(o, i)))
                else:
                    k.store(o, a.get())

    def _faded(self, o: V, i: int) -> V:
        """o a: the output so far of a query, faded to the new maximum."""
        return self.k.load_float(o) * self.k.load_float(self.alphas.at(i * LINE))

    def _weigh(self, base: V, token: V, t: V, d: V, b: int, coarse: list[Var], fine: list[Var]) -> None:
        """One line of V, 16 dims of one token (f32) or of four tokens (int8), into the sums of all queries."""
        k, whole, n = self.k, self.layout.kind == "int8", len(self.queries)
        at = base.at(t * (self.dim * 4) + d * LINE + self.layout.v_offset)
        line = k.load(at, vec(I8, 64) if whole else vec(F32))
        if not whole:  # beyond the last token lie numbers of an earlier sequence, and 0 * NaN is NaN
            line = k.select(t < self.start + self.rows - token, line, 0.0)
        for i in range(n):
            p, a, f = self.scores.at(t * 4 + i * PAGE * 4), coarse[b * n + i], fine[b * n + i]
            if not whole:
                a.set(k.fma(line, k.spread(p, F32), a.get()))
                continue
            a.set(k.dot4(a.get(), k.spread4(p), line))
            f.set(k.dot4(f.get(), k.spread4(p.at(PAGE)), line))

    def leave_partials(self) -> None:
        """o, m and l of each real query of this chunk into `partial`, where attention_merge.py reads them."""
        k, width = self.k, partial_floats(self.dim) * 4
        for i, (r, g) in enumerate(self.queries):
            with k.when(self.rows > r):
                to = k.partial.at((self.index(r, g) * self.chunks + self.chunk) * width)
                for d in range(0, self.dim, LANES):
                    k.store(to.at(d * 4), k.load_float(self.out.at((i * self.dim + d) * 4)))
                k.store(to.at(self.dim * 4), k.load(self.peaks.at(i * LINE), F32))
                k.store(to.at(self.dim * 4 + 4), k.sum(k.load_float(self.sums.at(i * LINE))))


def _pairwise(v: list[V], join: Callable[[V, V], V]) -> V:
    """Four vectors joined in one fixed order."""
    return join(join(v[0], v[1]), join(v[2], v[3]))
