"""A request's seat in the KV cache: the pages it holds, how far they are filled, and which of them others may hold too.

It does not know the request. A request that loses its pages gets an empty seat and is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from phi4mini.engine.cache.pages import Node
from phi4mini.kernels.kv import PAGE
from phi4mini.model.longrope import RopeSet


@dataclass
class Seat:
    """Changed by the scheduler and the prefix cache, and by the engine as rows are computed.

    The first `shared` pages of `table` stand in the prefix tree, where other requests find them. They are full, and the
    request writes only behind them, so no page is written while another request reads it.
    """

    table: list[int] = field(default_factory=list)  # numbers of the pages, in the order of the tokens
    cached: int = 0  # leading tokens whose K and V are in the pages
    rope_set: RopeSet | None = None  # LongRoPE factors of the cached K; None while nothing is computed
    shared: int = 0  # leading pages that stand in the prefix tree
    node: Node | None = None  # where in the tree the last shared page stands
    attached: bool = False  # the prefix tree was searched for the request's first tokens, as far as it helps
    shareable: bool = True  # false after damage: no further page of the request enters the tree

    def share(self, node: Node) -> None:
        """The next page stands in the tree at `node`, and is full: its tokens need not be computed."""
        self.node = node
        self.shared += 1
        self.cached = max(self.cached, self.shared * PAGE)
