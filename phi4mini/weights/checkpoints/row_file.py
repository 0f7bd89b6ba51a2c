"""Reading ranges of a file into arrays without mapping it.

Promises: memory in use is the array that is returned, and no page of the file stays mapped; a file that is truncated
while it is read raises an error that names it (a mapping would raise SIGBUS). This file does not know what the bytes
mean.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from phi4mini.errors import BadCheckpoint, NotFound


class RowFile:
    """A file open for reading at any offset, from several threads at once. Raises `NotFound` if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY)
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise NotFound(f"{path}: {error.strerror}") from error

    def read(self, offset: int, count: int) -> np.ndarray:
        """`count` bytes from `offset`, uint8 (count,)."""
        out = np.empty(count, np.uint8)
        done = 0
        while done < count:
            got = os.preadv(self._fd, [out.data[done:]], offset + done)
            if got == 0:
                raise BadCheckpoint(f"{self.path}: truncated: {offset + count} bytes wanted, it has {offset + done}")
            done += got
        return out

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
