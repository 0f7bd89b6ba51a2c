"""A model's name -> its `Source`: a hub id, a folder, a .gguf, a store, `demo` or `synthetic`.

Promises: a name means one thing, decided from the first bytes of a file at most; an unknown name is an error that lists
the forms a name can have. This file neither fetches nor converts (load.py does).
"""

from __future__ import annotations

from pathlib import Path

from phi4mini.errors import BadInput, NotFound
from phi4mini.weights.sources.source import DEFAULT, Kind, Source
from phi4mini.weights.store.store import SUFFIX

__all__ = ["ALIASES", "DEFAULT", "Source", "fingerprint", "resolve"]
ALIASES = {
    "phi-4-mini": DEFAULT,
    "phi-4-mini-instruct": DEFAULT,
    "phi4-mini": DEFAULT,
    "phi-4-mini-reasoning": "microsoft/Phi-4-mini-reasoning",
    "phi-3.5-mini": "microsoft/Phi-3.5-mini-instruct",
}
_WAYS = (
    "a model is a hub id (owner/name), a folder, a .gguf or .phi4 file, demo or synthetic; a GGUF on the hub is "
    "owner/name:Q4_K_M or owner/name:file.gguf"
)
_LAYERS = 32  # of the whole synthetic model


def resolve(name: str) -> Source:
    """The source that `name` means. Raises `NotFound` for a missing path and for a name of no known form."""
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
            from phi4mini.weights.checkpoints.gguf_split import parts_here

            path = parts_here(path)[0]  # any part of a split GGUF means the whole
        return Source(kind, str(path), path)
    if (path.suffix in (".gguf", SUFFIX) and ":" not in name) or name.startswith((".", "/", "~")):
        raise NotFound(f"{name}: no such file or folder")
    hub = _hub(name)
    if hub is not None:
        return hub
    raise NotFound(f"unknown model {name[:100]!r}; {_WAYS}")


def fingerprint(source: Source, folder_or_file: Path | None = None) -> str:
    """Sixteen hex digits of the identity of a source's content, as in its store's file name. Reads all of it once."""
    from phi4mini.weights.source_identity import identify

    return identify(source, folder_or_file or source.path).fingerprint


def _hub(name: str) -> Source | None:
    """A hub id, alone or with a GGUF's quantisation or file; also as an address or with Ollama's hf.co/."""
    from phi4mini.weights.sources.hub_gguf import parse

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
    """The kind of a file by its first bytes; its name decides only if those are unknown."""
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
