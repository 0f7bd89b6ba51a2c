"""The page over HTTP: its files without a key, its headers, current copies, and rendering with its limits."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from tests.server.page.conftest import served


def ask(url, body=None, **headers):
    """(status, headers, body) of a GET, or of a POST where there is a body."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_the_page_comes_with_its_policy_and_is_not_sent_twice(server):
    status, headers, body = ask(server)
    assert status == 200 and body.startswith(b"<!doctype html>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers.get_all("X-Content-Type-Options") == ["nosniff"]  # once: the guard sends it with every answer
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-cache"
    assert ask(server, **{"If-None-Match": headers["ETag"]})[::2] == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fmarkdown.py", "%2e%2e/markdown.py", "markdown.py", ""])
def test_what_is_no_file_of_the_page_is_not_found(server, name):
    assert ask(f"{server}/page/{name}")[0] in (400, 404)


def test_markdown_is_rendered(server):
    status, headers, body = ask(f"{server}/page/render", json.dumps({"text": "*x* <b>"}).encode())
    assert status == 200 and json.loads(body) == {"html": "<p><em>x</em> &lt;b&gt;</p>\n"}
    assert headers["Content-Type"] == "application/json" and "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"text": 1}', b"\xff", b"[" * 100_000, b'{"text": null}'])
def test_a_wrong_body_is_refused_in_one_line(server, body):
    status, _, answer = ask(f"{server}/page/render", body or b" ")
    assert status == 400 and "\n" not in json.loads(answer)["error"]["message"]


def test_the_page_needs_no_key_and_rendering_does(demo_store, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("a-secret-key\n", encoding="utf-8")
    with served("--api-key-file", str(keys)) as (url, _):
        assert ask(url)[0] == 200 and ask(f"{url}/page/main.js")[0] == 200
        body = b'{"text": "x"}'
        assert ask(f"{url}/page/render", body)[0] == 401
        assert ask(f"{url}/page/render", body, Authorization="Bearer a-secret-key")[0] == 200
