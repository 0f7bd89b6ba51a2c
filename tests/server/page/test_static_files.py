"""Files and headers of the page: exact names only, current copies by ETag, a policy under which only our files run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("nh3", reason="needs the extra serve")

import phi4mini.server.page
from phi4mini.server.page.static_files import CONTENT_SECURITY_POLICY, HEADERS, page

STATIC = Path(phi4mini.server.page.__file__).parent / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
TEXTS = sorted(p for p in STATIC.iterdir() if p.suffix in (".js", ".css", ".html", ".svg"))


def named(path: Path) -> str:
    return path.name


def test_every_file_is_served_under_its_name():
    assert page().names == sorted(path.name for path in STATIC.iterdir())
    for name in page().names:
        answer = page().file(name)
        assert answer is not None and answer.status == 200 and answer.body == (STATIC / name).read_bytes()
        assert answer.headers["Content-Type"].startswith(("text/", "image/svg+xml"))
        assert HEADERS.items() <= answer.headers.items() and answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "name", ["", "/", "..", "../markdown.py", "..%2fmarkdown.py", "/etc/passwd", "markdown.py", "INDEX.HTML"]
)
def test_nothing_else_is(name):
    assert page().file(name) is None


@pytest.mark.parametrize("header", ["{}", "W/{}", '"other", {}', "*"])
def test_a_current_copy_is_not_sent_again(header):
    etag = page().file("index.html").headers["ETag"]
    answer = page().file("index.html", header.format(etag))
    assert (answer.status, answer.body) == (304, b"") and answer.headers["ETag"] == etag
    assert page().file("index.html", '"other"').status == 200


def test_the_policy_allows_our_files_and_nothing_else():
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" and rules["style-src"] == "'self'"
    assert not re.search(r"unsafe|\*|https?:|data:|blob:", CONTENT_SECURITY_POLICY)
    assert {rules[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert rules["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_no_foreign_address(path):
    """The one address that is not ours is the name of SVG's elements."""
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"']*", path.read_text(encoding="utf-8"))
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_scripts_are_short_explained_and_cannot_write_html(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// ") and text.count("\n") < 300 and max(map(len, text.splitlines())) <= 120
    sinks = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc", text)
    assert sinks == (["innerHTML"] if path.name == "markdown.js" else [])


def test_the_page_has_no_inline_script_or_style():
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_the_page_names_only_files_that_are_there():
    found = {name for path in TEXTS for name in re.findall(r"/page/([\w.-]+)", path.read_text(encoding="utf-8"))}
    found |= {name for path in SCRIPTS for name in re.findall(r'from "\./([\w.]+)"', path.read_text(encoding="utf-8"))}
    assert found - {"render", "markdown.py"} <= set(page().names)


def test_every_icon_that_is_used_exists():
    symbols = set(re.findall(r'<symbol id="(\w+)"', (STATIC / "icons.svg").read_text(encoding="utf-8")))
    used = set(re.findall(r"icons\.svg#(\w+)", (STATIC / "index.html").read_text(encoding="utf-8")))
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'icon(?:Button)?\("(\w+)"', text)) | set(re.findall(r'step\("(\w+)"', text))
    assert used <= symbols and symbols - used <= {"stop", "send", "tool"}


def test_every_element_that_scripts_ask_for_exists():
    ids = set(re.findall(r'\sid="([\w-]+)"', (STATIC / "index.html").read_text(encoding="utf-8")))
    asked = {name for path in SCRIPTS for name in re.findall(r'byId\("([\w-]+)"\)', path.read_text(encoding="utf-8"))}
    assert asked <= ids
