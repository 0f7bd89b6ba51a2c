"""The transformer as a straight line over kernels, recorded once per shape as a program. Knows no request and no text.

    x = embed[ids]
    layer:  a = rmsnorm(x)      q, k, v = rope(qkv a)      o = attend(q, cache)      x += o_proj o
            a = rmsnorm(x)      h = silu(gate a) * up a                              x += down h
    logits = head rmsnorm(x[wanted]), the largest computed again with finer activations (kernels/refine_logits.py)

A `Batch` says which tokens of which sequences to compute. Rows of any mix of sequences go through together, and no
row's bits depend on its neighbours. A pass's inputs are written into buffers at fixed addresses, so a recorded program
runs again unchanged, as one native call a thread: Python's cost does not grow with the number of layers.
"""

from __future__ import annotations

import numpy as np

from phi4mini.engine.batch import Batch
from phi4mini.engine.compute.buffers import MAX_OUTPUTS, MAX_ROWS, OUTPUT_ROWS, Buffers, Sink
from phi4mini.errors import BadInput
from phi4mini.formats.matrix import Matrix
from phi4mini.kernels import (
    activations,
    attention,
    attention_merge,
    gather,
    matmul,
    matmul_dense,
    norm,
    refine_logits,
    rope,
    swiglu,
)
from phi4mini.kernels.kv import KVLayout
from phi4mini.kernels.lang import build
from phi4mini.kernels.lang.kernel import Spec
from phi4mini.kernels.threads.crew import Crew
from phi4mini.kernels.threads.pool import Call, Pool, Program, aligned
from phi4mini.model.arrays import LayerWeights, Stored, Weights, pieces
from phi4mini.model.config import Config

NO_WINDOW = 1 << 40  # tokens: longer than any context


class Network:
    """Weights, KV cache, buffers and recorded programs of one model. `cache` is uint8 (pages, layers, bytes of a page
    in one layer); `pool` runs the programs.
    """

    def __init__(self, weights: Weights, kv: str, pages: int, pool: Pool) -> None:
        check_shapes(weights.config)
        self.weights, self.config, self.pool = weights, weights.config, pool
        c = self.config
        self.layout = KVLayout(kv, c.head_dim, c.num_kv_heads)
        self.cache = aligned((pages, c.num_layers, self.layout.page_bytes), np.uint8)
        self.buffers = Buffers(c, weights, pool.threads)
        self._programs: dict[tuple[int, int, int], Program] = {}
        build.library().prepare(self._specs())

    def run(self, batch: Batch, profile: bool = False) -> np.ndarray:
        """Compute a batch: K and V go into the cache. Returns logits f32 (len(wanted), vocab), a view until the next
        run.
        """
        rows, outputs = len(batch.ids), len(batch.wanted)
        self.buffers.load(batch, self.weights.embed, self._tile_height(batch))
        self.pool.run(self.program(rows, outputs, self._tile_height(batch)), profile)
        return self.buffers.logits[:outputs, : self.config.vocab_size]

    def hidden(self, batch: Batch) -> np.ndarray:
        """As `run`, for a batch that wants no logits: the hidden states of all its rows after the final norm, f32
        (rows, hidden_size), a new array. The norm is computed in float64.
        """
        self.run(batch)
        x = self.buffers.x[: len(batch.ids), : self.config.hidden_size].astype(np.float64)
        scale = 1 / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + self.config.rms_norm_eps)
        return (x * scale * self.weights.norm).astype(np.float32)

    def program(self, rows: int, outputs: int, tall: int) -> Program:
        """The program for this shape: rows of the pass, rows of logits, rows of an attention tile. Up to 8 rows have
        kernels of their own; for more rows, one program reads the number from a buffer. The same holds for outputs.
        """
        key = (rows if rows <= matmul.FEW else 0, outputs if outputs <= matmul.FEW else MAX_OUTPUTS, tall)
        if key not in self._programs:
            # threads of a chunk draw tiles from counters, so one that lost its core just takes fewer: no crew needed
            crew = Crew(self.pool.threads) if key[0] else None
            self._programs[key] = Program(self._record(key[0] or MAX_ROWS, key[1], tall), crew)
        return self._programs[key]

    def drop(self, page: int) -> None:
        """Zero a page in every layer, after a numerical error. Attention masks all that lies behind a sequence's end,
        so NaN left in a page reaches no other sequence; zeroing it is a second fence.
        """
        self.cache[page] = 0

    def _tile_height(self, batch: Batch) -> int:
        return attention.height(max(n for _, n, _ in batch.runs), self.config.group_size)

    def _specs(self) -> list[Spec]:
        """Every kernel that a pass of any shape may need. Layers whose matrices have the same formats and rows need the
        same kernels, so one of them is recorded.
        """
        layers = {_make(w): w for w in self.weights.layers}
        every = range(1, matmul.FEW + 1)
        calls = [c for rows in every for c in self._record(rows, 0, 1, list(layers.values()))]
        for tall in attention.heights(self.config.group_size):
            calls += self._record(MAX_ROWS, 0, tall, list(layers.values()))
        for outputs in (*every, MAX_OUTPUTS):
            calls += self._record(0, outputs, 1, [])
        return [c.spec for c in calls]

    # the straight line -----------------------------------------------------------------------------------------------

    def _record(self, rows: int, outputs: int, tall: int, layers: list[LayerWeights] | None = None) -> list[Call]:
        """The calls of a pass, in order, with the addresses of all their arrays. A barrier follows each call, so a call
        may read what any thread wrote in the one before.
        """
        self.buffers.tickets_used = 0
        calls: list[Call] = []
        for index, layer in enumerate(self.weights.layers if layers is None else layers):
            calls += self._attention(index, layer.input_norm, layer.qkv, layer.o, rows, tall)
            calls += self._feed_forward(layer.post_norm, layer.gate_up, layer.down, rows)
        return calls + (self._head(outputs) if outputs else [])

    def _attention(self, index: int, weight: np.ndarray, qkv: Stored, o: Matrix, rows: int, tall: int) -> list[Call]:
        """x += o_proj attend(rope(qkv norm(x))), with K and V appended to the cache of layer `index` on the way.

        A long context is attended in chunks of 1,024 tokens, each with a partial result: threads can share one row, and
        since the chunks' borders are fixed, `merge` adds the same numbers in the same order on any number of threads.
        """
        c, b = self.config, self.buffers
        shape = {"heads": c.num_heads, "kv_heads": c.num_kv_heads, "head_dim": c.head_dim}
        kind = self.layout.kind
        pool: dict[str, int | np.ndarray] = {"pool": self.cache[:, index], "page_stride": self.cache.strides[0]}
        queries, out = b.queries(kind), b.sink("attention", o)
        return [
            *self._projection(weight, qkv, b.qkv, rows),
            Call(
                rope.rope_append(kind=kind, **shape, half=c.rotary_dim // 2),
                qkv=b.qkv, stride=b.qkv.strides[0], cos=b.cos, sin=b.sin, rows=b.rows, pages=b.pages, slots=b.slots,
                **pool, **queries,
            ),
            Call(
                attention.attend(kind=kind, **shape, tall=tall),
                **pool, tiles=b.tiles, counts=b.counts, partial=b.partial, **queries,
                scale=c.head_dim**-0.5 * rope.mix_factor(kind, c.head_dim), window=c.sliding_window or NO_WINDOW,
                ticket=b.ticket(), **b.scratch_arguments,
            ),
            Call(
                attention_merge.merge(format=out.format, heads=c.num_heads, head_dim=c.head_dim),
                partial=b.partial, counts=b.counts, positions=b.positions, rows=b.rows, **out.arguments,
            ),
            self._matmul(o, out, b.x, rows, residual=True),
        ]  # fmt: skip

    def _feed_forward(self, weight: np.ndarray, gate_up: Stored, down: Matrix, rows: int) -> list[Call]:
        """x += down (silu(gate) * up). The SwiGLU writes its product already rounded as `down` reads it."""
        b = self.buffers
        out = b.sink("feed_forward", down)
        return [
            *self._projection(weight, gate_up, b.gate_up, rows),
            Call(
                swiglu.swiglu(format=out.format, cols=down.cols),
                x=b.gate_up, stride=b.gate_up.strides[0], rows=b.rows, **out.arguments,
            ),
            self._matmul(down, out, b.x, rows, residual=True),
        ]  # fmt: skip

    def _projection(self, weight: np.ndarray, matrix: Stored, out: np.ndarray, rows: int) -> list[Call]:
        """The normed residual stream times a matrix, or times the parts of a stack one after the other. Parts of
        different formats need differently rounded activations, so the norm writes them once for each format.
        """
        b, parts = self.buffers, pieces(matrix)
        sinks = {part.format.name: b.sink("hidden", part) for part in parts}
        calls = [self._norm(b.x, weight, b.rows, into) for into in sinks.values()]
        first = 0
        for part in parts:
            calls.append(self._matmul(part, sinks[part.format.name], out[:, first:], rows, residual=False))
            first += part.rows
        return calls

    def _head(self, outputs: int) -> list[Call]:
        """Logits of the wanted rows. A quantised head reads int8 activations; the norm leaves their rounding error as a
        second int8 row, `fine` rows further down, for `_second_look`.
        """
        b, head = self.buffers, self.weights.head
        into, fine = b.sink("output", head), OUTPUT_ROWS if head.format.block else 0
        calls = [
            Call(
                gather.gather(cols=self.config.hidden_size),
                x=b.x, stride=b.x.strides[0], index=b.wanted, rows=b.outputs, out=b.picked,
            ),
            self._norm(b.picked, self.weights.norm, b.outputs, into, fine),
            self._matmul(head, into, b.logits, outputs, residual=False, count=b.outputs),
        ]  # fmt: skip
        return calls + (self._second_look(into, fine) if fine else [])

    def _second_look(self, x: Sink, fine: int) -> list[Call]:
        """Add head times rounding error, but only in the strips of 16 tokens that hold a row's largest logits: at most
        256 of 12,504. For all strips this was a quarter of a pass of 8 rows (docs/log.md).
        """
        b, head = self.buffers, self.weights.head
        stride, strips = b.logits.strides[0], len(head.strips())
        return [
            Call(
                refine_logits.floors(),
                logits=b.logits, stride=stride, strips=strips, rows=b.outputs, floors=b.floors,
            ),
            Call(
                refine_logits.refine(format=head.format.name, cols=head.cols, fine=fine),
                weights=head.data, out=b.logits, out_stride=stride, strips=strips, rows=b.outputs, floors=b.floors,
                ticket=b.ticket(), **x.arguments,
            ),
        ]  # fmt: skip

    def _norm(self, x: np.ndarray, weight: np.ndarray, rows: np.ndarray, into: Sink, fine: int = 0) -> Call:
        spec = norm.rmsnorm(format=into.format, cols=self.config.hidden_size, fine=fine)
        eps = self.config.rms_norm_eps
        return Call(spec, x=x, stride=x.strides[0], weight=weight, eps=eps, rows=rows, **into.arguments)

    def _matmul(
        self, w: Matrix, x: Sink, out: np.ndarray, rows: int, residual: bool, count: np.ndarray | None = None
    ) -> Call:
        """out = w x, or out += w x with `residual`. `count`: the buffer that holds the number of rows, where it is not
        the pass's.

        Up to 8 rows, the kernel is compiled for that number and each thread has a fixed share of strips. More rows, and
        weights without blocks, read their number from a buffer; threads draw tiles from a ticket.
        """
        b, strips = self.buffers, len(w.strips())
        common: dict[str, int | np.ndarray] = {
            "weights": w.data,
            "out": out,
            "strips": strips,
            "out_stride": out.strides[0],
        }
        spec = matmul_spec(w, rows, residual)
        if not w.format.block:
            return Call(spec, **common, x=x.q, rows=b.rows if count is None else count, ticket=b.ticket())
        if rows <= matmul.FEW:
            return Call(spec, **common, **x.arguments)
        return Call(
            spec,
            **common,
            **x.arguments,
            rows=b.rows if count is None else count,
            ticket=b.ticket(),
            **b.scratch_arguments,
        )


def _make(w: LayerWeights) -> tuple[tuple[str, int], ...]:
    """Formats and rows of a layer's matrices: layers that agree in them need the same kernels."""
    return tuple((m.format.name, m.rows) for stored in (w.qkv, w.o, w.gate_up, w.down) for m in pieces(stored))


def matmul_spec(w: Matrix, rows: int, residual: bool) -> Spec:
    """The kernel that multiplies a stored matrix by `rows` rows."""
    strips = len(w.strips())
    if w.format.block:
        return matmul.matmul(w.format.name, rows, strips, w.cols, residual)
    tall = matmul_dense.dense_tall(rows)
    return matmul_dense.dense(
        format=w.format.name, tall=tall, wide=matmul.tile_strips(strips), cols=w.cols, residual=residual
    )


def check_shapes(c: Config) -> None:
    """Raise BadInput naming a size that the kernels' vectors cannot tile."""
    for name, value, unit in (
        ("hidden_size", c.hidden_size, activations.BLOCK),
        ("intermediate_size", c.intermediate_size, activations.BLOCK),
        ("head_dim", c.head_dim, activations.BLOCK),
    ):
        if value % unit:
            raise BadInput(f"{name} is {value}; the engine needs a multiple of {unit}")
