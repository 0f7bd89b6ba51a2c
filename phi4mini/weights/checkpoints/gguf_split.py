"""A GGUF in parts (name-00001-of-00003.gguf), read as one file; a whole file is a single part.

Promises: any part opens the whole; a part that is missing or belongs to another split or model is refused by name. This
file does not know models. The first part has the metadata; every part states its number (split.no, from 0), the number
of parts (split.count) and the number of tensors in all parts together (split.tensors.count). Source: llama.cpp's
gguf-split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints.gguf import GgufFile, Tensor

_PART = re.compile(r"(.+-)(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)
_MOST_PARTS = 1000
_MOST_NAMED = 6


def is_part(name: str) -> bool:
    """Whether a file's name is one of a part."""
    return _PART.fullmatch(name) is not None


def part_names(name: str) -> list[str]:
    """The names of all parts, in order, of which `name` is one; a whole file's own name."""
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]) <= _MOST_PARTS:
        return [name]
    return [f"{match[1]}{i:05}-of-{match[3]}{match[4]}" for i in range(1, int(match[3]) + 1)]


def parts_here(path: Path) -> list[Path]:
    """The files that `path` stands for, as far as they are there: its parts, or itself."""
    found = [other for name in part_names(path.name) if (other := path.with_name(name)).is_file()]
    return found or [path]


def open_parts(path: Path) -> GgufFile | SplitGguf:
    """Open a GGUF, whole or by any of its parts. Raises `NotFound` or `BadCheckpoint`."""
    file = GgufFile(path)
    count = file.metadata.get("split.count", 0)
    if count in (0, 1):
        return file
    names = part_names(path.name)
    if type(count) is not int or len(names) != count:
        raise BadCheckpoint(
            f"{path}: it is one of {short(count)} parts of a split GGUF, but its name does not end in "
            f"-00001-of-{count if isinstance(count, int) else 0:05}.gguf or the like, so the others cannot be found"
        )
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise NotFound(f"{path}: {len(missing)} of {count} parts missing: {', '.join(missing[:_MOST_NAMED])}{more}")
    return SplitGguf([file if name == path.name else GgufFile(path.with_name(name)) for name in names])


class SplitGguf:
    """All parts of one GGUF: `metadata` of the first, `tensors` of all, raw rows from the part that has them."""

    def __init__(self, parts: Sequence[GgufFile]) -> None:
        self.metadata: dict[str, Any] = parts[0].metadata
        self.tensors: dict[str, Tensor] = {}
        self._home: dict[str, GgufFile] = {}
        for number, part in enumerate(parts):
            self._check(part, number, len(parts))
            for name, tensor in part.tensors.items():
                if name in self._home:
                    raise BadCheckpoint(f"{part.path}: tensor {short(name)} is in {self._home[name].path.name} as well")
                self.tensors[name], self._home[name] = tensor, part
        total = self.metadata.get("split.tensors.count", len(self.tensors))
        if total != len(self.tensors):
            raise BadCheckpoint(
                f"{parts[0].path}: split.tensors.count is {short(total)}, its parts have {len(self.tensors)} tensors"
            )

    def raw(self, tensor: Tensor, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop of a tensor as stored: uint8 (stop - start, row_bytes)."""
        return self._home[tensor.name].raw(tensor, start, stop)

    def _check(self, part: GgufFile, number: int, count: int) -> None:
        stated = part.metadata.get("split.no"), part.metadata.get("split.count")
        if stated != (number, count):
            raise BadCheckpoint(
                f"{part.path}: split.no {short(stated[0])} and split.count {short(stated[1])} are not those of "
                f"part {number + 1} of {count} (split.no counts from 0)"
            )
        for key, value in part.metadata.items():
            if key != "split.no" and self.metadata.get(key, value) != value:
                raise BadCheckpoint(f"{part.path}: {short(key)} is not that of the first part: parts of two models")
