"""A model's name -> what it names: a hub id, a folder, a .gguf, a store, `demo` or `synthetic`.

Promises: a name means one thing, decided without reading a model; a name that means nothing is an error that lists
what a name can be. It does not fetch and does not convert (`load.py`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phi4mini.errors import BadInput, NotFound
from phi4mini.weights.gguf_split import parts_here
from phi4mini.weights.hub import revision
from phi4mini.weights.hub_gguf import parse
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
_WAYS = (
    "a model is a hub id (owner/name), a folder, a .gguf or .phi4 file, demo or synthetic; a GGUF on the hub is "
    "owner/name:Q4_K_M or owner/name:file.gguf"
)
_CONVERTER = 2  # raised when the same source would be converted to other bytes: old stores are then made anew
_LAYERS = 32  # of the whole synthetic model


@dataclass(frozen=True)
class Source:
    """What a name stands for. `path`: the file or folder, where it is one; `layers`: of a synthetic model; `variant`:
    of a hub id, which of its GGUFs, a quantisation or a file (`name` has it after a colon).
    """

    kind: Kind
    name: str
    path: Path | None = None
    layers: int = 0
    variant: str = ""

    @property
    def repo(self) -> str:
        """The hub id alone."""
        return self.name.partition(":")[0]

    @property
    def label(self) -> str:
        """The name as part of a file name."""
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
        kind = _file_kind(path)
        if kind == "gguf":
            path = parts_here(path)[0]  # any part of a split GGUF means the whole
        return Source(kind, str(path), path)
    if (path.suffix in (".gguf", SUFFIX) and ":" not in name) or name.startswith((".", "/", "~")):
        raise NotFound(f"{name}: no such file or folder")
    hub = _hub(name)
    if hub is not None:
        return hub
    raise NotFound(f"unknown model {name[:100]!r}; {_WAYS}")


def fingerprint(source: Source, folder_or_file: Path | None = None) -> str:
    """Twelve hex digits that change with the source's content: its revision, or names, sizes and times of its files."""
    if source.kind == "hub" and folder_or_file is not None:
        return _digest(revision(folder_or_file))
    if source.kind in ("folder", "gguf") and source.path is not None:
        files = _files(source.path) if source.kind == "folder" else parts_here(source.path)
        return _digest(*(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files))
    if source.kind == "demo":
        from phi4mini.weights.demo import SHA256

        return _digest(SHA256)
    return _digest(source.name)


def _files(folder: Path) -> list[Path]:
    patterns = ("*.safetensors", "*.json", "*.jinja")
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.exists())


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join([f"converter {_CONVERTER}", *lines]).encode()).hexdigest()[:12]


def _hub(name: str) -> Source | None:
    """A hub id, alone or with a GGUF's quantisation or file; also as an address or with Ollama's hf.co/."""
    alias, colon, wanted = name.partition(":")
    found = parse(ALIASES.get(alias.lower(), alias) + colon + wanted)
    if found is None:
        return None
    repo, variant = found
    return Source("hub", f"{repo}:{variant}" if variant else repo, variant=variant)


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
