"""The guard in front of all routes: it gives a request its id and checks its form, Host, Origin and API key.

Promises: it denies by default (a path is open only if its row says so) and decides by `scope["path"]` alone, which the
routes are chosen by too; keys are compared by digest in constant time and never shown.

It knows no route's body and no model.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phi4mini.server.http.errors import ApiError, dialect_of
from phi4mini.server.logs import Log
from phi4mini.server.settings import Settings

_MOST_HEADERS, _MOST_HEAD = 100, 32 << 10  # number of headers; bytes of path, query and headers
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
_LEFT = 499  # nginx's status for a client that left or did not read; for log and metrics, never sent
_SAFE_METHODS = ("GET", "HEAD")
_CURL_TYPE = "application/x-www-form-urlencoded"  # what `curl -d` sends unless a header says otherwise
_NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]+( *, *[\w!#$%&'*+.^`|~-]+)*", re.ASCII)  # names of headers, in a preflight
_ALLOWED_HEADERS = "authorization, content-type, x-api-key, x-request-id, anthropic-version, anthropic-beta, x-timeout"
_WRONG_KEYS, _WRONG_SECONDS, _MOST_PEERS = 20, 60.0, 4096  # wrong keys per address, in seconds; addresses kept


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        log: Log,
        is_open: Callable[[str, str], bool],
        ended: Callable[..., None],
    ) -> None:
        """`is_open(method, path)`: True if no key is needed. `ended(method, route, status, seconds)`: for metrics."""
        self.app, self.settings, self.log, self._is_open, self._ended = app, settings, log, is_open, ended
        self._keys = [(hashlib.sha256(key.encode()).digest(), owner_of(key)) for key in settings.keys]
        self._wrong = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, seen = time.monotonic(), {"status": 0}
        headers = _Headers(scope["headers"])
        given = headers.first("x-request-id")
        id = given if given and _ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope["state"] = {**scope.get("state", {}), "request_id": id}
        origin, asked = headers.first("origin"), headers.first("access-control-request-headers")

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                has = {name.lower() for name, _ in message["headers"]}
                marks = self._marks(id, origin, asked, scope)
                marks = [mark for mark in marks if mark[0] == b"vary" or mark[0] not in has]
                if self._stays(headers, message["headers"]):
                    marks.append((b"keep-alive", f"timeout={self.settings.idle_deadline}".encode()))
                message = {**message, "headers": [*message["headers"], *marks]}
            await send(message)

        try:
            if await self._admit(scope, headers, send_marked):
                await self.app(scope, receive, send_marked)
        finally:
            self._report(scope, id, seen["status"], time.monotonic() - began)

    async def _admit(self, scope: Scope, headers: _Headers, send: Send) -> bool:
        """True if the request may go on to its route; otherwise it has been answered here."""
        try:
            self._check_form(scope, headers)
            self._check_host(headers)
            self._check_origin(headers)
            if scope["method"] == "OPTIONS":
                await _answer(send, 204, b"", [(b"allow", b"GET, HEAD, POST, OPTIONS")])
                return False
            self._check_key(scope, headers)
            self._read_deadline(scope, headers)
        except ApiError as error:
            extra = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
            body = msgspec.json.encode(error.body(dialect_of(scope["path"])))
            await _answer(send, error.status, body, [(b"content-type", b"application/json"), *extra])
            return False
        return True

    def _check_form(self, scope: Scope, headers: _Headers) -> None:
        if len(scope["headers"]) > _MOST_HEADERS:
            raise _refused(431, f"more than {_MOST_HEADERS} headers", "too_many_headers")
        size = len(scope["raw_path"]) + len(scope["query_string"])
        if size + sum(len(name) + len(value) for name, value in scope["headers"]) > _MOST_HEAD:
            raise _refused(431, f"the head of the request is larger than {_MOST_HEAD} bytes", "head_too_large")
        if not scope["path"].startswith("/"):
            raise _refused(400, "the request line must name a path, not a URL", "bad_request")
        if headers.count("content-length") and headers.count("transfer-encoding"):
            raise _refused(400, "Content-Length and Transfer-Encoding exclude each other", "bad_request")
        try:
            length = int(headers.first("content-length") or 0)
        except ValueError:
            raise _refused(400, "Content-Length is not a number", "bad_request") from None
        if length > self.settings.body_limit:
            raise ApiError(413, f"the body is larger than {self.settings.body_limit} bytes", code="body_too_large")
        if scope["method"] == "POST":
            kind = (headers.first("content-type") or "application/json").partition(";")[0].strip().lower()
            if kind != "application/json" and not (kind == _CURL_TYPE and _from_no_browser(headers)):
                message = f"the body must be application/json, not {kind[:60]}"
                raise ApiError(415, message, code="unsupported_media_type")
            if (coding := (headers.first("content-encoding") or "identity").strip().lower()) != "identity":
                message = f"Content-Encoding: {coding[:60]} is not supported; send the body as it is"
                raise ApiError(415, message, code="unsupported_media_type")
        scope["state"]["query"] = dict(parse_qsl(scope["query_string"].decode("ascii", "replace")))

    def _check_host(self, headers: _Headers) -> None:
        """Refuse a Host that is not ours: a page whose name resolves to this address (DNS rebinding) gets nothing."""
        found = _HOST.fullmatch(headers.first("host") or "") if headers.count("host") == 1 else None
        if self.settings.unix_socket is None and not found:
            raise _refused(400, "exactly one valid Host header is needed", "bad_host")
        if found and not self._known_host(found[1].lower()):
            raise ApiError(421, "this server does not answer to that Host; see --allow-host", code="unknown_host")

    def _known_host(self, name: str) -> bool:
        return name in self.settings.host_names or "*" in self.settings.hosts or self.settings.host in ("0.0.0.0", "::")

    def _check_origin(self, headers: _Headers) -> None:
        """Refuse a page of another origin, whatever the method, unless the settings name it."""
        origin = headers.first("origin")
        if origin is None or self._own_origin(origin, headers.first("host")) or origin in self.settings.origins:
            return
        raise ApiError(403, "pages of that origin may not ask this server; see --allow-origin", code="unknown_origin")

    @staticmethod
    def _own_origin(origin: str, host: str | None) -> bool:
        return host is not None and origin in (f"http://{host}", f"https://{host}")

    def _check_key(self, scope: Scope, headers: _Headers) -> None:
        if not self._keys:
            return
        peer = str((scope.get("client") or ("local",))[0])
        given = _bearer(headers.first("authorization")) or headers.first("x-api-key")
        owner = self._owner(given)
        if owner:
            scope["state"]["owner"] = owner
            return
        if self._is_open(scope["method"], scope["path"]):
            return
        challenge = {"WWW-Authenticate": 'Bearer realm="phi4mini"'}
        if given is not None and self._wrong.too_many(peer):
            wait = {"Retry-After": str(int(_WRONG_SECONDS))}
            message = "too many wrong API keys from this address"
            raise ApiError(429, message, kind="rate_limit_error", code="too_many_wrong_keys", headers=wait)
        what = "no API key was given" if given is None else "the API key is wrong"
        message = f"{what}; send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
        raise ApiError(401, message, kind="authentication_error", code="invalid_api_key", headers=challenge)

    def _owner(self, given: str | None) -> str | None:
        """The owner of this key, or None. Every key is compared, so the time taken does not tell which one fits."""
        digest = hashlib.sha256((given or "").encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, owner in self._keys:
            if hmac.compare_digest(known, digest):
                found = owner
        return found

    @staticmethod
    def _read_deadline(scope: Scope, headers: _Headers) -> None:
        given = headers.first("x-timeout")
        if given is None:
            return
        if not re.fullmatch(r"\d{1,5}(\.\d{1,3})?", given) or not 0 < float(given) <= 86400:
            raise ApiError(400, "X-Timeout must be seconds from 0.001 to 86400", code="invalid_value")
        scope["state"]["deadline"] = float(given)

    def _marks(self, id: str, origin: str | None, asked: str | None, scope: Scope) -> Iterable[tuple[bytes, bytes]]:
        """Headers of every answer. A page of an allowed origin may send any header that its preflight names: SDKs add
        headers of their own, and no header has a meaning here that such a page must not use.
        """
        yield b"x-request-id", id.encode()
        yield b"x-content-type-options", b"nosniff"
        preflight = scope["method"] == "OPTIONS"
        yield b"vary", b"Origin, Access-Control-Request-Headers" if preflight else b"Origin"
        if origin is not None and origin in self.settings.origins:
            yield b"access-control-allow-origin", origin.encode("latin-1", "replace")
            yield b"access-control-expose-headers", b"x-request-id, retry-after, x-ignored-fields"
            if preflight:
                yield b"access-control-allow-methods", b"GET, POST"
                named = asked if asked and _NAMES.fullmatch(asked) else _ALLOWED_HEADERS
                yield b"access-control-allow-headers", named.encode("latin-1")
                yield b"access-control-max-age", b"600"

    def _stays(self, asked: _Headers, answered: Iterable[tuple[bytes, bytes]]) -> bool:
        """True if neither side has asked to close the connection after this answer."""
        closing = any(name.lower() == b"connection" and value.lower() == b"close" for name, value in answered)
        return not closing and (asked.first("connection") or "").strip().lower() != "close"

    def _report(self, scope: Scope, id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "(none)"
        if not status or scope["state"].get("left"):
            status = _LEFT
        self._ended(scope["method"], route, status, seconds)
        values: dict[str, Any] = {"method": scope["method"], "path": scope["path"], "status": status}
        self.log.event("request", id=id, **values, ms=round(seconds * 1000, 1), **scope["state"].get("figures", {}))


class Attempts:
    """Counts wrong keys by address, in a bounded table that drops the oldest addresses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def too_many(self, peer: str) -> bool:
        """Count one more wrong key; True if the address has sent too many."""
        now = self._clock()
        count, since = self._seen.pop(peer, (0, now))
        if now - since > _WRONG_SECONDS:
            count, since = 0, now
        self._seen[peer] = (count + 1, since)
        while len(self._seen) > _MOST_PEERS:
            self._seen.popitem(last=False)
        return count + 1 > _WRONG_KEYS


class _Headers:
    """The headers that were sent, by lower-case name."""

    def __init__(self, raw: Collection[tuple[bytes, bytes]]) -> None:
        self._all: dict[str, list[str]] = {}
        for name, value in raw:
            self._all.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def first(self, name: str) -> str | None:
        return self._all.get(name, [None])[0]

    def count(self, name: str) -> int:
        return len(self._all.get(name, ()))


def owner_of(key: str) -> str:
    """A name for the owner of a key, from which the key cannot be found."""
    return hashlib.sha256(b"phi4mini owner\0" + key.encode()).hexdigest()[:16]


def _bearer(header: str | None) -> str | None:
    kind, _, key = (header or "").partition(" ")
    return key.strip() if kind.lower() == "bearer" and key else None


def _from_no_browser(headers: _Headers) -> bool:
    """True if a request has no header that browsers send with a form: any page can post a form to any address."""
    return not any(headers.count(name) for name in ("origin", "referer", "sec-fetch-site", "sec-fetch-mode", "cookie"))


def _refused(status: int, message: str, code: str) -> ApiError:
    """The error for a malformed request. Where it ends is uncertain, so the connection is closed."""
    return ApiError(status, message, code=code, headers={"Connection": "close"})


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = [(b"content-length", str(len(body)).encode())] if status != 204 else []
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})
