"""The content of a source and its identity: a hash that the header of every store made of it records.

Promises: equal content of the same kind has the same identity wherever it lies and whatever it is called; different
content has a different one. The identity of a hub model covers its id, revision and files; that of a folder or GGUF its
files; that of a synthetic model its number of layers. phi4mini/identity.py has the table of what a store depends on.
This file neither fetches nor converts (load.py does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phi4mini.errors import BadCheckpoint
from phi4mini.identity import THINGS, Content, contents, key_of
from phi4mini.weights.sources.source import Source


@dataclass(frozen=True)
class Origin:
    """A source whose content is on this disk. `path`: its folder or file; `identity`: sha256 of the content as hex."""

    source: Source
    path: Path | None
    identity: str
    revision: str | None = None  # of a hub model: the commit
    files: Mapping[Path, Content] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The first 16 digits of the identity, for file names: enough to find a store, not to prove what it holds."""
        return self.identity[:16]

    @property
    def header(self) -> dict[str, str]:
        """The `source` of the store's header: name, kind, identity, converter and, of a hub model, revision."""
        told = {"name": self.source.full_name, "kind": self.source.kind, "identity": self.identity}
        told["converter"] = converter(self.source)
        return told if self.revision is None else told | {"revision": self.revision}

    def check_unchanged(self) -> None:
        """Raises `BadInput` if a file has changed since `identity` was computed."""
        for path, content in self.files.items():
            content.check(path)


def converter(source: Source) -> str:
    """The version of the conversion for sources of this kind; a store records it."""
    return str(THINGS["synthetic store" if source.kind == "synthetic" else "store"].version)


def identify(source: Source, path: Path | None, say: Callable[[str], None] | None = None) -> Origin:
    """Hash the content at `path`: the origin of a source. `say` receives one line if hashing takes long.

    Raises `NotFound`, `BadCheckpoint`, and `BadInput` for files that change while they are read.
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
    """The files that a model is read from, by the names that enter its identity: a GGUF's own name does not."""
    if path.is_dir():
        from phi4mini.weights.checkpoints.folder import files_read

        return {name: path / name for name in sorted(files_read(path))}
    from phi4mini.weights.checkpoints.gguf_split import parts_here

    parts = parts_here(path)  # of a GGUF that was split
    return {str(i) if len(parts) > 1 else "": part for i, part in enumerate(parts)}


def _revision(path: Path) -> str:
    """The commit of a file or folder in the Hugging Face cache, whose path is .../snapshots/COMMIT/..."""
    parts = path.parts
    at = len(parts) - 1 - parts[::-1].index("snapshots") if "snapshots" in parts else -2
    return parts[at + 1]
