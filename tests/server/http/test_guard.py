"""Access (rows C1-C8, C10, C11): keys, Host, Origin, and secrets that are never shown."""

from __future__ import annotations

import hmac
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.process import CHAT, KEY, QUESTION, ROOT, Server, asking, environment, serving

pytest.importorskip("uvicorn", reason="needs the extra serve")

from phi4mini.errors import BadInput
from phi4mini.server.app import endpoints
from phi4mini.server.http.guard import Attempts, Guard
from phi4mini.server.logs import Log
from phi4mini.server.settings import Settings

SECOND = "another-key-of-the-tests"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FORBIDDEN = "http://evil.example"


@pytest.fixture(scope="module")
def server(demo_store, tmp_path_factory):
    """With two keys in a file."""
    demo_store()
    home = tmp_path_factory.mktemp("home")
    keys = home / "keys"
    keys.write_text(f"# of the tests\n{KEY}\n\n{SECOND}\n")
    with serving(home, "--api-key-file", str(keys), "--kv-tokens", "8192", PHI4MINI_JSON="1") as running:
        yield running


@pytest.fixture(scope="module")
def keyless(demo_store, tmp_path_factory):
    demo_store()
    options = ("--kv-tokens", "8192", "--allow-origin", "http://page.example", "--allow-host", "box.local")
    with serving(tmp_path_factory.mktemp("home"), *options) as running:
        yield running


def bearer(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", ["/", "/page/base.css", "/health", "/v2", "/metrics"])
def test_no_header_is_sent_twice(server, path):
    head = server.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    names = [line.split(b":")[0].lower() for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert b"x-content-type-options" in names and len(names) == len(set(names)), names


# ---- keys

ROWS = [pytest.param(row, id=f"{row.method} {row.path}") for row in endpoints()]
OPEN = {"/health", "/openapi.json", "/", "/page", "/favicon.ico"}  # paths that answer the same on every server


def test_C1_what_is_open_is_the_page_and_health():
    opened = {row.path for row in endpoints() if row.open}
    assert "/health" in opened
    assert {path for path in opened if not path.startswith("/page/")} <= OPEN
    assert all(row.method == "GET" for row in endpoints() if row.open)


@pytest.mark.parametrize("row", ROWS)
def test_C1_every_route_wants_a_key(server, row):
    path = re.sub(r"\{[^}]*\}", "demo", row.path)
    body = b"{}" if row.method == "POST" else None
    for wrong in ({}, bearer("wrong-key-of-the-tests"), {"x-api-key": KEY[:-1]}, {"Authorization": f"Basic {KEY}"}):
        answer = server.ask(path, body, row.method, **wrong)
        if row.open:
            assert answer.status in (200, 404)  # 404: a file of the page by a name that it does not have
        else:
            assert answer.status in (401, 429)  # 429: C11, many of these from one address
            if answer.status == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")
            if path.startswith("/v1/messages"):
                assert answer.json["type"] == "error"
    for right in (bearer(), {"x-api-key": KEY}, bearer(SECOND), {"authorization": f"bearer {KEY}"}):
        answer = server.ask(path, body, row.method, **right)
        assert answer.status not in (401, 403, 405, 429) and answer.status < 500


ROUNDABOUT = [
    "/v1/models?",
    "//v1/models",
    "/v1/%2e%2e/v1/models",
    "/health/../v1/models",
    "/health/%2e%2e/v1/models",
    "/page/../v1/models",
    "/page/%2e%2e/v1/models",
    "/page/..%2fv1/models",
    "/V1/models",
    "/v1/models/",
    "/v1/models;/health",
    "/v1/models%00/health",
    "/HEALTH",
    "/health%2f..%2fmetrics",
    "/metrics#/health",
    "/metrics?x=/health",
]


@pytest.mark.parametrize("path", ROUNDABOUT)
@pytest.mark.parametrize(
    "host", ["localhost", "evil/v1/../health?", "localhost/health?", "localhost#", "localhost@evil"]
)
def test_C2_no_spelling_of_path_or_host_skips_the_key(server, path, host):
    data = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    answer = server.raw(data, 5)
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 401, 404, 421, 429), answer[:300]
    if host == "localhost":
        assert status != 400 or b"#" in data
    assert b'"data"' not in answer and b"phi4mini_" not in answer


def test_C3_keys_are_compared_by_digest_in_constant_time(monkeypatch):
    """Every key is compared, by compare_digest, whether or not an earlier one fits."""
    seen = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (seen.append((a, b)), a == b)[1])
    guard = Guard(None, Settings(keys=(KEY, SECOND)), Log(), lambda *_: False, lambda *_: None)
    owners = [guard._owner(given) for given in (KEY, SECOND, "wrong-one", None)]
    assert owners[0] and owners[1] and owners[0] != owners[1] and owners[2:] == [None, None]
    assert len(seen) == 8 and all(len(a) == len(b) == 32 for a, b in seen)


# ---- pages of others


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"])
def test_C4_a_foreign_host_gets_nothing(keyless, method, host):
    for path in ("/health", "/v1/models", CHAT, "/"):
        data = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        assert int(keyless.raw(data, 5).split(b" ", 2)[1]) == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:80", "box.local"])
def test_C4_its_own_names_are_answered(keyless, host):
    data = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    assert keyless.raw(data, 5).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("origin", [FORBIDDEN, "null", "http://localhost.evil", "https://page.example", "file://"])
def test_C5_a_foreign_origin_is_refused(keyless, method, origin):
    for path in ("/v1/models", CHAT, "/health"):
        body = asking(max_tokens=1) if method == "POST" else None
        answer = keyless.ask(path, body, method, Origin=origin, Access_Control_Request_Method="POST")
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_C5_an_origin_that_was_allowed_may_ask_but_never_with_credentials(keyless):
    origin = {"Origin": "http://page.example"}
    asked = keyless.ask(CHAT, asking(max_tokens=1), **origin)
    checked = keyless.ask(CHAT, None, "OPTIONS", Access_Control_Request_Method="POST", **origin)
    assert asked.status == 200 and checked.status == 204
    for answer in (asked, checked):
        assert answer.headers["access-control-allow-origin"] == origin["Origin"]
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert set(exposed) == {"x-request-id", "retry-after", "x-ignored-fields"}
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
    assert "authorization" in checked.headers["access-control-allow-headers"]
    own = keyless.ask(CHAT, asking(max_tokens=1), Origin=f"http://127.0.0.1:{keyless.port}")
    assert own.status == 200


ASKED = [  # what browsers ask for when a page uses these programs, and what no header list is
    ("authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os", True),
    ("authorization,content-type,x-stainless-retry-count,x-stainless-timeout,x-stainless-helper-method", True),
    ("anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key", True),
    ("content-type,http-referer,x-title", True),
    ("authorization, content-type, user-agent", True),
    ("x-requested-with", True),
    ("traceparent,tracestate,baggage", True),
    ("openai-beta,openai-organization,openai-project", True),
    ("x-goog-api-client", True),
    ("sentry-trace", True),
    ("a b", False),
    ("x-a,,x-b", False),
    ("x-a;q=1", False),
    ("x-a: b", False),
]


@pytest.mark.parametrize(("asked", "fine"), ASKED)
def test_RQ30_a_preflight_of_an_allowed_origin_may_send_the_headers_it_asks_for(keyless, asked, fine):
    sent = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
    answer = keyless.ask(CHAT, method="OPTIONS", **sent, Access_Control_Request_Headers=asked)
    allowed = answer.headers["access-control-allow-headers"]
    assert answer.status == 204 and (allowed == asked if fine else "authorization" in allowed)
    assert "Access-Control-Request-Headers" in answer.headers["vary"]
    foreign = keyless.ask(CHAT, method="OPTIONS", **sent | {"Origin": "https://other.example"})
    assert foreign.status == 403 and "access-control-allow-headers" not in foreign.headers


@pytest.mark.parametrize("origin", ["*", "null", "https://*", "https://page.example/", "page.example"])
def test_C5_nothing_allows_all_origins(origin, tmp_path):
    """There is no wildcard: an Origin is allowed by its name."""
    ended = serve("--allow-origin", origin, "--port", "0", home=tmp_path)
    assert ended.returncode == 2 and "no origin" in ended.stderr
    with pytest.raises(BadInput, match="no origin"):
        Settings(origins=(origin,))


# ---- exposure


def serve(*options: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`phi4mini serve` that is to end by itself."""
    command = [sys.executable, "-m", "phi4mini", "serve", "-m", "demo", *options]
    return subprocess.run(command, cwd=ROOT, env=environment(home, **more), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org"])
def test_C6_no_address_that_others_reach_without_a_key(host, tmp_path):
    ended = serve("--host", host, "--port", "0", home=tmp_path)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1 and "--api-key-file" in ended.stderr and host in ended.stderr


def test_C6_with_a_key_it_serves(demo_store, tmp_path):
    demo_store()
    with serving(tmp_path, "--host", "0.0.0.0", "--kv-tokens", "4096", PHI4MINI_API_KEY=KEY) as running:
        assert running.ask("/v1/models").status == 401
        assert running.ask("/v1/models", **bearer()).status == 200


@pytest.mark.parametrize("key", ["short", "with blanks inside", "ümlauts-are-not"])
def test_C6_a_key_that_is_no_key(key, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(key + "\n")
    ended = serve("--api-key-file", str(keys), "--port", "0", home=tmp_path)
    assert ended.returncode == 2 and key not in ended.stderr


def test_C7_keys_are_never_shown(server):
    shown = [server.ask(path, **bearer()).body.decode() for path in ("/props", "/metrics", "/v1/models", "/health")]
    shown.append(server.ask(f"/v1/models?api_key={KEY}", **bearer()).body.decode())
    shown.append(server.ask("/nowhere", **bearer()).body.decode())
    shown.append(server.ask(CHAT, {"messages": 1}, **bearer()).body.decode())
    shown.append(server.ask("/v1/models", **bearer(KEY + "x")).body.decode())
    assert server.ask(f"/v1/models?api_key={KEY}").status in (401, 429), "a key in the URL is none"
    shown.append(server.said)
    arguments = Path(f"/proc/{server.worker}/cmdline").read_bytes().decode()
    shown.append(arguments)
    for text in shown:
        assert KEY not in text and SECOND not in text and "wrong-key-of-the-tests" not in text


def test_C7_a_key_on_the_command_line_is_warned_of(tmp_path):
    ended = serve("--api-key", KEY, "--host", "nowhere.invalid", "--port", "0", home=tmp_path)
    assert ended.returncode == 2 and "ps" in ended.stderr and KEY not in ended.stderr
    ended = serve("--host", "nowhere.invalid", "--port", "0", home=tmp_path, PHI4MINI_API_KEY=KEY)
    assert ended.returncode == 2 and "ps)" not in ended.stderr and KEY not in ended.stderr
    assert (
        "--api-key "
        not in subprocess.run(
            [sys.executable, "-m", "phi4mini", "serve", "-h"], cwd=ROOT, capture_output=True, text=True
        ).stdout
    )


def test_C8_there_are_no_admin_verbs(server):
    """Nothing loads, saves or ends anything by HTTP, and no path or name leads to a file."""
    for path in ("/slots/0?action=save", "/lora-adapters", "/shutdown", "/pause", "/update_weights", "/admin"):
        assert server.ask(path, {"filename": "../x"}, **bearer()).status in (404, 405)
    for name in ("../../etc/passwd", "%2e%2e%2fetc%2fpasswd", "x%00", "C:%5cx"):
        for path in (f"/v1/models/{name}", f"/page/{name}"):
            answer = server.ask(path, **bearer())
            assert answer.status in (400, 404) and b"root:" not in answer.body


def test_C10_no_prompt_of_one_key_shortens_that_of_another(server):
    """The time a prompt takes tells nothing of what others have asked; within a key it is remembered."""
    text = QUESTION * 12

    def cached(**headers: str) -> int:
        usage = server.ask(CHAT, asking(text, 4), **headers).json["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert cached(**bearer()) == 0 and cached(**bearer()) > 64
    assert cached(**bearer(SECOND)) == 0 and cached(**bearer(SECOND)) > 64


def test_C11_many_wrong_keys_are_429_and_take_no_place(server):
    passes = server_figure(server, "passes_total")
    answers = [server.ask(CHAT, asking(), **bearer(f"guess-number-{n}")) for n in range(200)]
    assert answers[-1].status == 429 and answers[-1].code == "too_many_wrong_keys"
    assert int(answers[-1].headers["retry-after"]) > 0
    assert server_figure(server, "passes_total") == passes
    assert server.ask(CHAT, asking(max_tokens=1), **bearer()).status == 200, "who has the key is not kept out"


def server_figure(server: Server, name: str) -> float:
    server.headers = bearer()
    try:
        return server.metric(name)
    finally:
        server.headers = {}


def test_C11_wrong_keys_are_forgotten_and_the_table_is_bounded():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    assert not any(attempts.too_many("a") for _ in range(20)) and attempts.too_many("a")
    assert not attempts.too_many("b")
    now[0] = 61.0
    assert not attempts.too_many("a")
    for n in range(10_000):
        attempts.too_many(str(n))
    assert len(attempts._seen) <= 4096


# ---- curl -d, and what a page of another origin can send

FORM = "application/x-www-form-urlencoded"
BODY = asking("hi", 1)
BROWSERS = [  # what browsers send with a form, or with fetch in the mode no-cors, beside the type
    {"Origin": FORBIDDEN},
    {"Origin": "null"},
    {"Origin": "http://page.example"},
    {"Origin": "http://localhost"},
    {"Origin": FORBIDDEN, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Mode": "navigate"},
    {"Referer": "http://evil.example/form.html"},
    {"Cookie": "a=b"},
]


@pytest.mark.parametrize("kind", [FORM, FORM.upper(), f"{FORM}; charset=utf-8"])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize"])
def test_RQ9_curl_d_without_a_content_type_works(keyless, path, kind):
    bodies = {
        "/v1/completions": {"prompt": "hi", "max_tokens": 1},
        "/v1/responses": {"input": "hi", "max_output_tokens": 1},
        "/v1/messages": {"model": "default", "messages": BODY["messages"], "max_tokens": 1},
        "/tokenize": {"content": "hi"},
    }
    headers = {"Content-Type": kind, "User-Agent": "curl/8.9.1", "Accept": "*/*"}
    answer = keyless.ask(path, json.dumps(bodies.get(path, BODY)).encode(), **headers)
    assert answer.status == 200, answer.body


def test_RQ9_a_form_that_is_no_json_is_still_none(keyless, server):
    answer = keyless.ask(CHAT, b"messages=hi&max_tokens=1", Content_Type=FORM)
    assert (answer.status, answer.code) == (400, "invalid_json")
    assert server.ask(CHAT, json.dumps(BODY).encode(), Content_Type=FORM).status == 401, "it needs a key as ever"
    assert server.ask(CHAT, json.dumps(BODY).encode(), Content_Type=FORM, **bearer()).status == 200


@pytest.mark.parametrize("sent", BROWSERS, ids=range(len(BROWSERS)))
@pytest.mark.parametrize("kind", [FORM, "text/plain", "multipart/form-data; boundary=x"])
def test_RQ9_a_browsers_form_is_refused_whatever_it_holds(keyless, kind, sent):
    before = keyless.metric("generation_tokens_total")
    answer = keyless.ask(CHAT, json.dumps(BODY).encode(), Content_Type=kind, **sent)
    assert answer.status in (403, 415) and answer.code in ("unknown_origin", "unsupported_media_type")
    assert keyless.metric("generation_tokens_total") == before
