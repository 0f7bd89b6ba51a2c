"""Pages of the KV cache: who holds which. A page is 64 tokens in every layer; the bytes themselves are the network's.

Knows no token and no request; a page is a number. Sequences take pages as they grow and give them back when they end.
"""

from __future__ import annotations

from phi4mini.errors import NoSpace
from phi4mini.kernels.kv import PAGE


class Pages:
    """A fixed number of pages, handed out lowest first so that memory that was never needed is never touched."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def grow(self, table: list[int], tokens: int) -> None:
        """Extend a sequence's page table to hold `tokens` tokens, or raise NoSpace and change nothing."""
        need = pages_for(tokens) - len(table)
        if need > self.free:
            raise NoSpace(
                f"the KV cache has {self.count} pages of {PAGE} tokens and {self.free} are free, {need} more are needed"
            )
        table.extend(self._free.pop() for _ in range(need))

    def release(self, table: list[int]) -> None:
        """Take all pages of a sequence back; its table is emptied."""
        self._free.extend(sorted(table, reverse=True))
        table.clear()


def pages_for(tokens: int) -> int:
    """Pages that hold a number of tokens."""
    return -(-tokens // PAGE)
