"""The listening socket of a server, without the rest of the server: the supervisor's process imports this file only.

Promise: an address that cannot be bound is an error of one line, before anything is loaded.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from phi4mini.errors import BadInput
from phi4mini.server.settings import Settings

_BACKLOG = 2048
_SEND_BUFFER = 64 << 10  # bytes the kernel buffers for a client that does not read; by default this grows to megabytes


def bind(settings: Settings) -> socket.socket:
    """The listening socket. Raises BadInput for an address that cannot be bound."""
    if settings.unix_socket is not None:
        return _bind_unix(settings.unix_socket)
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(found[0], socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a name of a host"
        raise BadInput(f"{settings.host[:80]} is no address of this machine: {reason}") from None
    except OSError as error:
        reasons = {errno.EADDRINUSE: "another program listens there", errno.EACCES: "only the administrator may use it"}
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise BadInput(f"cannot listen on {where}: {reason}") from None
    return _listening(listener)


def _bind_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            _refuse_if_served(path)
            path.unlink()
        listener.bind(str(path))
        os.chmod(path, 0o600)
    except OSError as error:
        raise BadInput(f"cannot listen on {path}: {error.strerror or error}") from None
    return _listening(listener)


def _listening(listener: socket.socket) -> socket.socket:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # accepted sockets inherit it
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _refuse_if_served(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(ConnectionRefusedError):
        probe.connect(str(path))
        raise BadInput(f"cannot listen on {path}: another program listens there")
