"""Overload, clients that disconnect, deadlines (rows F1, F3, F4, F7, F8, F13, F14)."""

from __future__ import annotations

import re
import statistics
import threading
import time

import pytest

from tests.server.process import CHAT, Server, all_of, asking, post, serving, wait_until

pytest.importorskip("uvicorn", reason="needs the extra serve")
LONG = "The harbour was quiet and the boats lay still upon the water. " * 130  # about 1,800 tokens
FOREVER = {"ignore_eos": True, "max_tokens": 1900}


@pytest.fixture(scope="module")
def server(demo_store, tmp_path_factory):
    """Few places, so that they are soon taken."""
    demo_store()
    options = ("-np", "1", "--queue", "1", "--ping", "0.1s", "--kv-tokens", "8192", "--no-prefix-cache")
    with serving(tmp_path_factory.mktemp("home"), *options) as running:
        yield running


@pytest.fixture(scope="module")
def wide(demo_store, tmp_path_factory):
    demo_store()
    options = ("-np", "8", "--kv-tokens", "16384", "--no-prefix-cache", "-c", "8192")
    with serving(tmp_path_factory.mktemp("home"), *options) as running:
        yield running


def forever(server: Server, **more):
    """A connection on which a long answer is being made, after its first token."""
    tokens = server.metric("passes_total")
    connection = server.start_chat(**(FOREVER | more))
    wait_until(lambda: server.metric("passes_total") > tokens)
    return connection


# ---- F1


def take_all(connection) -> bytes:
    """All of a response, up to the end of its answer."""
    data = b""
    while b'"finish_reason"' not in data:
        data += connection.recv(1 << 16)
    connection.close()
    return data


def test_F1_a_full_queue_is_429_at_once_and_who_was_accepted_finishes(server):
    text = server.chat(max_tokens=16).text
    running = server.start_chat(max_tokens=400, ignore_eos=True)
    wait_until(lambda: server.metric("requests_running") == 1)
    waiting = server.start_chat(max_tokens=16)
    wait_until(lambda: server.metric("requests_waiting") == 1)
    refused = [server.chat(max_tokens=16) for _ in range(9)]
    for answer in refused:
        assert (answer.status, answer.code) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1 and answer.json["error"]["type"] == "rate_limit_error"
    assert statistics.median(answer.seconds for answer in refused) < 0.05
    assert server.metric("requests_refused_total") >= 9
    for connection in (running, waiting):
        assert take_all(connection).startswith(b"HTTP/1.1 200 ")
    server.rest()
    assert server.chat(max_tokens=16).text == text


# ---- F3


def answered(server, status):
    return server.metric("http_requests_total", f'{{method="POST",route="{CHAT}",status="{status}"}}')


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("phase", ["queue", "prefill", "decode"])
def test_F3_a_clients_disconnect_frees_everything_that_its_request_held(server, phase, stream):
    """Handled in server/http/disconnect.py, which cancels the request's work, and in server/answering.py, `close`."""
    server.rest()
    cancelled, left, blocking = server.metric("requests_cancelled_total"), answered(server, 499), None
    said = len(server.said)
    if phase == "queue":
        blocking = forever(server)
        leaving = server.start_chat(stream=stream)
        wait_until(lambda: server.metric("requests_waiting") == 1)
    elif phase == "prefill":
        leaving = server.start_chat(LONG, 8, stream=stream)
        wait_until(lambda: server.metric("requests_running") == 1)
    else:
        leaving = forever(server, stream=stream)
    leaving.close()
    wait_until(lambda: server.metric("requests_cancelled_total") == cancelled + 1, 5)
    wait_until(lambda: answered(server, 499) == left + 1, 5)
    wait_until(lambda: f"path={CHAT} status=499 " in server.said[said:], 5)
    if blocking:
        wait_until(lambda: server.metric("requests_waiting") == 0, 5)
        assert server.metric("requests_running") == 1, "the other one goes on"
        blocking.close()
    server.rest(5)
    assert server.chat(max_tokens=4).status == 200


def test_F3_also_when_the_next_request_was_sent_already(server):
    """What is pipelined behind a running request must not hide that the client has left."""
    leaving = forever(server)
    leaving.sendall(post(CHAT, asking()))
    time.sleep(0.2)
    leaving.close()
    server.rest(5)


# ---- F4


def test_F4_a_deadline_in_the_header_or_the_body(server):
    body = asking("Count.", **FOREVER)
    for answer in (server.ask(CHAT, body, X_Timeout="0.4"), server.ask(CHAT, body | {"timeout": 0.4})):
        assert (answer.status, answer.code) == (504, "timeout")
        assert 0.3 < answer.seconds < 5
        server.rest(5)


def test_F4_in_a_stream_it_is_the_last_event(server):
    answer = server.ask(CHAT, asking("Count.", **FOREVER, stream=True), X_Timeout="0.5")
    assert answer.status == 200 and answer.events[-1]["error"]["code"] == "timeout"
    assert b"[DONE]" not in answer.body and len(answer.events) > 1
    server.rest(5)


def test_F4_in_the_queue_too(server):
    blocking = forever(server)
    answer = server.ask(CHAT, asking(), X_Timeout="0.3")
    assert (answer.status, answer.code) == (504, "timeout") and answer.seconds < 3
    blocking.close()
    server.rest(5)


def test_F4_no_request_has_longer_than_the_server_gives(demo_store, tmp_path):
    demo_store()
    with serving(tmp_path, "--timeout", "0.5s", "--kv-tokens", "4096") as strict:
        body = asking("Count.", **FOREVER)
        for answer in (
            strict.ask(CHAT, body),
            strict.ask(CHAT, body, X_Timeout="60"),
            strict.ask(CHAT, body | {"timeout": 60}),
        ):
            assert (answer.status, answer.code) == (504, "timeout") and answer.seconds < 5


@pytest.mark.parametrize("given", ["0", "-1", "soon", "1e3", "nan", "86401", "1" * 40])
def test_F4_what_is_no_deadline(server, given):
    assert server.ask(CHAT, asking(), X_Timeout=given).status == 400


# ---- F7 and F8


class Pings(threading.Thread):
    """Seconds that /health takes, over and over on one connection, until told to stop."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.connection, self.times, self.over = server.connect(), [], threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.005):
            began = time.monotonic()
            self.connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert self.connection.recv(1 << 16)
            self.times.append(time.monotonic() - began)

    def end(self) -> list[float]:
        """All of them, sorted."""
        self.over.set()
        self.join()
        self.connection.close()
        return sorted(self.times)


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def big_schema(count: int = 400) -> dict:
    fields = {f"field_{n}": {"type": "string", "pattern": f"^[a-z]{{{n % 30 + 1}}}-[0-9]+$"} for n in range(count)}
    return {"type": "object", "properties": fields, "required": list(fields)}


HEAVY = {
    "a prompt of 1 MB": asking("word after word, " * 60_000, 4),
    "a prompt of 1 MB that is hard to cut": asking("é1 " * 250_000, 4),
    "a large schema": asking(
        max_tokens=4, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": big_schema()}}
    ),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_F7_heavy_text_work_does_not_hold_the_event_loop(wide, kind):
    pings = Pings(wide)
    time.sleep(0.2)
    answers = [wide.ask(CHAT, HEAVY[kind], timeout=120) for _ in range(4)]
    times = pings.end()
    assert all(answer.status in (200, 400) for answer in answers), answers[0].body[:300]
    assert len(times) > 30
    assert p99(times) < 0.05, f"p99 {p99(times) * 1e3:.0f} ms of {len(times)}, the longest {times[-1] * 1e3:.0f} ms"


def gaps(server: Server, until: threading.Event, text: str) -> list[float]:
    """Seconds between the tokens of streams, one after another, until told to stop."""
    found: list[float] = []
    while not until.is_set():
        connection = server.start_chat(text, 120, stream=True, ignore_eos=True)
        last = None
        while data := connection.recv(1 << 16):
            now = time.monotonic()
            if b'"content"' in data:
                found += [now - last] if last else []
                last = now
            if b"[DONE]" in data:
                break
        connection.close()
    return found


def chatting(server: Server, meanwhile) -> list[float]:
    """The gaps of four streams while something else happens."""
    over, found = threading.Event(), []
    threads = [
        threading.Thread(target=lambda n=n: found.extend(gaps(server, over, f"Tell me story number {n}.")))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    meanwhile()
    over.set()
    for thread in threads:
        thread.join()
    return found


def test_F8_a_long_prompt_does_not_stall_others(wide):
    """Times on a machine that others use: twice the idle p99 is the aim, three times is what must hold here."""
    wide.chat(max_tokens=4)
    prompt = asking(LONG * 3 + "Go on.", 4)
    idle = chatting(wide, lambda: time.sleep(4))
    busy = chatting(wide, lambda: [wide.ask(CHAT, prompt, timeout=120) for _ in range(2)])
    print(f"ITL p50 {statistics.median(idle) * 1e3:.1f} ms idle, {statistics.median(busy) * 1e3:.1f} beside prompts; "
          f"p99 {p99(idle) * 1e3:.1f} idle, {p99(busy) * 1e3:.1f} beside")  # fmt: skip
    assert p99(busy) < 3 * max(p99(idle), 0.02)


# ---- F13 and F14


def test_F13_a_stream_begins_at_once_and_is_never_silent(server):
    """The first byte while the prompt is computed, then a comment each `ping` seconds."""
    blocking = forever(server)
    began = time.monotonic()
    waiting = server.start_chat(stream=True, max_tokens=4)
    waiting.settimeout(5)
    first = waiting.recv(1 << 16)
    assert first.startswith(b"HTTP/1.1 200 ") and time.monotonic() - began < 0.1
    data, last, longest = first, time.monotonic(), 0.0
    while data.count(b": ping\n\n") < 8:
        data += waiting.recv(1 << 16)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 1 and data.count(b"data:") <= 1, "no more than the role"
    blocking.close()
    assert b"data: [DONE]" in all_of(waiting, 2)
    waiting.close()


def test_F14_metrics_are_quick_while_busy_and_labels_bounded(server):
    blocking = forever(server)
    times = [server.ask("/metrics").seconds for _ in range(30)]
    blocking.close()
    assert statistics.median(times) < 0.02  # 10 ms where nothing else runs
    for n in range(60):
        server.ask(f"/nowhere-{n}", None, "GET")
        server.ask(f"/v1/models/none-{n}")
        server.ask("/health", None, f"VERB{n}")
    text = server.ask("/metrics").body.decode()
    labels = set(re.findall(r'(\w+)="([^"]*)"', text))
    assert not [value for _, value in labels if "none-" in value or "nowhere" in value or "VERB" in value]
    assert not re.findall(r"^\w+_created", text, re.M), "what is not in docs/operation.md"
    assert {name for name, _ in labels} <= {"method", "route", "status", "reason", "le"}
    assert len(text.splitlines()) < 600
