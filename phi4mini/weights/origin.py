"""What a store is made of: where its content lies, and the identity of that content, which the store's header keeps.

Promises: equal content of one kind has one identity, wherever it lies and whatever it is called; other content has
another. A hub model is its full id, its revision and its content; a folder or GGUF is its content; the demo is a known
file; a synthetic model is its number of layers. The table of what a store depends on is in `phi4mini/identity.py`. It
does not fetch and does not convert (`load.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phi4mini.errors import BadCheckpoint
from phi4mini.identity import THINGS, Content, contents, key_of
from phi4mini.weights.checkpoints.gguf_split import parts_here
from phi4mini.weights.sources.source import Source


@dataclass(frozen=True)
class Origin:
    """A source with its content at hand. `path`: the folder or file of the content; `identity`: sha256 as hex."""

    source: Source
    path: Path | None
    identity: str
    revision: str | None = None  # of a hub model: the commit
    files: Mapping[Path, Content] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The beginning of the identity, for a file name: what finds a store, and does not prove it."""
        return self.identity[:16]

    @property
    def header(self) -> dict[str, str]:
        """What the store's header says about where it comes from."""
        told = {"name": self.source.full_name, "kind": self.source.kind, "identity": self.identity}
        told["converter"] = converter(self.source)
        return told if self.revision is None else told | {"revision": self.revision}

    def check_unchanged(self) -> None:
        """Raises `BadInput` if a file is no longer the one that `identity` is about."""
        for path, content in self.files.items():
            content.check(path)


def converter(source: Source) -> str:
    """The number of the way in which stores of a source are made."""
    return str(THINGS["synthetic store" if source.kind == "synthetic" else "store"].version)


def identify(source: Source, path: Path | None, say: Callable[[str], None] | None = None) -> Origin:
    """The origin of a source whose content lies at `path`. `say`: gets a line when reading all of it takes long.

    Raises `NotFound`, `BadCheckpoint`, and `BadInput` for files that change meanwhile.
    """
    if source.kind == "synthetic":
        return Origin(source, None, key_of("synthetic store", source.name))
    if path is None:
        raise BadCheckpoint(f"{source.name} has no checkpoint")
    named = _files(path)
    found = contents(named.values(), say)
    revision = _revision(path) if source.kind == "hub" else None
    whose = [] if revision is None else [source.name, revision]
    lines = [f"{name} {found[file].sha256}" for name, file in named.items()]
    return Origin(source, path, key_of("store", source.kind, *whose, *lines), revision, found)


def _files(path: Path) -> dict[str, Path]:
    """The files that a model is read from, by names that are part of its content."""
    if path.is_dir():
        from phi4mini.weights.checkpoints.folder import files_read

        return {name: path / name for name in sorted(files_read(path))}
    parts = parts_here(path)  # of a GGUF that was split
    return {str(i) if len(parts) > 1 else "": part for i, part in enumerate(parts)}


def _revision(path: Path) -> str:
    """The commit of a file or folder in the hub's cache: what follows `snapshots` in its path."""
    parts = path.parts
    at = len(parts) - 1 - parts[::-1].index("snapshots") if "snapshots" in parts else -2
    return parts[at + 1]
