"""A hub on loopback: enough of its protocol for huggingface_hub to list, download and resume one repository."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _git_id(path: Path) -> str:
    """What git, and so the hub, calls a file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class FakeHub:
    """Serves the files of a folder as the repository `repo`; `fail_after` cuts the first answers for large files."""

    def __init__(self, folder: Path, repo: str) -> None:
        self.folder, self.repo = folder, repo
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range header
        self.cut: dict[str, int] = {}  # file -> bytes to send before the line breaks, once
        self.status: int | None = None  # answer everything with this
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, to: http.server.BaseHTTPRequestHandler) -> None:
        path = urllib.parse.unquote(to.path.split("?")[0])
        self.requests.append((to.command, path, to.headers.get("Range")))
        name = path.removeprefix(f"/{self.repo}/resolve/{COMMIT}/")
        if self.status is not None:
            self._send(to, self.status, b"busy", {})
        elif path in (f"/api/models/{self.repo}/revision/{name}" for name in ("main", COMMIT)):
            files = [{"rfilename": name} for name in self._names()]
            info = {"id": self.repo, "modelId": self.repo, "sha": COMMIT, "siblings": files, "private": False}
            self._send(to, 200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        elif path == f"/api/models/{self.repo}/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": item.stat().st_size, "oid": _git_id(item)}
                for name in self._names()
                for item in [self.folder / name]
            ]
            self._send(to, 200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif name != path and (self.folder / name).is_file():
            self._file(to, name)
        else:
            self._send(to, 404, b"", {"X-Error-Code": "RepoNotFound"})

    def _names(self) -> list[str]:
        """Every file's path in the repository."""
        files = sorted(item for item in self.folder.rglob("*") if item.is_file())
        return [item.relative_to(self.folder).as_posix() for item in files]

    def _file(self, to: http.server.BaseHTTPRequestHandler, name: str) -> None:
        data = (self.folder / name).read_bytes()
        headers = {"ETag": f'"{_git_id(self.folder / name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted, status = to.headers.get("Range"), 200
        if wanted and to.command == "GET":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self._send(to, status, data, headers, self.cut.pop(name, None) if to.command == "GET" else None)

    @staticmethod
    def _send(
        to: http.server.BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: dict[str, str],
        cut: int | None = None,
    ) -> None:
        to.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            to.send_header(key, value)
        to.end_headers()
        if to.command != "HEAD":
            to.wfile.write(data[:cut])
        if cut is not None:
            to.close_connection = True
