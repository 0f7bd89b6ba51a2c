"""A model's name -> what it names: a hub id, a folder, a .gguf, a store, `demo` or `synthetic`.

Promises: a name means one thing, decided without reading a model; a name that means nothing is an error that lists
what a name can be. It does not fetch and does not convert (`load.py`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phi4mini.errors import BadInput, NotFound
from phi4mini.weights.hub import is_id
from phi4mini.weights.store import SUFFIX

DEFAULT = "microsoft/Phi-4-mini-instruct"
ALIASES = {
    "phi-4-mini": DEFAULT,
    "phi-4-mini-instruct": DEFAULT,
    "phi4-mini": DEFAULT,
    "phi-4-mini-reasoning": "microsoft/Phi-4-mini-reasoning",
    "phi-3.5-mini": "microsoft/Phi-3.5-mini-instruct",
}
Kind = Literal["hub", "folder", "gguf", "store", "demo", "synthetic"]
_WAYS = "a model is a hub id (owner/name), a folder, a .gguf or .phi4 file, demo or synthetic"
_LAYERS = 32  # of the whole synthetic model


@dataclass(frozen=True)
class Source:
    """What a name stands for. `path`: the file or folder, where it is one; `layers`: of a synthetic model."""

    kind: Kind
    name: str
    path: Path | None = None
    layers: int = 0

    @property
    def is_default(self) -> bool:
        """Whether it is Phi-4-mini-instruct on the hub, whose config and tokenizer are known without its files."""
        return self.kind == "hub" and self.name == DEFAULT

    @property
    def full_name(self) -> str:
        """The name wherever it is said: a path is absolute, so that it is no hub id."""
        return self.name if self.path is None else os.path.abspath(self.path)

    @property
    def label(self) -> str:
        """The name as part of a file name, for people: other models may have the same."""
        label = self.name
        if self.path is not None:
            label = self.path.stem if self.kind == "gguf" else self.path.resolve().name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", label.replace("/", "--").replace(":", "-"))[:80].strip("-.") or "model"


def resolve(name: str) -> Source:
    """What `name` means. Raises `NotFound` for a path that is not there and for a name that is none of the kinds."""
    if not isinstance(name, str) or not name or "\0" in name or len(name) > 4096:
        raise BadInput(f"a model's name is a short text, not {str(name)[:60]!r}; {_WAYS}")
    if name == "demo":
        return Source("demo", "demo")
    if name == "synthetic" or name.startswith("synthetic:"):
        return _synthetic(name)
    if name.lower() in ALIASES:
        return Source("hub", ALIASES[name.lower()])
    path = Path(name).expanduser()
    if path.is_dir():
        return Source("folder", str(path), path)
    if path.is_file():
        return Source(_file_kind(path), str(path), path)
    if path.suffix in (".gguf", SUFFIX) or name.startswith((".", "/", "~")):
        raise NotFound(f"{name}: no such file or folder")
    if is_id(name):
        return Source("hub", name)
    raise NotFound(f"unknown model {name[:100]!r}; {_WAYS}")


def fingerprint(source: Source, folder_or_file: Path | None = None) -> str:
    """Sixteen hex digits of the identity of a source's content, as in its store's file name. Reads all of it once."""
    from phi4mini.weights.origin import identify

    return identify(source, folder_or_file or source.path).fingerprint


def _synthetic(name: str) -> Source:
    _, _, said = name.partition(":")
    layers = int(said) if said.isdecimal() and len(said) < 4 else _LAYERS if not said else 0
    if not 1 <= layers <= _LAYERS:
        raise BadInput(f"{name[:60]!r}: a synthetic model has 1 to {_LAYERS} layers: synthetic or synthetic:4")
    return Source("synthetic", f"synthetic:{layers}" if layers != _LAYERS else "synthetic", layers=layers)


def _file_kind(path: Path) -> Kind:
    """By what the file begins with, whatever its name."""
    with open(path, "rb") as file:
        begin = file.read(8)
    if begin == b"PHI4MINI":
        return "store"
    if begin[:4] == b"GGUF":
        return "gguf"
    if path.suffix == SUFFIX:
        return "store"  # open_store says what is wrong with it
    if path.suffix == ".gguf":
        return "gguf"
    if begin[:2] == b"PK" or begin[:1] == b"\x80":
        raise BadInput(f"{path} is a pickle file, which can run code and is never opened; {_WAYS}")
    raise BadInput(f"{path} is neither a GGUF nor a store; {_WAYS}")
