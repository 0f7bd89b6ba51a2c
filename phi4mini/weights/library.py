"""Lists and removes the files of our model cache. Downloads in the Hugging Face cache are left alone.

Promises: a broken file is listed as broken instead of hiding the rest; only files inside the cache are removed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from phi4mini.errors import NotFound, Phi4MiniError
from phi4mini.files import cache_home
from phi4mini.weights.load import stores_folder
from phi4mini.weights.resolve import Source, resolve
from phi4mini.weights.source_identity import identify
from phi4mini.weights.store.store import SUFFIX, read_header


@dataclass(frozen=True)
class ModelFile:
    """One file of the cache. `name`: the model it was made from; `recipe`: None for a file that is not a store."""

    name: str
    path: Path
    nbytes: int
    recipe: str | None
    architecture: str | None
    modified: float  # seconds since 1970
    kind: str | None = None  # of the source: hub, folder, ...; None in stores of an earlier version
    identity: str | None = None  # of the source's content
    broken: str | None = None  # what is wrong with it


def list_models() -> list[ModelFile]:
    """All models in the cache, by name."""
    stores = [_store(path) for path in _glob(stores_folder(), f"*{SUFFIX}")]
    raw = [
        ModelFile(path.stem, path, path.stat().st_size, None, None, path.stat().st_mtime)
        for path in _glob(cache_home() / "models", "*.gguf")
    ]
    return sorted(stores + raw, key=lambda model: (model.name, model.recipe or "", model.modified))


def find(name: str) -> list[ModelFile]:
    """The cached files that `name` means: a file by its name or path, or all files made from a model. Raises
    `NotFound`.

    A store of an earlier version records only the name as the user typed it; it is found by that name.
    """
    models, wanted = list_models(), _source(name)
    found = [m for m in models if name in (m.path.name, m.path.stem, str(m.path)) or _made_of(m, name, wanted)]
    if not found and wanted and wanted.kind in ("folder", "gguf"):
        identity = identify(wanted, wanted.path).identity
        found = [model for model in models if model.identity == identity]  # made of a copy of it
    if not found:
        raise NotFound(f"{name[:100]!r} is not in the model cache {cache_home()}")
    return found


def _source(name: str) -> Source | None:
    try:
        return resolve(name)
    except Phi4MiniError:
        return None  # a folder that is gone may have left a store


def _made_of(model: ModelFile, name: str, source: Source | None) -> bool:
    """True if a file was made from the model that `name` means."""
    if source is None:
        return model.kind != "hub" and model.name in (name, os.path.abspath(name))
    if model.kind is None:
        return model.name in (name, source.name, source.full_name)
    return (model.kind, model.name) == (source.kind, source.full_name)


def remove(name: str) -> list[ModelFile]:
    """Remove what `find` finds, and return it. A program that has a store open keeps its mapping."""
    found = find(name)
    for model in found:
        model.path.unlink(missing_ok=True)
    return found


def _glob(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")]


def _store(path: Path) -> ModelFile:
    status = path.stat()
    try:
        header = read_header(path)
        source, recipe = header["source"], str(header["recipe"])
        name = str(source["name"])
        family = str(header["config"]["architecture"])
    except (Phi4MiniError, KeyError, TypeError, AttributeError) as error:
        return ModelFile(path.stem, path, status.st_size, None, None, status.st_mtime, broken=str(error))
    about = {key: source.get(key) for key in ("kind", "identity")}
    return ModelFile(name, path, status.st_size, recipe, family, status.st_mtime, **about)
