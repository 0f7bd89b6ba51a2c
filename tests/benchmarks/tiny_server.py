"""A small server of the OpenAI form for the load client's own tests: real HTTP, chunked streams, answers that follow
from the question, and faults on demand.

The last question decides: "fail" is answered 500, "cut" ends without [DONE], "hang up" ends within a chunk, "error"
brings an error event, "together" is answered otherwise while somebody else is asking.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE_SECONDS = 0.002


class Server(ThreadingHTTPServer):
    """State that handlers share. `leak`: pages that every client who goes away leaves behind."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0, leak: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.lock = threading.Lock()
        self.running = self.together = self.asked = 0
        self.leak, self.leaked, self.idle = leak, 0, 0
        self.bodies: list[dict[str, Any]] = []

    def handle_error(self, request: Any, address: Any) -> None:
        """Clients that go away are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        s = self.server
        pages = (
            f"phi4mini_kv_pages 100.0\nphi4mini_kv_pages_free {100 - s.leaked}.0\nphi4mini_kv_pages_idle {s.idle}.0\n"
        )
        running = f"phi4mini_requests_running {s.running}.0\nphi4mini_requests_waiting 0.0\n"
        texts = {
            "/ready": "{}",
            "/props": '{"n_ctx": 4096}',
            "/v1/models": '{"data": [{"id": "tiny/model"}]}',
            "/metrics": f'# HELP phi4mini_kv_pages Pages.\n{pages}{running}labelled{{a="b"}} 1.0\n',
        }
        text = texts.get(self.path)
        self._whole(404 if text is None else 200, text or '{"error": {"message": "no such route"}}')

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        except (ValueError, RecursionError):
            self._refuse("not JSON")
            return
        if wrong := _wrong(self.path, body):
            self._refuse(wrong)
            return
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.asked += 1
            self.server.running += 1
            self.server.idle = min(self.server.idle + 10, 90)
        try:
            self._answer(body)
        except OSError:
            self.server.leaked += self.server.leak
        finally:
            with self.server.lock:
                self.server.running -= 1

    def _answer(self, body: dict[str, Any]) -> None:
        question = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        words = [f" {word}" for word in f"{question} answered".split()][-body["max_tokens"] :]
        if question == "together" and self.server.running > 1:
            words.append(" otherwise")
        if question == "fail":
            self._whole(500, '{"error": {"message": "on demand"}}')
        elif body.get("stream"):
            self._stream(question, words)
        else:
            text = "".join(words)
            choice = {"text": text} if "prompt" in body else {"message": {"content": text}}
            self._whole(200, json.dumps({"choices": [choice]}))

    def _stream(self, question: str, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        self._chunk(b": ping\n\n")
        for word in words:
            time.sleep(PIECE_SECONDS)
            self._event({"choices": [{"delta": {"content": word}}]})
        if question == "error":
            self._event({"error": {"message": "numerical_error"}})
        elif question == "hang up":
            self.wfile.write(b"ff\r\ndata: half")
            self.close_connection = True
            return
        self._event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": len(words)}})
        if question != "cut":
            self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, value: dict[str, Any]) -> None:
        """In two chunks, as networks cut things."""
        data = f"data: {json.dumps(value)}\n\n".encode()
        self._chunk(data[:9])
        self._chunk(data[9:])

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _refuse(self, why: str) -> None:
        self._whole(404 if "no such" in why else 400, json.dumps({"error": {"message": why}}))

    def _whole(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


def _wrong(path: str, body: Any) -> str | None:
    """Why a body is refused."""
    if path not in ("/v1/chat/completions", "/v1/completions"):
        return "no such route"
    if body.get("model", "tiny/model") != "tiny/model":
        return "no such model"
    if "tools" in body:
        return "this model has no tools"
    if not body.get("messages") and "prompt" not in body:
        return "nothing is asked"
    if body.get("temperature", 0) < 0 or not isinstance(body.get("max_tokens", 1), int):
        return "out of range"
    if len(json.dumps(body)) > 20_000:
        return "longer than the context"
    return None


@contextmanager
def tiny_server(leak: int = 0) -> Iterator[Server]:
    """A server on a free port, in a thread of this process."""
    server = Server(leak=leak)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def url_of(server: Server) -> str:
    """Its address."""
    return f"http://127.0.0.1:{server.server_address[1]}"


if __name__ == "__main__":
    Server(int(sys.argv[-1])).serve_forever()
