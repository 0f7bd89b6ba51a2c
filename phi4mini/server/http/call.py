"""One HTTP request as a handler sees it, and what a handler may return besides a struct.

Promise: a field that changes nothing is named once in the header X-Ignored-Fields, or refused where the server is
strict. `Call` is generic in the service behind it: this file knows no service and no route.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from phi4mini.server.http.errors import ApiError

S = TypeVar("S")
Stream = AsyncGenerator[bytes, None]  # events or lines, ready to send
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")  # any other name is quoted: a line break in a header would end it
_MOST_NAMED = 8  # fields that one header names


@dataclass
class Call(Generic[S]):
    """One request: the service that answers it, the client that sent it, and the headers of the answer."""

    service: S
    id: str
    owner: str | None  # a name for the client's API key; None where the server has no keys
    path: Mapping[str, str] = field(default_factory=dict)  # parameters of the path
    query: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, str] = field(default_factory=dict)  # headers of the request, by lower-case name
    headers: dict[str, str] = field(default_factory=dict)  # headers of the answer
    strict: bool = False  # an ignored field is an error
    deadline: float | None = None  # seconds from the beginning, or from the last `within`
    at_end: list[Callable[[], None]] = field(default_factory=list)  # called however the request ends
    figures: dict[str, int] = field(default_factory=dict)  # for the line in the log
    timer: asyncio.Timeout | None = None
    ignored: list[str] = field(default_factory=list)

    def ignore(self, names: Sequence[str]) -> None:
        """Name fields that change nothing here in the answer's header. Raises 400 on a strict server."""
        before = self.headers.get("X-Ignored-Fields", "")
        names = [name for name in dict.fromkeys(names) if name not in self.ignored]  # a history repeats its fields
        if not names:
            return
        self.ignored += names
        shown = ", ".join(name[:64] if _PLAIN.fullmatch(name) else ascii(name[:40]) for name in names[:_MOST_NAMED])
        if self.strict:
            raise ApiError(400, f"unknown field: {shown}", param=names[0][:64], code="unknown_field")
        self.headers["X-Ignored-Fields"] = f"{before}, {shown}" if before else shown

    def within(self, seconds: float | None) -> None:
        """Shorten the deadline to `seconds` from now; a longer one changes nothing."""
        if seconds is not None and self.timer and (self.deadline is None or seconds < self.deadline):
            self.deadline = seconds
            self.timer.reschedule(asyncio.get_running_loop().time() + seconds)


@dataclass(frozen=True)
class Raw:
    """An answer that is not JSON."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
