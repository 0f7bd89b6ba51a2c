"""Pages of the KV cache: which are free, which are held by how many requests, and which have known content.

A page is 64 tokens in every layer. A request takes pages as it grows and releases them when it ends or is preempted.
A full page whose tokens are known stands in a tree as a `Node` (schedule/prefix.py builds and searches the tree), and
any number of requests may hold it. A known page that nobody holds is idle: it keeps its content until its place is
needed, and the least recently used page goes first. So a page is always in one of three states:

    free    nobody holds it, its content means nothing
    held    by one request, or by several if it is known
    idle    nobody holds it, its content is known

It knows neither requests nor files.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from phi4mini.errors import NoSpace
from phi4mini.kernels.kv import PAGE, KVLayout


class Node:
    """A page of known content in the tree: `tokens` is its key under `parent` (schedule/prefix.py). `page` is None at
    the root, and once the page is forgotten.

    `digest` hashes all keys from the root on. It names the page's file on disk; in memory nothing is decided by it.
    """

    __slots__ = ("children", "depth", "digest", "page", "parent", "tokens")

    def __init__(self, parent: Node | None, tokens: bytes, page: int | None) -> None:
        self.parent, self.tokens, self.page = parent, tokens, page
        self.digest: bytes = hashlib.sha256((parent.digest if parent else b"") + tokens).digest()
        self.depth: int = parent.depth + 1 if parent else 0
        self.children: dict[bytes, Node] = {}

    @property
    def known(self) -> bool:
        return self.page is not None

    def link(self) -> Node:
        """Make the page findable from its parent."""
        if self.parent:
            self.parent.children[self.tokens] = self
        return self

    def unlink(self) -> None:
        """Forget the page: its parent no longer leads to it."""
        self.page = None
        if self.parent:
            self.parent.children.pop(self.tokens, None)


class Content:
    """The bytes of the pages: `cache` is uint8 (pages, layers, page_bytes)."""

    def __init__(self, cache: np.ndarray, layout: KVLayout) -> None:
        self.cache, self.layout = cache, layout
        self.layers = cache.shape[1]
        self.nbytes = layout.page_bytes * self.layers  # of one page

    def view(self, page: int) -> np.ndarray:
        """One page as uint8 (nbytes,): a view, not a copy."""
        return self.cache[page].reshape(-1)

    def finite(self, page: int) -> bool:
        """True if every value is finite; an int8 value is finite if its scale is."""
        at = self.layout.scale_offset if self.layout.kind == "int8" else 0
        heads = self.cache[page].reshape(self.layers * self.layout.kv_heads, -1)
        return bool(np.isfinite(heads[:, at:].view(np.float32)).all())


class Pages:
    """A fixed number of pages. The lowest free number is handed out first: memory becomes resident when it is first
    written, so pages that were never needed take none.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._holders = [0] * count  # requests that hold each page
        self._known: dict[int, Node] = {}  # by page
        self._idle: OrderedDict[int, None] = OrderedDict()  # in the order in which they will be forgotten

    @property
    def free(self) -> int:
        """Pages that can be handed out, `idle` ones included."""
        return len(self._free) + len(self._idle)

    @property
    def idle(self) -> int:
        """Pages that nobody holds, kept for requests that begin with their tokens."""
        return len(self._idle)

    def grow(self, table: list[int], tokens: int) -> None:
        """Extend a sequence's page table to hold `tokens` tokens, or raise NoSpace and change nothing."""
        need = pages_for(tokens) - len(table)
        if need > self.free:
            raise NoSpace(
                f"the KV cache has {self.count} pages of {PAGE} tokens and {self.free} are free, {need} more are needed"
            )
        table.extend(self._take() for _ in range(need))

    def release(self, table: list[int]) -> None:
        """Free all pages of a request; its table is emptied. Known pages that nobody else holds become idle, the last
        of the request first: a page can only be found through the pages before it, so those must be forgotten later.
        """
        self._free.extend(sorted((page for page in reversed(table) if self._let_go(page)), reverse=True))
        table.clear()

    def learn(self, node: Node) -> Node:
        """Enter a held page into the tree: its content is known from now on."""
        assert node.page is not None
        self._known[node.page] = node
        return node.link()

    def hold(self, node: Node) -> int:
        """One more request holds a known page; returns its number."""
        assert node.page is not None
        self._idle.pop(node.page, None)
        self._holders[node.page] += 1
        return node.page

    def swap(self, page: int, node: Node) -> int:
        """Exchange a held page for a known one of the same content; returns the known page's number."""
        kept = self.hold(node)
        if self._let_go(page):
            self._free.append(page)
        return kept

    def disown(self, table: list[int]) -> tuple[list[int], list[Node]]:
        """Remove a request's pages, and all pages that continue them, from the tree. Returns the pages of the table
        that no other request holds, and the removed nodes.
        """
        stack = [self._known[page] for page in table[:1] if page in self._known]
        forgotten: list[Node] = []
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            forgotten.append(node)
            if node.page is not None:
                self._forget(node.page)
        return [page for page in table if self._holders[page] == 1], forgotten

    def _forget(self, page: int) -> None:
        self._known.pop(page).unlink()
        if page in self._idle:
            del self._idle[page]
            self._free.append(page)

    def _let_go(self, page: int) -> bool:
        """One holder fewer. True if the page is free now, false if it is still held or became idle."""
        self._holders[page] -= 1
        if self._holders[page]:
            return False
        if page in self._known:
            self._idle[page] = None
            return False
        return True

    def _take(self) -> int:
        if not self._free:
            self._forget(next(iter(self._idle)))
        page = self._free.pop()
        self._holders[page] = 1
        return page


def pages_for(tokens: int) -> int:
    """Pages that hold a number of tokens."""
    return -(-tokens // PAGE)
