"""Pages of the KV cache: who holds which, and which of them hold tokens that another request may begin with.

A page is 64 tokens in every layer. Sequences take pages as they grow and give them back when they end. A full page
whose content is known stays in a tree, keyed by its tokens under those before it, and several sequences may hold it;
when nobody does, it stays until its place is needed, the least recently used first. Only full pages are shared, and
a sequence writes behind them, so no page is ever written while somebody else reads it.

The key is the tokens themselves: no hash decides what is served. Requests of different LongRoPE sets or salts have
trees of their own.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from phi4mini.errors import NoSpace
from phi4mini.kernels.kv import PAGE, KVLayout

if TYPE_CHECKING:
    from phi4mini.engine.cache.disk import Disk
    from phi4mini.engine.request import Request

_LOAD = 32 << 20  # bytes read from disk in one pass, so that those who decode wait no longer than for a few more rows


class Node:
    """A page whose content is known: 64 tokens (int32, as bytes) after those of its parent, and at the first page of a
    sequence what else tells it apart. `page` is None once it is forgotten.
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
        """Forget it."""
        self.page = None
        if self.parent:
            self.parent.children.pop(self.tokens, None)


class Content:
    """The bytes of pages: uint8 (pages, layers, page_bytes)."""

    def __init__(self, cache: np.ndarray, layout: KVLayout) -> None:
        self.cache, self.layout = cache, layout
        self.layers = cache.shape[1]
        self.nbytes = layout.page_bytes * self.layers  # of one page

    def view(self, page: int) -> np.ndarray:
        """One page as uint8 (nbytes,), in place."""
        return self.cache[page].reshape(-1)

    def finite(self, page: int) -> bool:
        """Whether all numbers of a page are: an int8 is when its scale is."""
        at = self.layout.scale_offset if self.layout.kind == "int8" else 0
        heads = self.cache[page].reshape(self.layers * self.layout.kv_heads, -1)
        return bool(np.isfinite(heads[:, at:].view(np.float32)).all())


class Pages:
    """A fixed number of pages, handed out lowest first so that memory that was never needed is never touched."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._holders = [0] * count
        self._known: dict[int, Node] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # known pages that nobody holds, the next to go first

    @property
    def free(self) -> int:
        """Pages that can be handed out, `idle` ones included."""
        return len(self._free) + len(self._idle)

    @property
    def idle(self) -> int:
        """Pages that nobody holds and that are kept for who may begin with their tokens."""
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
        """Take all pages of a sequence back; its table is emptied. Known pages that nobody else holds become idle, the
        last of the sequence first: what leads to a page outlives it.
        """
        self._free.extend(sorted((page for page in reversed(table) if self._let_go(page)), reverse=True))
        table.clear()

    def learn(self, node: Node) -> Node:
        """Note what a held page contains."""
        assert node.page is not None
        self._known[node.page] = node
        return node.link()

    def hold(self, node: Node) -> int:
        """Take a known page beside whoever holds it."""
        assert node.page is not None
        self._idle.pop(node.page, None)
        self._holders[node.page] += 1
        return node.page

    def swap(self, page: int, node: Node) -> int:
        """Give a page back for a known one of the same content."""
        kept = self.hold(node)
        if self._let_go(page):
            self._free.append(page)
        return kept

    def disown(self, table: list[int]) -> tuple[list[int], list[Node]]:
        """Forget what a sequence's pages contain and all that was built on them. Returns the pages that nobody else
        holds, and what was forgotten.
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
        """One holder fewer. True if the page is now free for anything."""
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


class Prefix:
    """Which pages a request may begin with, in memory and on disk."""

    def __init__(self, pages: Pages, content: Content, disk: Disk | None = None) -> None:
        self.pages, self.content, self.disk = pages, content, disk
        self._top = Node(None, disk.identity if disk else b"", None)
        self._to_load = 0
        self.new_pass()

    def new_pass(self) -> None:
        """Allow as many bytes from disk as one pass may read."""
        self._to_load = max(1, _LOAD // self.content.nbytes)

    def attach(self, request: Request) -> bool:
        """Give a request that has computed nothing the pages that hold its first tokens, never the last token: its
        logits are wanted. False: more lies on disk, ask again in the next pass.
        """
        node, most = request.node or self._top, (len(request.ids) - 1) // PAGE
        while request.shared < most and (node is self._top or node.known):
            tokens = _block(request)
            found = node.children.get(tokens)
            if found:
                request.table.append(self.pages.hold(found))
            elif self.disk and self.disk.has(made := Node(node, tokens, None)):
                if not self._to_load:
                    return False
                found = self._restore(self.disk, request.table, made)
            if not found:
                break
            node = self._advance(request, found)
        if self.disk and request.node:
            self.disk.touch(request.node)
        return True

    def keep(self, request: Request) -> None:
        """Make the full pages of a request known. Where another request was faster, its page is taken instead: the
        same tokens give the same bits.
        """
        before = request.shared
        while request.shareable and (request.shared + 1) * PAGE <= request.cached:
            page = request.table[request.shared]
            if not self.content.finite(page) or (request.node and not request.node.known):
                request.shareable = False  # damaged, or built on what was forgotten
                break
            parent, tokens = request.node or self._top, _block(request)
            node = parent.children.get(tokens)
            if node:
                request.table[request.shared] = self.pages.swap(page, node)
            else:
                node = self.pages.learn(Node(parent, tokens, page))
                if self.disk:
                    self.disk.put(node)
            self._advance(request, node)
        if self.disk and request.node and request.shared > before:
            self.disk.touch(request.node)

    def disown(self, request: Request) -> list[int]:
        """After a numerical error: forget the request's pages, here and on disk. Returns those that only it holds."""
        private, forgotten = self.pages.disown(request.table)
        request.shareable = False
        if self.disk:
            self.disk.remove(forgotten)
        return private

    def _advance(self, request: Request, node: Node) -> Node:
        request.node = node
        request.shared += 1
        request.cached = max(request.cached, request.shared * PAGE)
        return node

    def _restore(self, disk: Disk, table: list[int], node: Node) -> Node | None:
        """Read a page from disk into a new place. What cannot be read leaves an empty page to the request."""
        try:
            self.pages.grow(table, (len(table) + 1) * PAGE)
        except NoSpace:
            return None
        self._to_load -= 1
        node.page = table[-1]
        return self.pages.learn(node) if disk.read(node, self.content.view(table[-1])) else None


def pages_for(tokens: int) -> int:
    """Pages that hold a number of tokens."""
    return -(-tokens // PAGE)


def _block(request: Request) -> bytes:
    """The key of a request's next page: its tokens, and at the start LongRoPE's set and the salt before them."""
    first = request.shared * PAGE
    tokens = np.array(request.ids[first : first + PAGE], np.int32).tobytes()
    return tokens if first else repr((request.rope_set, request.salt)).encode() + tokens
