"""HTTP/1.1 and server-sent events from the client's side, on asyncio streams alone: any server of the OpenAI form will
do, and nothing but the standard library stands between a byte's arrival and its time stamp.

Promises: a request has a connection of its own; an answer that ends before it is complete raises `WireError`, whatever
has come of it; leaving an exchange early closes the connection at once, as a client that goes away does.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_LINE_LIMIT = 1 << 20  # bytes of one line of a head or of an event
DONE = "[DONE]"


class WireError(Exception):
    """An answer that did not come, or not as HTTP, in one line."""


@dataclass(frozen=True)
class Target:
    """A server. `key` goes into each request where there is one."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    key: str | None = None

    @classmethod
    def parse(cls, url: str, key: str | None = None) -> Target:
        """From http://host:port, with or without /v1 at its end. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8080")
        tls = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, prefix, key)

    def request(self, method: str, path: str, body: bytes | None) -> bytes:
        """The bytes of a request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {host}:{self.port}", "Connection: close"]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


@dataclass
class Exchange:
    """A request that was sent. `head` first, then `body` or `events`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def head(self) -> int:
        """The status, when the head has come."""
        line = (await self._line()).split(None, 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/1.") or not line[1].isdigit():
            raise WireError(f"not an answer in HTTP/1.1: {b' '.join(line)[:60]!r}")
        self.status = int(line[1])
        while line := [await self._line()]:
            if not line[0]:
                break
            name, _, value = line[0].decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        return self.status

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._line()).partition(b";")[0], 16):
                yield await self._exactly(size)
                await self._line()
        elif "content-length" in self.headers:
            yield await self._exactly(int(self.headers["content-length"]))
        else:
            while part := await self.reader.read(1 << 16):
                yield part

    async def body(self) -> bytes:
        """All of it."""
        return b"".join([part async for part in self.parts()])

    async def events(self) -> AsyncGenerator[str, None]:
        """The data of server-sent events; comments are left out."""
        left = b""
        async for part in self.parts():
            *whole, left = (left + part.replace(b"\r\n", b"\n")).split(b"\n\n")
            for event in whole:
                data = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
                if data:
                    yield b"\n".join(data).decode("utf-8")
        if left.strip():
            raise WireError(f"the stream ended within an event: {left[:60]!r}")

    async def _line(self) -> bytes:
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise WireError("the connection ended before the answer did")
        return line.rstrip(b"\r\n")

    async def _exactly(self, size: int) -> bytes:
        try:
            return await self.reader.readexactly(size)
        except asyncio.IncompleteReadError:
            raise WireError("the connection ended before the answer did") from None


@asynccontextmanager
async def exchange(target: Target, method: str, path: str, body: Any = None) -> AsyncIterator[Exchange]:
    """Send a request; `body` is JSON, or bytes as they are. What goes wrong with the connection is a `WireError`."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        context = ssl.create_default_context() if target.tls else None
        reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context, limit=_LINE_LIMIT)
    except OSError as error:
        raise WireError(f"{target.host}:{target.port}: {error.strerror or error}") from None
    try:
        writer.write(target.request(method, path, data))
        await writer.drain()
        yield Exchange(reader, writer)
    except (OSError, ValueError) as error:  # ValueError: a size that is no number, a line without end, broken UTF-8
        raise WireError(f"{type(error).__name__}: {error}") from None
    finally:
        writer.transport.abort()


async def fetch(target: Target, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Status and whole body."""
    async with exchange(target, method, path, body) as sent:
        return await sent.head(), await sent.body()
