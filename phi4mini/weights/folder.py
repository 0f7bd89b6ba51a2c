"""A model folder as Hugging Face lays it out -> `Checkpoint`: config, tokenizer, safetensors in one or many shards.

Promises: only files inside the folder are read (or, in the hub's cache, inside the same repository's cache); JSON
files are bounded before they are parsed; pickle files and `auto_map` code are never touched. It does not know the
network.
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
    if (folder / INDEX).exists():
        listed = read_json(folder, INDEX)
        weight_map = listed.get("weight_map") if isinstance(listed, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise BadCheckpoint(f"{folder / INDEX}: weight_map is not an object of file names")
        shards = sorted(set(weight_map.values()))
    elif (folder / SINGLE).exists():
        shards = [SINGLE]
    else:
        shards = [path.name for path in folder.glob("*.safetensors")]
        if len(shards) != 1:
            raise _no_weights(folder, len(shards))
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


def _tokenizer(folder: Path, config: Config) -> tuple[Any, str | None]:
    """The tokenizer and the chat template (text, or None). Raises `NotFound` or `BadCheckpoint`."""
    from phi4mini.tokenizer import Tokenizer
    from phi4mini.tokenizer.sources import phi4_mini_with

    settings = read_json(folder, "tokenizer_config.json", {})
    if not isinstance(settings, dict):
        raise BadCheckpoint(f"{folder}: tokenizer_config.json is not an object")
    template = _template(folder, settings)
    shipped = config.architecture == "phi3" and config.vocab_size == Config.phi4_mini().vocab_size
    try:
        settings = _with_names(folder, settings)
        if (folder / "tokenizer.json").exists():
            data = _bounded(_inside(folder, "tokenizer.json"))
            return Tokenizer.from_json(data, settings, config.vocab_size), template
        if shipped:
            return phi4_mini_with(settings, config.vocab_size), template  # the one vocabulary we carry
    except BadCheckpoint as error:
        raise located(error, folder) from error
    raise NotFound(f"{folder / 'tokenizer.json'}: no such file")


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The chat template: chat_template.jinja, else tokenizer_config's (of named ones `default`), else a processor's.

    Templates in additional_chat_templates/ have other names than `default` and are not asked for.
    """
    if (folder / "chat_template.jinja").exists():
        return _bounded(_inside(folder, "chat_template.jinja")).decode("utf-8", "replace")
    template = _default(settings.get("chat_template"))
    if template is not None or not (folder / "chat_template.json").exists():
        return template
    processors = read_json(folder, "chat_template.json")
    return _default(processors.get("chat_template") if isinstance(processors, dict) else None)


def _default(template: Any) -> str | None:
    """One template, or that named `default` of a list of {name, template} or of an object."""
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = {str(item.get("name")): item.get("template") for item in named}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _with_names(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the tokens of added_tokens.json, which HF reads where the settings list none themselves."""
    from phi4mini.tokenizer.sources import names_as_config

    names = read_json(folder, "added_tokens.json", {})
    if not names:
        return settings
    if settings.get("added_tokens_decoder") is None:
        return names_as_config(names, settings, read_json(folder, "special_tokens_map.json", {}))
    listed = settings["added_tokens_decoder"]
    entries = listed.values() if isinstance(listed, dict) else ()
    known = {entry.get("content") for entry in entries if isinstance(entry, dict)}
    more = [name for name in names if name not in known]
    if more:
        _log.warning(
            "%s: added_tokens.json names %s, which tokenizer_config.json does not list: left out, as transformers does",
            folder,
            short(more[0]),
        )
    return settings


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
