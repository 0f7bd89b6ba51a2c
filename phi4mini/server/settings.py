"""Settings of a server: its address, its API keys, and every limit. Plain data, checked once.

Promise: every `Settings` object is safe to serve: without a key its address is loopback.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from phi4mini.errors import BadInput

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?")  # as browsers send it
_SHORTEST_KEY = 8
_LONGEST = 86400  # seconds of any deadline


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Seconds, bytes and counts; `docs/operation.md` explains each."""

    host: str = "127.0.0.1"
    port: int = 8080
    unix_socket: Path | None = None
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()  # allowed Host headers besides loopback's and `host`
    origins: tuple[str, ...] = ()  # origins whose pages may send requests

    places: int = 8  # requests in one pass
    queue: int = 32  # waiting requests of one key beyond those
    most_choices: int = 8
    body_limit: int = 8 << 20
    connections: int = 16_000

    header_deadline: float = 10.0
    body_deadline: float = 30.0
    write_deadline: float = 30.0
    idle_deadline: int = 75  # of a kept connection between requests, as in nginx; the Keep-Alive header tells it
    request_deadline: float | None = None
    drain: float = 30.0
    ping: float = 1.0  # silence in a stream before a comment is sent

    strict: bool = False  # an unknown field is an error instead of a warning
    json_logs: bool = False

    def __post_init__(self) -> None:
        if short := next((key for key in self.keys if len(key) < _SHORTEST_KEY), None):
            raise BadInput(f"an API key has {len(short)} characters; at least {_SHORTEST_KEY} are needed")
        if not all(key.isascii() and key.isprintable() and " " not in key for key in self.keys):
            raise BadInput("an API key may hold printable ASCII characters without blanks only")
        if wrong := next((origin for origin in self.origins if not _ORIGIN.fullmatch(origin)), None):
            raise BadInput(f"{wrong[:80]!r} is no origin such as https://example.org; there is no wildcard")
        for name, least in (("places", 1), ("queue", 0), ("most_choices", 1), ("body_limit", 1024), ("connections", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("header_deadline", "body_deadline", "write_deadline", "request_deadline", "ping"):
            if (seconds := getattr(self, name)) is not None and not 0 < seconds <= _LONGEST:
                raise BadInput(f"{name} must be above 0 and at most {_LONGEST} s, got {seconds:g}")
        if not 0 <= self.drain <= _LONGEST:
            raise BadInput(f"drain must be from 0 to {_LONGEST} s, got {self.drain:g}")
        if not 0 <= self.port <= 65535:
            raise BadInput(f"port must be from 0 to 65535, got {self.port}")
        if not self.keys and self.unix_socket is None and not is_loopback(self.host):
            raise BadInput(
                f"{self.host} can be reached from other machines; give an API key (--api-key-file) or use 127.0.0.1"
            )

    @property
    def host_names(self) -> frozenset[str]:
        """Allowed names in the Host header, in lower case, without the port."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return LOOPBACK_NAMES | {own.lower()} | {name.lower() for name in self.hosts}


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
