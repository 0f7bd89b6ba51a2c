"""The one way a model is loaded: any name becomes a store on disk, made once, and the store is mapped.

Promises: a store is used for a name only if its header says that it was made of that content (source_identity.py); its
file name decides nothing. A hub model whose download is missing or incomplete runs from the newest store that was made
of the same hub id. No store is deleted to make room for another. Two processes that want the same store convert once;
files that a killed process left are removed. The recipe that was asked for runs, or an error says why not. This file
computes nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from phi4mini.errors import BadCheckpoint, BadInput, NotFound
from phi4mini.files import cache_home, lock
from phi4mini.model.arrays import Weights
from phi4mini.model.config import Config
from phi4mini.weights.resolve import Source, resolve
from phi4mini.weights.source_identity import Origin, converter, identify
from phi4mini.weights.store.store import SUFFIX, OpenModel, open_store, read_header

if TYPE_CHECKING:
    from phi4mini.weights.checkpoints.checkpoint import Checkpoint

Progress = Callable[[str, int, int], None]  # a description, bytes done, bytes in all (0: not known)
USUAL = "q4"  # the recipe if none is asked for
_log = logging.getLogger(__name__)


def load(name: str, quant: str | None = None, offline: bool = False, progress: Progress | None = None) -> OpenModel:
    """Open a model by any name, converting it first if need be."""
    return open_store(ensure_store(name, quant, offline, progress))


def load_weights(name: str, quant: str | None = None) -> Weights:
    """The weights alone."""
    return load(name, quant).weights


def ensure_store(
    name: str, quant: str | None = None, offline: bool = False, progress: Progress | None = None, refresh: bool = False
) -> Path:
    """The path of a model's store in a recipe (None: q4). The model is fetched and converted if there is none yet; if
    `name` is the path of a store, that path is returned.

    `refresh` asks the hub whether there is a newer revision. Raises `NotFound`, `BadInput`, `BadCheckpoint`, `NoSpace`.
    """
    source = resolve(name)
    offline = offline or is_offline()
    if refresh and offline:
        raise BadInput(f"{name}: --refresh asks the hub, and the network is forbidden (--offline, PHI4MINI_OFFLINE)")
    if quant is not None:
        from phi4mini.weights.store.recipes import recipe  # with it comes the rounding, which only a conversion needs

        recipe(quant)
    if source.kind == "store" and source.path is not None:
        check_recipe(source.path, quant)
        _log.debug("%s: a packed file, used as it is", source.path)
        return source.path
    chosen = quant or USUAL
    if source.kind == "hub" and not refresh and (made := _without_download(source, chosen)):
        _log.debug("%s: %s; the hub's cache does not hold the model whole, this store says it is of it", name, made)
        return made
    try:
        origin = identify(source, _fetched(source, offline, refresh, progress), _says(progress))
    except NotFound as error:
        raise _with_older_store(error, source, chosen) from error
    return _made(origin, chosen, stores_folder(), progress)


def _made(origin: Origin, quant: str, folder: Path, progress: Progress | None) -> Path:
    """The store made of this content: an existing one, under whatever file name, or a new one."""
    end = f"-{quant}-{origin.fingerprint}{SUFFIX}"
    for path in sorted(folder.glob(f"*{end}")):
        if _usable(path, origin, quant):
            _log.debug("%s: %s, made of the same content earlier", origin.source.name, path)
            return path
    path = folder / f"{origin.source.label}{end}"
    while _told(path) and not _usable(path, origin, quant):  # a store of other content has this file name: keep it
        path = path.with_name(f"other-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path):
        if not _usable(path, origin, quant):
            make_store(origin, quant, path, progress)
    return path


def make_store(
    origin: Origin, quant: str, path: Path, progress: Progress | None = None, chat_format: str | None = None
) -> None:
    """Convert an origin and write its store to `path`. `chat_format` overrides the checkpoint's own."""
    source, began = origin.source, time.perf_counter()

    def step(done: int, total: int) -> None:
        if progress:
            progress(f"converting {source.name} to {quant}", done, total)

    if source.kind == "synthetic":
        from phi4mini.weights.sources.synthetic import write_synthetic

        write_synthetic(path, quant, source.layers, step, origin.header)
    else:
        from phi4mini.weights.store.convert import convert

        checkpoint = open_checkpoint(source, origin.path)
        checkpoint = checkpoint if chat_format is None else checkpoint.in_format(chat_format)
        convert(checkpoint, quant, path, origin.header, step, origin.check_unchanged)
    _log.info("%s: %d bytes in %.1f s", path, path.stat().st_size, time.perf_counter() - began)


def convert_to(
    name: str,
    quant: str | None,
    path: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    chat_format: str | None = None,
) -> Path:
    """Write the store of a model to a path that the user chose, replacing that file. For the command `convert`.

    If `path` is None, the file is in the current folder and named after the model. An existing file there is replaced
    only if it was made of a model of the same full name.
    """
    from phi4mini.weights.store.recipes import recipe

    source, chosen = resolve(name), recipe(quant or USUAL).name
    if source.kind == "store":
        raise BadCheckpoint(f"{name} is a store already; convert from the checkpoint it was made of")
    if path is None:
        path = Path(f"{source.label}-{chosen}{SUFFIX}")
        _check_own(path, source)
    if not path.parent.is_dir():
        raise NotFound(f"{path.parent}: no such folder")
    origin = identify(source, _fetched(source, offline or is_offline(), False, progress), _says(progress))
    with lock(path):
        make_store(origin, chosen, path, progress, chat_format)
    return path


def _check_own(path: Path, source: Source) -> None:
    """Raises `BadInput` if the file at `path` exists and was not made of this source."""
    if path.exists() and _told(path).get("name") != source.full_name:
        raise BadInput(f"{path} is there and was not made of {source.full_name}; -o names another file")


def open_checkpoint(source: Source, origin: Path | None) -> Checkpoint:
    """The checkpoint behind a hub id, folder, GGUF or the demo."""
    from phi4mini.weights.checkpoints.folder import open_folder
    from phi4mini.weights.checkpoints.gguf_model import open_gguf

    if origin is None:
        raise BadCheckpoint(f"{source.name} has no checkpoint")
    return open_gguf(origin) if origin.is_file() else open_folder(origin)


def config_of(name: str, offline: bool = False) -> Config:
    """A model's config without loading or converting it; Phi-4-mini's is known without its files."""
    source = resolve(name)
    if source.kind == "store" and source.path is not None:
        return open_store(source.path).config
    if source.kind == "synthetic" or source.is_default:
        return Config.phi4_mini()
    return open_checkpoint(source, _fetched(source, offline or is_offline(), False, None)).config


def stores_folder() -> Path:
    """Where converted models are kept."""
    return cache_home() / "stores"


def is_offline() -> bool:
    """True if PHI4MINI_OFFLINE forbids the network."""
    return os.environ.get("PHI4MINI_OFFLINE", "").lower() not in ("", "0", "false", "no")


def _fetched(source: Source, offline: bool, refresh: bool, progress: Progress | None) -> Path | None:
    """The local file or folder with the source's content, downloaded if necessary; None for a synthetic model."""
    if source.kind == "demo":
        from phi4mini.weights.sources import demo

        return demo.demo_gguf(offline, lambda line: progress(line, 0, 0) if progress else None)
    if source.kind == "hub":
        from phi4mini.weights.sources import hub_gguf

        return hub_gguf.fetch(source.repo, source.variant, offline, refresh)
    return source.path


def _says(progress: Progress | None) -> Callable[[str], None]:
    """Where one-line messages about the work go: to `progress`, else to the log."""
    return lambda line: progress(line, 0, 0) if progress else _log.info(line)


def _without_download(source: Source, quant: str) -> Path | None:
    """The newest store of a hub model, used if the Hugging Face cache lacks some of the model's files; else None."""
    from phi4mini.weights.sources import hub_gguf

    if hub_gguf.whole(source.repo, source.variant) is not None:
        return None
    made = [path for path in _of_name(source, quant) if _told(path).get("kind") == "hub"]
    path = max(made, key=lambda path: path.stat().st_mtime, default=None)
    if path is not None and _told(path).get("converter") != converter(source):
        _log.warning("%s was made by an earlier version; `phi4mini pull %s --refresh` makes it anew", path, source.name)
    return path


def _with_older_store(error: NotFound, source: Source, quant: str) -> NotFound:
    """The same error; it also names a store of an earlier version that has the model's name but no identity."""
    older = [path for path in _of_name(source, quant) if "identity" not in _told(path)]
    return NotFound(f"{error}; {older[0]} may be it, and runs by that name") if older else error


def _of_name(source: Source, quant: str) -> list[Path]:
    """The stores in a recipe whose header names this model."""
    found = sorted(stores_folder().glob(f"{source.label}-{quant}-*{SUFFIX}"))
    return [path for path in found if _told(path).get("name") == source.full_name and _recipe(path) == quant]


def _told(path: Path) -> dict[str, str]:
    """The `source` of a store's header; empty if the header cannot be read."""
    try:
        source = read_header(path).get("source")
    except (NotFound, BadCheckpoint):
        return {}
    return source if isinstance(source, dict) else {}


def _recipe(path: Path) -> object:
    try:
        return read_header(path).get("recipe")
    except (NotFound, BadCheckpoint):
        return None


def _usable(path: Path, origin: Origin, quant: str) -> bool:
    """True if the store at `path` exists, is intact, and was made of this origin with this recipe."""
    try:
        header = read_header(path)
    except NotFound:
        return False
    except BadCheckpoint as error:
        _log.warning("%s; it is made anew", error)
        return False
    if _told(path).get("identity") != origin.identity or header.get("recipe") != quant:
        _log.warning("%s is not %s in %s, whatever its name; it is not used", path, origin.source.name, quant)
        return False
    return True


def check_recipe(path: Path, quant: str | None) -> None:
    """Raises `BadInput` if a store's recipe is not `quant`; None accepts any."""
    stored = read_header(path).get("recipe")
    if quant not in (None, stored):
        raise BadInput(
            f"{path} is packed as {stored}, and {quant} was asked for; leave -q (quant, PHI4MINI_QUANT) out, or "
            f"convert the checkpoint to {quant}"
        )
