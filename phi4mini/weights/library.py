"""What lies in our model cache: list it, remove it. Downloads in the Hugging Face cache are not ours to touch.

Promises: a broken file is listed as broken instead of hiding the rest; only files inside the cache are removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phi4mini.errors import NotFound, Phi4MiniError
from phi4mini.files import cache_home
from phi4mini.weights.load import stores_folder
from phi4mini.weights.resolve import resolve
from phi4mini.weights.store import SUFFIX, read_header


@dataclass(frozen=True)
class ModelFile:
    """One file of the cache. `name` is what it was made from; `recipe` is None for a file that is not a store."""

    name: str
    path: Path
    nbytes: int
    recipe: str | None
    architecture: str | None
    modified: float  # seconds since 1970
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
    """The cached files a name stands for: a file's name or path, or all made from a model. Raises `NotFound`."""
    models = list_models()
    found = [model for model in models if name in (model.name, model.path.name, model.path.stem, str(model.path))]
    if not found:
        try:
            wanted = resolve(name).name
        except Phi4MiniError:
            wanted = name
        found = [model for model in models if model.name == wanted]
    if not found:
        raise NotFound(f"{name[:100]!r} is not in the model cache {cache_home()}")
    return found


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
        name, recipe = str(header["source"]["name"]), str(header["recipe"])
        family = str(header["config"]["architecture"])
    except (Phi4MiniError, KeyError, TypeError) as error:
        return ModelFile(path.stem, path, status.st_size, None, None, status.st_mtime, broken=str(error))
    return ModelFile(name, path, status.st_size, recipe, family, status.st_mtime)
