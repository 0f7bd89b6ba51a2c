"""Pages are handed out, held by several, kept while idle and forgotten, and every one of them is counted."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.engine.cache.pages import Content, Node, Pages, pages_for
from phi4mini.errors import NoSpace
from phi4mini.kernels.kv import PAGE, KVLayout


def test_pages_count_holders() -> None:
    pages, first, second = Pages(4), [], []
    pages.grow(first, 3 * PAGE)
    node = pages.learn(Node(Node(None, b"", None), b"tokens", first[0]))
    second.append(pages.hold(node))
    assert (first, second, pages.free) == ([0, 1, 2], [0], 1)
    pages.release(first)
    assert (pages.free, pages.idle) == (3, 0)
    pages.release(second)
    assert (pages.free, pages.idle) == (4, 1)
    pages.grow(first, 3 * PAGE)
    assert node.known, "unused pages go first"
    pages.grow(first, 4 * PAGE)
    assert sorted(first) == [0, 1, 2, 3] and not node.known and pages.free == 0


def test_a_page_is_handed_out_lowest_first_and_none_when_too_few_are_free() -> None:
    pages, table = Pages(3), []
    pages.grow(table, PAGE + 1)
    assert table == [0, 1] and pages_for(PAGE + 1) == 2
    with pytest.raises(NoSpace, match="3 pages of 64 tokens and 1 are free, 2 more are needed"):
        pages.grow(table, 4 * PAGE)
    assert table == [0, 1] and pages.free == 1


def test_swapping_keeps_the_known_page() -> None:
    pages, first, second = Pages(2), [], []
    pages.grow(first, PAGE)
    pages.grow(second, PAGE)
    node = pages.learn(Node(Node(None, b"", None), b"tokens", first[0]))
    assert pages.swap(second[0], node) == first[0] and pages.free == 1
    pages.release(first)
    assert pages.idle == 0, "the second request holds it"


def test_disowning_forgets_a_page_and_all_that_continue_it() -> None:
    pages, table, other = Pages(3), [], []
    pages.grow(table, 2 * PAGE)
    root = Node(None, b"", None)
    first = pages.learn(Node(root, b"a", table[0]))
    second = pages.learn(Node(first, b"b", table[1]))
    other.append(pages.hold(first))
    private, forgotten = pages.disown(table)
    assert private == [table[1]] and forgotten == [first, second]
    assert not first.known and not second.known and not root.children


@pytest.mark.parametrize("kind", ["int8", "f32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_damages_a_page(kind: str, value: float) -> None:
    """Of int8 values the scales are looked at: a damaged value can only have come with a damaged scale."""
    layout = KVLayout(kind, 32, 2)
    content = Content(np.zeros((2, 3, layout.page_bytes), np.uint8), layout)
    assert content.finite(0) and content.finite(1)
    at = layout.scale_offset if kind == "int8" else 0
    content.cache[1, 2, layout.head_bytes + at :][:4] = np.array([value], np.float32).view(np.uint8)
    assert content.finite(0) and not content.finite(1)
    content.view(1)[:] = 0
    assert content.finite(1), "a view is the page itself"
