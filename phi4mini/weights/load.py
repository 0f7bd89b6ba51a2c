"""The one way a model is loaded: any name becomes a store on disk, made once, and the store is mapped.

Promises: a model that has been converted needs neither network nor its source again (unless the source is a file that
changed); two processes that want the same store make it once; what a kill leaves is swept. It does not compute
anything.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from phi4mini.config import Config
from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.files import cache_home, lock
from phi4mini.weights.arrays import Weights
from phi4mini.weights.checkpoint import Checkpoint
from phi4mini.weights.quantize import recipe
from phi4mini.weights.resolve import DEFAULT, Source, fingerprint, resolve
from phi4mini.weights.store import SUFFIX, OpenModel, open_store, read_header

Progress = Callable[[str, int, int], None]  # what is done, bytes done, bytes in all (0: not known)
_log = logging.getLogger(__name__)


def load(name: str, quant: str = "q4", offline: bool = False, progress: Progress | None = None) -> OpenModel:
    """Open a model by any name, converting it first if need be."""
    return open_store(ensure_store(name, quant, offline, progress))


def load_weights(name: str, quant: str = "q4") -> Weights:
    """The weights alone."""
    return load(name, quant).weights


def ensure_store(
    name: str, quant: str = "q4", offline: bool = False, progress: Progress | None = None, refresh: bool = False
) -> Path:
    """The store of a model in a recipe; fetched and converted if it is not there. A store named by its path is itself.

    `refresh` asks the hub whether there is a newer revision. Raises `NotFound`, `BadInput`, `BadCheckpoint`, `NoSpace`.
    """
    source = resolve(name)
    if source.kind == "store" and source.path is not None:
        _say_other_recipe(source.path, quant)
        return source.path
    recipe(quant)
    offline = offline or is_offline()
    if source.kind == "hub" and not refresh:
        made = _newest(source, quant)
        if made is not None:
            return made
    origin = _fetched(source, offline, refresh, progress)
    path = stores_folder() / f"{source.label}-{quant}-{fingerprint(source, origin)}{SUFFIX}"
    if not _usable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path):
            if not _usable(path):
                make_store(source, origin, quant, path, progress)
    return path


def make_store(
    source: Source,
    origin: Path | None,
    quant: str,
    path: Path,
    progress: Progress | None = None,
    chat_format: str | None = None,
) -> None:
    """Write the store of a source whose files lie at `origin` to `path`; `chat_format` takes the place of its own."""
    began = time.perf_counter()

    def step(done: int, total: int) -> None:
        if progress:
            progress(f"converting {source.name} to {quant}", done, total)

    if source.kind == "synthetic":
        from phi4mini.weights.synthetic import write_synthetic

        write_synthetic(path, quant, source.layers, step)
    else:
        from phi4mini.weights.convert import convert

        checkpoint = open_checkpoint(source, origin)
        checkpoint = checkpoint if chat_format is None else checkpoint.in_format(chat_format)
        convert(checkpoint, quant, path, fingerprint(source, origin), step, source.name)
    _log.info("%s: %d bytes in %.1f s", path, path.stat().st_size, time.perf_counter() - began)


def convert_to(
    name: str,
    quant: str,
    path: Path,
    offline: bool = False,
    progress: Progress | None = None,
    chat_format: str | None = None,
) -> Path:
    """Write the store of a model to a place of the user's own, replacing what is there. For the command `convert`."""
    source = resolve(name)
    recipe(quant)
    if source.kind == "store":
        raise BadCheckpoint(f"{name} is a store already; convert from the checkpoint it was made of")
    if not path.parent.is_dir():
        raise NotFound(f"{path.parent}: no such folder")
    origin = _fetched(source, offline or is_offline(), False, progress)
    with lock(path):
        make_store(source, origin, quant, path, progress, chat_format)
    return path


def open_checkpoint(source: Source, origin: Path | None) -> Checkpoint:
    """The checkpoint behind a hub id, folder, GGUF or the demo."""
    from phi4mini.weights.folder import open_folder
    from phi4mini.weights.gguf_model import open_gguf

    if origin is None:
        raise BadCheckpoint(f"{source.name} has no checkpoint")
    return open_gguf(origin) if source.kind in ("gguf", "demo") else open_folder(origin)


def config_of(name: str, offline: bool = False) -> Config:
    """A model's config without loading or converting it; Phi-4-mini's is known without its files."""
    source = resolve(name)
    if source.kind == "store" and source.path is not None:
        return open_store(source.path).config
    if source.kind == "synthetic" or source.name == DEFAULT:
        return Config.phi4_mini()
    return open_checkpoint(source, _fetched(source, offline or is_offline(), False, None)).config


def stores_folder() -> Path:
    """Where converted models are kept."""
    return cache_home() / "stores"


def is_offline() -> bool:
    """Whether PHI4MINI_OFFLINE forbids the network."""
    return os.environ.get("PHI4MINI_OFFLINE", "").lower() not in ("", "0", "false", "no")


def _fetched(source: Source, offline: bool, refresh: bool, progress: Progress | None) -> Path | None:
    """The file or folder on this disk that the source's content is in."""
    from phi4mini.weights import demo, hub

    if source.kind == "demo":
        return demo.demo_gguf(offline, lambda line: progress(line, 0, 0) if progress else None)
    if source.kind == "hub":
        return hub.snapshot(source.name, offline, refresh)
    return source.path


def _newest(source: Source, quant: str) -> Path | None:
    """The latest store of a hub model in a recipe."""
    pattern = re.compile(re.escape(f"{source.label}-{quant}-") + r"[0-9a-f]{12}" + re.escape(SUFFIX))
    folder = stores_folder()
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)] if folder.is_dir() else []
    usable = [path for path in found if _usable(path)]
    return max(usable, key=lambda path: path.stat().st_mtime, default=None)


def _usable(path: Path) -> bool:
    """Whether a store is there and whole; one that is not is made anew."""
    try:
        read_header(path)
    except NotFound:
        return False
    except BadCheckpoint as error:
        _log.warning("%s; it is made anew", error)
        return False
    return True


def _say_other_recipe(path: Path, quant: str) -> None:
    stored = read_header(path).get("recipe")
    if stored != quant:
        _log.info("%s is stored as %s, which holds", path, stored)
