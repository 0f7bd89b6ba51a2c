"""Malformed and slow HTTP (rows B1-B3, B11-B15, B17): a real process, and bytes that no library would send."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time

import pytest

from tests.server.process import CHAT, Server, all_of, asking, closed_within, post, serving, wait_until

pytest.importorskip("uvicorn", reason="needs the extra serve")
MB = 1 << 20
SHORT = ("--header-deadline", "1s", "--body-deadline", "1.5s", "--write-deadline", "1s", "--kv-tokens", "8192")


@pytest.fixture(scope="module")
def server(demo_store, tmp_path_factory):
    demo_store()
    with serving(tmp_path_factory.mktemp("home"), *SHORT) as running:
        yield running


@pytest.fixture(scope="module")
def before(server: Server) -> str:
    return server.chat().text


@pytest.fixture(autouse=True)
def unharmed(server: Server, before: str):
    """After each fault the same question has the same answer, and nothing is held."""
    descriptors = server.descriptors()
    yield
    assert server.chat().text == before
    server.rest()
    assert server.descriptors() <= descriptors + 2


def statuses(data: bytes) -> list[int]:
    """Of the responses in what came back."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


# ---- bodies


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"messages": [}', 400, "invalid_json"),
        (b"\xef\xbb\xbf{}", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'"text"', 400, "invalid_json"),
        (b"null", 400, "invalid_json"),
        (b'{"messages": []} trailing', 400, "invalid_json"),
        (b"\xff\xfe{\x00}\x00", 400, "invalid_json"),
    ],
)
def test_B1_a_body_that_is_no_json_object(server, body, status, code):
    answer = server.ask(CHAT, body)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["content-type"] == "application/json" and answer.headers["x-request-id"]


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml"])
def test_B1_a_content_type_that_is_not_json(server, kind):
    answer = server.ask(CHAT, json.dumps(asking()).encode(), content_type=kind)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "br", "GZIP, identity"])
def test_B1_a_body_that_is_compressed(server, coding):
    answer = server.ask(CHAT, gzip.compress(json.dumps(asking()).encode()), content_encoding=coding)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert f"Content-Encoding: {coding.lower()} is not supported" in answer.json["error"]["message"]
    assert server.ask(CHAT, json.dumps(asking(max_tokens=1)).encode(), content_encoding="identity").status == 200
    assert server.ask(CHAT, asking(max_tokens=1), content_type="application/json; charset=utf-8").status == 200


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_B2_json_of_depth_100_000(server, opening):
    answer = server.ask(CHAT, b'{"messages": ' + opening * 100_000)
    assert (answer.status, answer.code) == (400, "invalid_json")


def test_B3_a_length_beyond_the_limit_is_refused_before_the_body_comes(server):
    with server.connect() as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388609\r\n\r\n" % CHAT.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_B3_who_sends_too_much_at_once_can_read_why(server):
    answer = server.ask(CHAT, b" " * (9 * MB))
    assert (answer.status, answer.code) == (413, "body_too_large")


def test_B3_chunks_without_end_are_refused_and_memory_is_flat(server):
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT.encode()
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    rest, sent = server.status("VmRSS"), 0
    with server.connect() as connection:
        connection.sendall(head)
        try:
            while sent < 256 * MB:
                connection.sendall(chunk)
                sent += len(chunk)
        except ConnectionError:
            pass
        answer = all_of(connection, 2)
    assert sent < 256 * MB or statuses(answer) == [413]
    assert server.status("VmRSS") - rest < 40 * MB


LENGTHS = {b"1000": 408, b"9" * 18: 413, b"9" * 400: 400, b"-1": 400, b"1e3": 400, b"0x10": 400, b"5, 6": 400}


@pytest.mark.parametrize("length", LENGTHS)
def test_B3_a_length_that_lies(server, length):
    body = json.dumps(asking()).encode()[:20]
    data = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n%s" % (CHAT.encode(), length, body)
    assert statuses(server.raw(data, 5)) == [LENGTHS[length]]


# ---- heads


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET /health HTTP/1.1", *lines, b"", b""])


HEADS = {
    "a header of 64 KB": (head(b"Host: localhost", b"X: " + b"a" * 65536), {400, 431}),
    "a header of 33 KB": (head(b"Host: localhost", b"X: " + b"a" * 33000), {431}),
    "a path of 33 KB": (b"GET /health?" + b"a" * 33000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", {431}),
    "5,000 headers": (head(b"Host: localhost", *[b"X-%d: y" % n for n in range(5000)]), {400, 431}),
    "101 headers": (head(*[b"X-%d: y" % n for n in range(100)], b"Host: localhost"), {431}),
    "no Host": (head(b"X: y"), {400}),
    "an empty Host": (head(b"Host: "), {400}),
    "two Hosts": (head(b"Host: localhost", b"Host: localhost"), {400}),
    "both lengths": (head(b"Host: localhost", b"Content-Length: 5", b"Transfer-Encoding: chunked"), {400}),
    "two lengths": (head(b"Host: localhost", b"Content-Length: 5", b"Content-Length: 6"), {400}),
    "an unknown coding": (head(b"Host: localhost", b"Transfer-Encoding: gzip"), {400, 501}),
    "an absolute URI": (b"GET http://evil/health HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", {400}),
    "a blank before the colon": (head(b"Host : localhost"), {400}),
    "NUL in a value": (head(b"Host: localhost", b"X: \x00"), {400}),
    "a folded header": (head(b"Host: localhost", b"X: y", b" z"), {200, 400}),
    "HTTP/0.9": (b"GET /health\r\n\r\n", {400}),
}


@pytest.mark.parametrize("kind", HEADS)
def test_B11_heads(server, kind):
    data, allowed = HEADS[kind]
    with server.connect() as connection:
        connection.sendall(data)
        answer = all_of(connection, 0.5)
        found = statuses(answer)
        assert len(found) == 1 and found[0] in allowed
        if found != [200]:
            assert closed_within(connection, 5) < 5 and b"onnection: close" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_B11_a_header_of_64_mb_takes_no_memory(server):
    rest, sent, part = server.status("VmRSS"), 0, b"a" * MB
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        try:
            while sent < 64 * MB:
                connection.sendall(part)
                sent += len(part)
        except ConnectionError:
            pass
        closed_within(connection, 5)
    assert sent < 64 * MB, "it was read to the end"
    assert server.status("VmRSS") - rest < 2 * MB


# ---- slow clients


def test_B12_who_says_nothing_is_cut_at_the_deadline(server):
    with server.connect() as silent, server.connect() as half:
        half.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        began = time.monotonic()
        assert closed_within(silent, 6) > 0.5
        closed_within(half, 6)
        assert time.monotonic() - began < 5


def drip(connection: socket.socket, data: bytes, every: float, most: float) -> float:
    """Send a byte at a time until the other side has closed; seconds that took."""
    began = time.monotonic()
    connection.settimeout(every)
    for at in range(len(data)):
        try:
            connection.sendall(data[at : at + 1])
            if connection.recv(1 << 16) == b"":
                break
        except TimeoutError:
            pass
        except ConnectionError:
            break
        assert time.monotonic() - began < most, "still open"
    return time.monotonic() - began


def test_B12_a_byte_of_the_head_a_moment_does_not_help(server):
    with server.connect() as slow:
        assert drip(slow, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 500, 0.1, 8) < 8


def test_B12_nor_on_a_connection_that_was_used(server):
    with server.connect() as slow:
        slow.sendall(head(b"Host: localhost"))
        assert b" 200 " in slow.recv(1 << 16)
        assert drip(slow, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 500, 0.1, 8) < 8


def test_B12_a_byte_of_the_body_a_moment_ends_with_408(server):
    data = post(CHAT, asking("word " * 200))
    at = data.index(b"\r\n\r\n") + 4
    with server.connect() as slow:
        slow.sendall(data[:at])
        slow.settimeout(0.1)
        answer, began = b"", time.monotonic()
        for byte in data[at:]:
            try:
                slow.sendall(bytes([byte]))
                answer += slow.recv(1 << 16)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            break
        assert statuses(answer) == [408] and 1 < time.monotonic() - began < 8


@pytest.mark.parametrize("path", ["/nowhere", CHAT])
def test_B12_a_slow_body_behind_a_refusal_is_cut_too(server, path):
    """What was answered before its end: 404, and 415."""
    data = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\n"
    with server.connect() as slow:
        slow.sendall(data % path.encode())
        assert statuses(slow.recv(1 << 16))[0] in (404, 415)
        assert drip(slow, b"y" * 400, 0.1, 8) < 8


def test_B12_others_do_not_notice(server, before):
    slow = [server.connect() for _ in range(100)]
    try:
        for connection in slow[::2]:
            connection.sendall(b"POST %s HTTP/1.1\r\nHost: lo" % CHAT.encode())
        answer = server.chat()
        assert answer.text == before and answer.seconds < 10
    finally:
        for connection in slow:
            connection.close()


def test_B14_who_does_not_read_is_cut_and_others_go_on(server):
    cut, rest = server.metric("requests_cut_off_total"), server.status("VmRSS")
    more = {"stream": True, "logprobs": True, "top_logprobs": 20, "ignore_eos": True}
    stalled = server.start_chat(max_tokens=1800, receive_buffer=4096, **more)
    began, gaps = time.monotonic(), []
    while server.metric("requests_cut_off_total") == cut:
        answer = server.chat("Count to ten.", 8, stream=True)
        gaps.append(answer.seconds)
        assert answer.events[-1] == "[DONE]"
        assert time.monotonic() - began < 60
    assert server.status("VmRSS") - rest < 60 * MB
    assert closed_within(stalled, 20) < 20 and max(gaps) < 10
    stalled.close()


def test_B14_an_answer_that_nobody_reads_does_not_hold_its_connection_for_ever(server):
    """A large whole answer, with keep-alive and with close."""
    descriptors = server.descriptors()
    held = []
    for headers in ({}, {"Connection": "close"}):
        connection = server.connect(4096)
        body = asking("word " * 400, 1, prompt_logprobs=20)
        connection.sendall(post(CHAT, body, headers))
        held.append(connection)
    page = server.connect(4096)
    page.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40)
    held.append(page)
    end = time.monotonic() + 30
    while server.descriptors() > descriptors:
        assert time.monotonic() < end, "still held"
        time.sleep(0.2)
    for connection in held:
        connection.close()


# ---- many requests on a connection


def test_B15_pipelined_requests_are_answered_in_order(server):
    requests = [
        head(b"Host: localhost", b"X-Request-Id: one"),
        post(CHAT, asking(max_tokens=4), {"X-Request-Id": "two"}),
        post(CHAT, b"{", {"X-Request-Id": "three"}),
        post("/nowhere", b"{}", {"X-Request-Id": "four"}),
        head(b"Host: localhost", b"X-Request-Id: five", b"Connection: close"),
    ]
    answer = server.raw(b"".join(requests))
    assert statuses(answer) == [200, 200, 400, 404, 200]
    assert re.findall(rb"x-request-id: (\w+)", answer) == [b"one", b"two", b"three", b"four", b"five"]


def test_B15_a_connection_goes_on_after_an_error(server):
    with server.connect() as connection:
        for body, status in ((b"{", 400), (b"{}", 400), (json.dumps(asking(max_tokens=2)).encode(), 200)):
            connection.sendall(post(CHAT, body))
            answer = b""
            while b"}" not in answer:
                answer += connection.recv(1 << 16)
            assert statuses(answer) == [status]


# ---- the log


def test_a_line_of_the_log_has_the_tokens_of_its_answer(server):
    answer = server.ask(CHAT, asking("How many tokens?", 5), X_Request_Id="counted-1")
    usage = answer.json["usage"]
    wait_until(lambda: "counted-1" in server.said)
    line = next(line for line in server.said.splitlines() if "counted-1" in line)
    assert f"prompt_tokens={usage['prompt_tokens']} " in line and line.endswith(f" tokens={usage['completion_tokens']}")


def test_B17_what_clients_send_stays_on_its_line(server):
    evil = "%0d%0a12:00:00%20request%20forged%1b%5b31m%07"
    server.ask(f"/v1/models/{evil}")
    server.ask("/" + evil)
    server.ask(CHAT, asking(model="x\r\nforged\x1b[31m"))
    server.ask("/health", X_Request_Id="a b\tforged-id")
    server.ask(CHAT, asking("the secret prompt " + "s3cr3t", 4))
    server.ask(CHAT, {"messages": [{"role": "s3cr3t", "content": 1}]})
    lines = [line for line in server.said.splitlines() if line]
    assert any("\\x1b[31m" in line for line in lines)
    assert "\x1b" not in server.said and "\x07" not in server.said and "\r" not in server.said
    assert not [line for line in lines if line.startswith(("forged", "12:00:00"))]
    assert "forged-id" not in server.said and "s3cr3t" not in server.said
    assert max(map(len, lines)) < 2000
