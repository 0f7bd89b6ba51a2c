"""The page's static files, read once, as bytes and headers without a web framework.

    GET /              -> page().file("index.html", if_none_match)
    GET /page/<name>   -> page().file(name, if_none_match)

Promises: a file is served by its exact name or not at all, so no path leads out of the folder; every answer carries
HEADERS, under which the browser runs and loads nothing but our own files. It does not know API keys; headers of every
answer, such as X-Content-Type-Options, are added by the guard.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types rendered",  # the one policy of static/markdown.js
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer without a connection."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class _File:
    body: bytes
    content_type: str
    etag: str


class Page:
    """The files of the page, held in memory."""

    def __init__(self) -> None:
        self._files = {}
        for entry in resources.files("phi4mini.server.page").joinpath("static").iterdir():
            kind = _TYPES.get(entry.name.rpartition(".")[2])
            if kind:
                body = entry.read_bytes()
                self._files[entry.name] = _File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"')

    @property
    def names(self) -> list[str]:
        """Names of all files, as in /page/<name>."""
        return sorted(self._files)

    def file(self, name: str, if_none_match: str | None = None) -> Answer | None:
        """The file of that name; 304 without a body when the browser's copy is current; None where there is none.

        if_none_match: the request's header of that name.
        """
        found = self._files.get(name)
        if found is None:
            return None
        headers = {**HEADERS, "ETag": found.etag, "Cache-Control": "no-cache"}
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        if found.etag in known or known == ["*"]:
            return Answer(304, b"", headers)
        return Answer(200, found.body, {**headers, "Content-Type": found.content_type})


@cache
def page() -> Page:
    """The page of this installation."""
    return Page()
