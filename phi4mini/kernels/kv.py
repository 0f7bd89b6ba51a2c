"""How the KV cache lies in memory: pages of 64 tokens, one region a KV head, in the order in which attention reads it.

A page holds all layers one after the other, so that the cache takes memory only as far as it has been written. With an
array a layer, each would be rounded up to a huge page: 64 MB for the first token, of which this saves 60.

Int8: a token's K and V of one head are 8-bit integers under one f32 scale each (max|x| / 127). K is stored plus 128,
because dot4 multiplies unsigned by signed. A line of K is 16 tokens x 4 dims, a line of V 16 dims x 4 tokens: q . k
sums over dims and p . v over tokens, and dot4 sums four neighbours.

    K  [4 groups of 16 tokens][dim / 4][16 tokens][4 dims] u8
    V  [16 groups of 4 tokens][dim / 16][16 dims][4 tokens] s8
    scale of K [64] f32, scale of V [64] f32

F32:    K  [4 groups of 16 tokens][dim][16 tokens]                 V  [64 tokens][dim]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PAGE = 64  # tokens of a page: one block of the online softmax, whose scores of one query fill four vectors
# Tokens after which attention starts a new partial result, on every machine and for any number of threads: the cut is
# part of the order of sums. Short enough that one row of 8,192 tokens gives 8 items a head to share out.
CHUNK = 1024


def query_names(params: dict[str, Any]) -> dict[str, str | int | None]:
    """What `query` is, by the staging parameter `kind`, the KV cache's: queries are stored as keys are. `units`: the
    heads of q, k and v together.
    """
    return {
        "query": "i8" if params["kind"] == "int8" else "f32",
        "units": params["heads"] + 2 * params["kv_heads"],
    }


@dataclass(frozen=True)
class KVLayout:
    """Byte offsets inside one head's region of one page of one layer."""

    kind: str  # "int8" or "f32"
    head_dim: int
    kv_heads: int

    @property
    def width(self) -> int:
        """Bytes of one stored number."""
        return 1 if self.kind == "int8" else 4

    @property
    def v_offset(self) -> int:
        return PAGE * self.head_dim * self.width

    @property
    def scale_offset(self) -> int:
        return 2 * self.v_offset

    @property
    def head_bytes(self) -> int:
        return self.scale_offset + (2 * PAGE * 4 if self.kind == "int8" else 0)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in one layer."""
        return self.head_bytes * self.kv_heads
