"""A model folder as Hugging Face lays it out -> `Checkpoint`: config, tokenizer, safetensors in one or many shards.

Promises: only files inside the folder are read (or, in the hub's cache, inside the same repository's cache); JSON
files are bounded before they are parsed; pickle files and `auto_map` code are never touched; all that is read of a
folder is among `files_read`. Where a model.safetensors lies beside an index that does not name it, it is the newer
save: it is read, and a line says that the index is stale. It does not know the network.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.config import Config
from phi4mini.config_json import short
from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.weights.checkpoint import Checkpoint, assemble, finish
from phi4mini.weights.rows import Rows
from phi4mini.weights.safetensors import SafetensorsFile

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BESIDE_WEIGHTS = (  # the small files that decide what a model is; the hub's download and a store's identity take all
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_MOST_JSON = {"tokenizer.json": 1 << 26, INDEX: 1 << 26}  # bytes; other JSON files have a few thousand
_MOST_SMALL_JSON = 1 << 22
_log = logging.getLogger(__name__)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


def open_folder(folder: Path) -> Checkpoint:
    """Open a model folder. Raises `NotFound` or `BadCheckpoint`; reads headers and the tokenizer, no weights."""
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder")
    try:
        config = Config.from_json(read_json(folder, "config.json"), read_json(folder, "generation_config.json", {}))
    except BadCheckpoint as error:
        raise located(error, folder) from error
    files = _open_shards(folder)
    homes = _homes(folder, files)
    tokenizer, template = _tokenizer(folder, config)
    config, chat_format = finish(config, tokenizer, template, str(folder))
    shapes = {name: files[home].tensors[name].shape for name, home in homes.items()}
    ignored = {name for name in shapes if name.endswith(".rotary_emb.inv_freq")}  # a table that old checkpoints kept
    if config.tie_word_embeddings and "lm_head.weight" in shapes:
        ignored.add("lm_head.weight")

    def part(ours: str, index: int, name: str) -> Rows:
        return files[homes[name]].rows(name)

    arrays = assemble(str(folder), config, "hf", shapes, part, ignored)
    if "lm_head.weight" in ignored:
        _check_tied(folder, arrays["embed"], part("head", 0, "lm_head.weight"), shapes["lm_head.weight"])
    return Checkpoint(str(folder), config, tokenizer, chat_format, arrays)


def files_read(folder: Path) -> list[str]:
    """The files that a model is read from, those of its weights first. Raises `NotFound` or `BadCheckpoint`."""
    if not (folder / "config.json").exists():
        raise NotFound(f"{folder / 'config.json'}: no such file")
    weights = weight_files(folder)
    index = [INDEX] if (folder / INDEX).exists() and weights != [SINGLE] else []
    names = [*weights, *index, *(name for name in BESIDE_WEIGHTS if (folder / name).exists())]
    for name in names:
        _inside(folder, name)  # nothing else is ever read, hashing included
    return names


def weight_files(folder: Path) -> list[str]:
    """The safetensors files that hold the weights, inside the folder or not, there or not.

    A model.safetensors beside an index of other files wins, as in transformers: saving a tuned model over its download
    leaves such a folder. Raises `NotFound` or `BadCheckpoint`.
    """
    indexed = _indexed(folder) if (folder / INDEX).exists() else []
    if (folder / SINGLE).exists() and SINGLE not in indexed:
        return [SINGLE]
    if (folder / INDEX).exists():
        return indexed
    found = [path.name for path in folder.glob("*.safetensors")]
    if len(found) != 1:
        raise _no_weights(folder, len(found))
    return found


def _indexed(folder: Path) -> list[str]:
    """The files that the index names. One beside a model.safetensors need not be read to be stale."""
    try:
        listed = read_json(folder, INDEX)
    except BadCheckpoint:
        if (folder / SINGLE).exists():
            return []
        raise
    weight_map = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        if (folder / SINGLE).exists():
            return []
        raise BadCheckpoint(f"{folder / INDEX}: weight_map is not an object of file names")
    return sorted(set(weight_map.values()))


def read_json(folder: Path, name: str, default: Any = None) -> Any:
    """A JSON file of the folder, bounded; `default` if there is none, `NotFound` if that is None."""
    path = folder / name
    if not path.exists():
        if default is None:
            raise NotFound(f"{path}: no such file")
        return default
    data = _bounded(_inside(folder, name))
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: not JSON: {short(str(error))}") from error


def located(error: Exception, where: Path) -> BadCheckpoint:
    """The same error, beginning with the place it is about."""
    message = str(error)
    return BadCheckpoint(message if message.startswith(str(where)) else f"{where}: {message}")


def _bounded(path: Path) -> bytes:
    most = _MOST_JSON.get(path.name, _MOST_SMALL_JSON)
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise BadCheckpoint(f"{path}: more than the limit of {most} bytes")
    return data


def _inside(folder: Path, name: str) -> Path:
    """folder / name, if that is a file which really lies in the folder. Raises `BadCheckpoint` or `NotFound`.

    The hub's cache keeps files as links from snapshots/<revision>/ to blobs/ beside it: those may be followed.
    """
    where = f"{folder}: the file {short(name)} named by the checkpoint"
    if not isinstance(name, str) or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise BadCheckpoint(f"{where} lies outside the folder")
    home = folder.resolve()
    real = (home / name).resolve()
    blobs = home.parent.parent / "blobs"
    allowed = real.is_relative_to(home) or (home.parent.name == "snapshots" and real.parent == blobs)
    if not allowed:
        raise BadCheckpoint(f"{where} is a link out of the folder")
    if not real.is_file():
        raise NotFound(f"{where} is missing")
    return home / name


def _open_shards(folder: Path) -> dict[str, SafetensorsFile]:
    """File name -> opened file."""
    shards = weight_files(folder)
    if shards == [SINGLE] and (folder / INDEX).exists() and SINGLE not in _indexed(folder):
        _log.warning("%s is stale: it does not name the %s beside it, which is what is read", folder / INDEX, SINGLE)
    return {shard: SafetensorsFile(_inside(folder, shard)) for shard in shards}


def _no_weights(folder: Path, shards: int) -> Exception:
    if shards:
        return NotFound(f"{folder}: {shards} safetensors files but no {INDEX} that says what is in them")
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if not pickles:
        return NotFound(f"{folder}: no {SINGLE} and no {INDEX}")
    return BadCheckpoint(
        f"{folder}: {pickles[0]} is a pickle file, which can run code and is never opened; "
        f"convert it to safetensors first"
    )


def _homes(folder: Path, files: dict[str, SafetensorsFile]) -> dict[str, str]:
    """Tensor -> the file it is in."""
    homes: dict[str, str] = {}
    for shard, file in files.items():
        for name in file.tensors:
            if name in homes:
                raise BadCheckpoint(f"{folder}: tensor {short(name)} is in {homes[name]} and in {shard}")
            homes[name] = shard
    return homes


def _tokenizer(folder: Path, config: Config) -> tuple[Any, object]:
    """The tokenizer and the chat template (text, or None)."""
    from phi4mini.tokenizer import Tokenizer

    settings = read_json(folder, "tokenizer_config.json", {})
    if not isinstance(settings, dict):
        raise BadCheckpoint(f"{folder}: tokenizer_config.json is not an object")
    template = settings.get("chat_template")
    if template is None and (folder / "chat_template.jinja").exists():
        template = _bounded(_inside(folder, "chat_template.jinja")).decode("utf-8", "replace")
    if not (folder / "tokenizer.json").exists():
        if _has_shipped_vocabulary(config):
            return Tokenizer.phi4_mini(), template
        raise NotFound(f"{folder / 'tokenizer.json'}: no such file")
    try:
        data = _bounded(_inside(folder, "tokenizer.json"))
        return Tokenizer.from_json(data, settings, config.vocab_size), template
    except BadCheckpoint as error:
        raise located(error, folder) from error


def _has_shipped_vocabulary(config: Config) -> bool:
    """Whether the one tokenizer that we carry fits."""
    return config.architecture == "phi3" and config.vocab_size == Config.phi4_mini().vocab_size


def needs_no_tokenizer_json(folder: Path) -> bool:
    """Whether a folder without tokenizer.json is whole: the tokenizer that we carry fits, and the settings are there
    that say what this model makes of it (Phi-4-mini-reasoning has another chat template than Phi-4-mini-instruct).
    """
    if not (folder / "tokenizer_config.json").exists():
        return False
    try:
        return _has_shipped_vocabulary(Config.from_json(read_json(folder, "config.json"), {}))
    except BadCheckpoint:
        return False


def _check_tied(folder: Path, embed: Rows, head: Rows, shape: tuple[int, ...]) -> None:
    """A head that a tied checkpoint keeps as well must be the embedding: else one of the two would be lost unseen."""
    told = f"{folder}: tie_word_embeddings is true but lm_head.weight is not model.embed_tokens.weight"
    if shape != (embed.rows, embed.cols):
        raise BadCheckpoint(told)
    step = max((1 << 20) // embed.cols, 1)
    for start in range(0, embed.rows, step):
        stop = min(start + step, embed.rows)
        if not np.array_equal(embed.values(start, stop), head.values(start, stop), equal_nan=True):
            raise BadCheckpoint(told)
