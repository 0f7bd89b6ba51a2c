"""The memory of a pass: every array that kernels read and write, but weights and KV cache.

The arrays never move. A recorded pass holds their addresses, so it can run again without being patched. Each is
allocated for the largest pass; memory that no pass has touched yet is not resident.
"""

from __future__ import annotations

import numpy as np

from phi4mini.engine.batch import Batch
from phi4mini.formats.matrix import Matrix
from phi4mini.kernels import attention, matmul
from phi4mini.kernels.kv import CHUNK
from phi4mini.kernels.threads.pool import aligned
from phi4mini.model.arrays import Weights, pieces
from phi4mini.model.config import Config

MAX_ROWS = 258  # rows of a pass: whole register tiles of 3 rows. Prompts beyond go in chunks; 512 rows are no faster
MAX_OUTPUTS = 64  # rows of logits of one pass: 64 x 200,064 f32 are 51 MB
PARTIAL_ROWS = 5120  # rows x chunks of 1,024 tokens of attention's partial results: 64 MB at Phi-4-mini's size
OFF_POWER = 64  # extra floats between the rows of an output: rows 4,096 bytes apart would share a few sets of a cache
PADDING = 12  # rows beyond the last that a register tile may compute; their values are ignored
OUTPUT_ROWS = MAX_OUTPUTS + PADDING
SLACK = 64 * 1024  # extra bytes between the threads' scratch areas, so that no two threads write one memory page


def rows_that_fit(longest: int) -> int:
    """How many rows a pass may have when its longest sequence has `longest` tokens. Attention keeps a partial result
    for each row and each 1,024 tokens it sees; this bounds their memory, so long sequences get smaller chunks.
    """
    return max(8, min(MAX_ROWS, PARTIAL_ROWS // (longest // CHUNK + 1)))


class Sink:
    """Activations as one matrix reads them: f32 (rows, cols), or int8 with scales, start values and sums
    (kernels/activations.py).
    """

    def __init__(self, matrix: Matrix, rows: int) -> None:
        f = matrix.format
        self.format = f.name
        width = f.padded(matrix.cols)
        self.q = aligned((rows, width), np.int8 if f.block else np.float32)
        few = rows if f.block else 0
        self.scale = aligned((few, width // f.act_group))
        self.start = aligned((few, width // f.run), np.int32)
        self.sums = aligned((few, width // f.act_group))

    @property
    def arguments(self) -> dict[str, np.ndarray]:
        return {"q": self.q, "scale": self.scale, "start": self.start, "sums": self.sums}


class Buffers:
    """Arrays by role. Their leading dimension is the largest pass plus padding."""

    def __init__(self, config: Config, weights: Weights, threads: int) -> None:
        c, rows, outputs = config, MAX_ROWS + PADDING, OUTPUT_ROWS
        self.config, self.capacity, self.threads = c, rows, threads
        self._sinks: dict[tuple[str, str, int], Sink] = {}
        self.x = aligned((rows, c.hidden_size + OFF_POWER))  # the residual stream
        self.qkv = aligned((rows, c.qkv_rows + OFF_POWER))
        self.gate_up = aligned((rows, 2 * c.intermediate_size + OFF_POWER))
        self.q = aligned((rows, c.num_heads * c.head_dim))
        self.q_scale = aligned((rows, c.num_heads))
        self.q_start = aligned((rows, c.num_heads), np.int32)
        self.partial = aligned((PARTIAL_ROWS + rows) * c.num_heads * attention.partial_floats(c.head_dim))
        self.cos = aligned((rows, c.rotary_dim // 2))
        self.sin = aligned((rows, c.rotary_dim // 2))
        self.positions, self.pages, self.slots = (aligned(rows, np.int64) for _ in range(3))
        self.tiles = aligned((rows, attention.TILE_WORDS), np.int64)
        self.rows, self.outputs, self.counts = (aligned(8, np.int64) for _ in range(3))
        self.wanted = aligned(outputs, np.int64)
        self.picked = aligned((outputs, c.hidden_size))
        self.logits = aligned((outputs, len(weights.head.strips()) * 16))
        self.floors = aligned(outputs)
        matmuls = sum(len(pieces(m)) for w in weights.layers for m in (w.qkv, w.o, w.gate_up, w.down))
        self.tickets = aligned((matmuls + c.num_layers + 2, 8), np.int64)  # attention has one a layer, the head two
        self.tickets_used = 0
        self._scratch(c, weights, threads)
        self._tables: list[np.ndarray] = []

    def sink(self, role: str, matrix: Matrix) -> Sink:
        """The buffer from which `matrix` reads its activations. Matrices of one role, format and width share it."""
        key = role, matrix.format.name, matrix.cols
        if key not in self._sinks:
            self._sinks[key] = Sink(matrix, 2 * OUTPUT_ROWS if role == "output" else self.capacity)
        return self._sinks[key]

    def ticket(self) -> np.ndarray:
        """The next unused counter, i64, for an operation whose threads draw tiles from it. Zero as a pass begins."""
        self.tickets_used += 1
        return self.tickets[self.tickets_used - 1]

    def queries(self, kind: str) -> dict[str, np.ndarray]:
        """The rotated queries as a KV cache of this kind needs them: int8 with scales, or f32 in the same memory."""
        rows, width = self.q.shape
        q = self.q.reshape(-1).view(np.int8)[: rows * width].reshape(rows, width) if kind == "int8" else self.q
        return {"q": q, "q_scale": self.q_scale, "q_start": self.q_start}

    @property
    def scratch_arguments(self) -> dict[str, int | np.ndarray]:
        return {"scratch": self._scratch_memory, "scratch_stride": self._scratch_stride}

    def load(self, batch: Batch, embed: Matrix, tall: int) -> None:
        """Write a pass's inputs to where its program reads them. `tall`: rows of an attention tile."""
        n, outputs = len(batch.ids), len(batch.wanted)
        self.x[:n, : embed.cols] = embed.rows_at(batch.ids)
        for name in ("positions", "pages", "slots", "cos", "sin"):
            getattr(self, name)[:n] = getattr(batch, name)
        self.rows[0], self.outputs[0] = n, outputs
        self.wanted[:outputs] = batch.wanted
        tiles = self._cut(batch, tall)
        self.tiles[: len(tiles)] = tiles
        chunks = int(batch.positions.max()) // CHUNK + 1
        together = attention.heads_together(len(tiles) * chunks, self.config.num_kv_heads, self.threads)
        self.counts[:3] = len(tiles), chunks, together
        self.tickets[:] = 0

    def _cut(self, batch: Batch, tall: int) -> np.ndarray:
        """Cut runs into attention tiles of at most `tall` rows, int64 (tiles, 4): first row, rows, position, address of
        the page table. Kernels follow that address, so the tables are kept alive until the next pass.
        """
        self._tables = [np.ascontiguousarray(table, np.int32) for _, _, table in batch.runs]
        tiles = []
        for (first, count, _), table in zip(batch.runs, self._tables, strict=True):
            start = int(batch.positions[first])
            for row in range(0, count, tall):
                tiles.append((first + row, min(tall, count - row), start + row, table.ctypes.data))
        return np.array(tiles, np.int64)

    def _scratch(self, c: Config, weights: Weights, threads: int) -> None:
        tallest = attention.heights(c.group_size)[-1]
        need = attention.scratch_bytes(tallest, c.group_size, c.num_kv_heads, c.head_dim)
        layers = (m for w in weights.layers for stored in (w.qkv, w.o, w.gate_up, w.down) for m in pieces(stored))
        matrices = [weights.head, *layers]
        for m in matrices:
            if m.format.block:
                need = max(need, matmul.scratch_bytes(m.format.name, matmul.tile_strips(len(m.strips()))))
        self._scratch_stride = -(-need // 4096) * 4096 + SLACK
        self._scratch_memory = aligned(self._scratch_stride * threads, np.uint8, 4096)
