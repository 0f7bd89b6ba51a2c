"""The prefix cache: a request begins with the pages that earlier requests computed for the same first tokens.

Known pages form a tree (cache/pages.py). The edge from a page to the next is the next page's 64 token ids, so a path
from the root spells a prompt. The first edge also spells everything else that the page's bits, or the right to see
them, depend on: LongRoPE set, salt and adapter. Requests that differ in one of these have trees of their own. The key
is the tokens themselves: no hash decides what is served from memory.

Only full pages are shared. The last token of a prompt is always computed, because its logits are needed.
"""

from __future__ import annotations

import numpy as np

from phi4mini.engine.cache.disk import Disk
from phi4mini.engine.cache.pages import Content, Node, Pages
from phi4mini.engine.request import Request
from phi4mini.errors import NoSpace
from phi4mini.kernels.kv import PAGE

READ_BYTES = 32 << 20  # read from disk in one pass: about as long as a few prompt rows take, so decoding hardly waits


class Prefix:
    """The tree of known pages, in memory and (with `disk`) in files. `read_bytes`: at most so many from disk a pass."""

    def __init__(self, pages: Pages, content: Content, disk: Disk | None = None, read_bytes: int = READ_BYTES) -> None:
        self.pages, self.content, self.disk, self.read_bytes = pages, content, disk, read_bytes
        self._root = Node(None, disk.identity if disk else b"", None)
        self._to_read = 0  # pages that this pass may still read from disk
        self.new_pass()

    def new_pass(self) -> None:
        """Renew the number of pages that may be read from disk, at least one."""
        self._to_read = max(1, self.read_bytes // self.content.nbytes)

    def attach(self, request: Request) -> bool:
        """Give a request that has computed nothing the known pages of its first tokens.

        False: more of them lie on disk, and this pass has read its share; call again in the next pass.
        """
        seat, most = request.seat, (len(request.ids) - 1) // PAGE
        node = seat.node or self._root
        # a request that waits for the disk may find its last page forgotten as damaged; nothing continues such a page
        while seat.shared < most and (node is self._root or node.known):
            key = _edge(request)
            found = node.children.get(key)
            if found:
                seat.table.append(self.pages.hold(found))
            elif self.disk and self.disk.has(made := Node(node, key, None)):
                if not self._to_read:
                    return False
                found = self._restore(self.disk, seat.table, made)
            if not found:
                break
            seat.share(found)
            node = found
        if self.disk and seat.node:
            self.disk.touch(seat.node)
        return True

    def keep(self, request: Request) -> None:
        """Put the full pages of a request into the tree.

        Two requests with the same prefix may compute it side by side. The second to finish a page finds the first's in
        the tree, takes that one and frees its own: the same tokens give the same bits, so nothing is lost.
        """
        seat = request.seat
        before = seat.shared
        while seat.shareable and (seat.shared + 1) * PAGE <= seat.cached:
            page = seat.table[seat.shared]
            if not self.content.finite(page) or (seat.node and not seat.node.known):
                seat.shareable = False  # damaged, or behind a page that was forgotten as damaged
                break
            parent, key = seat.node or self._root, _edge(request)
            node = parent.children.get(key)
            if node:
                seat.table[seat.shared] = self.pages.swap(page, node)
            else:
                node = self.pages.learn(Node(parent, key, page))
                if self.disk:
                    self.disk.put(node)
            seat.share(node)
        if self.disk and seat.node and seat.shared > before:
            self.disk.touch(seat.node)

    def disown(self, request: Request) -> list[int]:
        """After a numerical error: remove the request's pages, and all that continue them, from the tree and the disk.
        Returns the pages that no other request holds.
        """
        private, forgotten = self.pages.disown(request.seat.table)
        request.seat.shareable = False
        if self.disk:
            self.disk.remove(forgotten)
        return private

    def _restore(self, disk: Disk, table: list[int], node: Node) -> Node | None:
        """Read a page from disk into a new place at the end of `table`. None if no page is free or the file is of no
        use; in the second case the request keeps the empty page and computes into it.
        """
        try:
            self.pages.grow(table, (len(table) + 1) * PAGE)
        except NoSpace:
            return None
        self._to_read -= 1
        node.page = table[-1]
        return self.pages.learn(node) if disk.read(node, self.content.view(table[-1])) else None


def _edge(request: Request) -> bytes:
    """The key of a request's next page under the page before it: 64 ids, int32; of the first page, also what else
    tells requests apart. `repr` of the tuple quotes its strings, so no salt can imitate another field.
    """
    first = request.seat.shared * PAGE
    tokens = np.array(request.ids[first : first + PAGE], np.int32).tobytes()
    return tokens if first else repr((request.seat.rope_set, request.salt, request.adapter)).encode() + tokens
