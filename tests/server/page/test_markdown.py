"""Markdown to HTML: nothing that runs, nothing lost, bounded in time, and half an answer renders sanely."""

from __future__ import annotations

import re
import time
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nh3", reason="needs the extra serve")

from phi4mini.server.page import markdown
from phi4mini.server.page.formulas import MATH_ATTRIBUTES, MATH_TAGS
from phi4mini.server.page.markdown import MAX_NESTING, MAX_TEXT, render
from tests.server.page.elements import HOSTILE, Elements

PLAIN = '<pre class="plain">'
ATTRIBUTES = {"class", "href", "title", "target", "rel", "start", "type"} | MATH_ATTRIBUTES


def assert_inert(html: str) -> None:
    """Only allowed elements and attributes, and addresses of three kinds."""
    for tag, attributes in Elements(html).elements:
        assert tag in markdown._TAGS | MATH_TAGS, tag
        assert set(attributes) <= ATTRIBUTES, (tag, attributes)
        if "href" in attributes:
            assert re.match(r"(https?://|mailto:)", str(attributes["href"])), attributes


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("around", ["{}", "> {}", "- {}", "a **{}** b"])
def test_B18_stored_xss_is_inert(text, around):
    assert_inert(render(around.format(text)))


def test_B18_html_in_an_answer_is_shown_as_its_text():
    assert Elements(render("<img src=x onerror=alert(1)>")).text.strip() == "<img src=x onerror=alert(1)>"


MARKS = st.text(alphabet="<>\"'`*_$\\()[]{}|-#!&;:=/ \nabx&1", max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(MARKS, st.sampled_from(HOSTILE)), max_size=4).map("".join))
def test_B18_no_mixture_of_marks_is_anything_but_inert(text):
    assert_inert(render(text))


LARGE = {
    "a megabyte": "word *em* " * 100_000,
    "ten thousand columns": "|a" * 10_000 + "|\n" + "|-" * 10_000 + "|\n" + "|b" * 10_000 + "|\n",
    "many rows": "|a|b|\n|-|-|\n" + "|c|d|\n" * 20_000,
    "most rows": "|a|b|\n|-|-|\n" + "|c|d|\n" * 33_000,
    "cells that are missing": "|a" * 1_000 + "|\n" + "|-" * 1_000 + "|\n" + "x\n" * 64,
    "tables in quotes": "> |a|b|\n> |-|-|\n" + "> |c|d|\n" * 20_000,
    "five thousand quotes": ">" * 5_000 + " x",
    "quotes line by line": "\n".join(">" * depth + " x" for depth in range(600)),
    "lists in lists": "\n".join("  " * depth + "- x" for depth in range(400)),
    "open brackets": "[" * 50_000,
    "open pictures": "![" * 50_000,
    "stars": "*a **b " * 20_000,
    "back-ticks": "".join("`" * run + " " for run in range(600)),
    "dollars": "$a " * 60_000,
    "open formulas": "\\(" * 60_000,
    "entities": "&a" * 60_000,
    "slow lexer": "```perl\n" + "m{" * 30_000,
    "large code": "```js\n" + "a/" * 50_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_B18_large_and_nested_texts_take_less_than_a_second(name):
    """Seconds of this thread, which another process on the machine does not lengthen."""
    start = time.thread_time()
    html = render(LARGE[name])
    assert time.thread_time() - start < 1.0
    assert html.startswith(PLAIN) or len(html) < 3_000_000


@pytest.mark.parametrize("text", ["x" * (MAX_TEXT + 1), ">" * (MAX_NESTING + 9) + " the end", "- " * 90 + "the end"])
def test_what_is_too_much_is_plain_and_whole(text):
    html = render(text)
    assert html.startswith(PLAIN) and unescape(html.removeprefix(PLAIN).removesuffix("</pre>")) == text


def test_a_spent_budget_gives_the_plain_text(monkeypatch):
    monkeypatch.setattr(markdown, "BUDGET", -1.0)
    assert render("*x* <b>") == f"{PLAIN}*x* &lt;b&gt;</pre>"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=30))
def test_no_word_is_lost(words):
    """Words between Markdown's marks arrive, whatever the marks mean."""
    marks = ["\n\n", " ", " *", "* ", "\n- ", "\n> ", "\n# ", " | ", "\n```\n", " $", " [", "](", "\n[a]: "]
    text = "".join(word + marks[(len(word) * 7 + at) % len(marks)] for at, word in enumerate(words))
    html = render(text)
    found = unescape(html)  # with attributes: the language of a fence and an address count as shown
    missing = [word for word in words if word not in found]
    assert missing == [] or "<math" in html


def test_tables_are_aligned_by_classes():
    html = render("| a | b |\n|:--|--:|\n| 1 | 2 |")
    assert '<div class="table"><table>' in html and '<td class="right">2</td>' in html and "style" not in html


def test_code_is_highlighted_and_can_be_copied():
    html = render("```python\ndef f(): return '<b>'\n```")
    assert '<span class="hl-k">def</span>' in html and '<button class="copy" type="button">' in html
    assert Elements(html).text.split("Copy", 1)[1].strip() == "def f(): return '<b>'"


def test_code_keeps_its_first_and_last_blank_lines():
    code = "\n\n  x = 1\n\n"
    text = Elements(render(f"```python\n{code}\n```")).text.split("Copy", 1)[1]
    assert text.rstrip("\n") == code.rstrip("\n") and text.startswith("\n\n  x")


def test_an_unknown_language_is_shown_and_not_highlighted():
    html = render("```klingon\nx < y\n```")
    assert '<span class="language">klingon</span>' in html and "x &lt; y" in html and "hl-" not in html


@pytest.mark.parametrize(
    "half", ["```python\ndef f(", "~~~\nx", "- a\n  ```\n  x", "| a | b |\n|--", "**bold", "[x](htt"]
)
def test_half_an_answer_renders(half):
    html = render(half)
    assert not html.startswith(PLAIN)
    assert_inert(html)
    assert ("<pre>" in html) == ("```" in half or "~~~" in half)


def test_links_open_elsewhere_and_tell_nothing():
    html = render("[x](https://e.example)")
    assert 'target="_blank"' in html and 'rel="noopener noreferrer nofollow"' in html


def test_pictures_are_links_so_that_nothing_is_fetched():
    html = render("![a view](https://e.example/a.png)")
    assert '<a class="picture" href="https://e.example/a.png"' in html and "a view" in html and "<img" not in html


def test_link_definitions_are_shown():
    assert "e.example" in render("[1]: https://e.example")


def test_task_lists_and_line_ends():
    html = render("- [ ] open\n- [x] done\n\nfirst\nsecond [x] third")
    assert "☐ open" in html and "☑ done" in html and "first<br>" in html and "second [x] third" in html
    assert html.count('<li class="task">') == 2 and "task" not in render("- a\n\n  [x] b\n- c [x] d")


def test_lone_surrogates_and_null_bytes_are_replaced():
    assert render("a\ud800b\0c") == "<p>a\ufffdb\ufffdc</p>\n"
