"""A model folder as Hugging Face lays it out -> `Checkpoint`: config, tokenizer, safetensors in one or many shards.

Promises: only files inside the folder are read (or, in the Hugging Face cache, inside the same repository's cache); the
size of JSON files is limited before they are parsed; pickle files and `auto_map` code are never opened; `files_read`
lists every file that is read. A model.safetensors beside an index that does not name it is the newer save: it is read,
and a warning says that the index is stale. This file does not know the network.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.model.config import Config
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.checkpoints.checkpoint import Checkpoint, assemble, finish
from phi4mini.weights.checkpoints.quantised_tensors import quantised
from phi4mini.weights.checkpoints.row_reader import Rows
from phi4mini.weights.checkpoints.safetensors import SafetensorsFile, Stored
from phi4mini.weights.checkpoints.training_names import ADAPTER, ADAPTER_CONFIG, canonical, check_adapter, passed_over

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_QUANTISATION_FILES = ("quantize_config.json", "quant_config.json")  # of GPTQ and AWQ, where config.json has nothing
BESIDE_WEIGHTS = (  # the small files that decide what a model is; the hub's download and a store's identity take all
    "config.json",
    "generation_config.json",
    ADAPTER_CONFIG,
    *_QUANTISATION_FILES,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_MOST_JSON = {"tokenizer.json": 1 << 26, INDEX: 1 << 26}  # bytes; other JSON files have a few thousand
_MOST_SMALL_JSON = 1 << 22
_log = logging.getLogger(__name__)
_HEAD = "lm_head.weight"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


def open_folder(folder: Path) -> Checkpoint:
    """Open a model folder. Raises `NotFound` or `BadCheckpoint`; reads headers and the tokenizer, no weights."""
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder")
    check_adapter(folder, _object(folder, ADAPTER_CONFIG), has_weights(folder))
    try:
        said = read_json(folder, "config.json")
        config = Config.from_json(said, read_json(folder, "generation_config.json", {}))
    except BadCheckpoint as error:
        raise located(error, folder) from error
    files = _open_shards(folder)
    homes = _homes(folder, files)
    spelled = canonical(str(folder), homes)
    tensors = {name: Stored(files[homes[theirs]], theirs) for name, theirs in spelled.items()}
    packed, used = quantised(str(folder), tensors, _quantisation(folder, said))
    tokenizer, template = _tokenizer(folder, config)
    config, chat_format = finish(config, tokenizer, template, str(folder))
    shapes: dict[str, tuple[int, ...]] = {name: t.shape for name, t in tensors.items() if name not in used}
    shapes |= {name: (rows.rows, rows.cols) for name, rows in packed.items()}
    ignored = passed_over(str(folder), shapes)

    def part(ours: str, index: int, name: str) -> Rows:
        return packed[name] if name in packed else tensors[name].rows()

    if config.tie_word_embeddings and _HEAD in shapes:
        config = _with_head(folder, config, shapes, part)
        ignored.add(_HEAD)
    arrays = assemble(str(folder), config, "hf", shapes, part, ignored)
    return Checkpoint(str(folder), config, tokenizer, chat_format, arrays)


def files_read(folder: Path) -> list[str]:
    """The names of all files that a model is read from, weights first. Raises `NotFound` or `BadCheckpoint`."""
    if not has_weights(folder):
        check_adapter(folder, _object(folder, ADAPTER_CONFIG), False)  # an adapter alone is named as one
    if not (folder / "config.json").exists():
        raise NotFound(f"{folder / 'config.json'}: no such file")
    weights = weight_files(folder)
    index = [INDEX] if (folder / INDEX).exists() and weights != [SINGLE] else []
    names = [*weights, *index, *(name for name in BESIDE_WEIGHTS if (folder / name).exists())]
    for name in names:
        _inside(folder, name)  # nothing else is ever read, hashing included
    return names


def weight_files(folder: Path) -> list[str]:
    """The names of the safetensors files that hold the weights. They need not exist, nor lie inside the folder.

    A model.safetensors wins over an index of other files, as in transformers: saving a tuned model into the folder of
    its download leaves both. Raises `NotFound` or `BadCheckpoint`.
    """
    indexed = _indexed(folder) if (folder / INDEX).exists() else []
    if (folder / SINGLE).exists() and SINGLE not in indexed:
        return [SINGLE]
    if (folder / INDEX).exists():
        return indexed
    found = [path.name for path in folder.glob("*.safetensors") if path.name != ADAPTER]
    if len(found) != 1:
        raise _no_weights(folder, len(found))
    return found


def _indexed(folder: Path) -> list[str]:
    """The files that the index names; none if a damaged index lies beside a model.safetensors, which replaces it."""
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
    """A JSON file of the folder, limited in size. If it is missing: `default`, or `NotFound` if `default` is None."""
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


def _object(folder: Path, name: str) -> Mapping[str, Any] | None:
    """A JSON object from a file; None if the file is missing. Raises `BadCheckpoint` if it holds anything else."""
    if not (folder / name).exists():
        return None
    said = read_json(folder, name)
    if not isinstance(said, dict):
        raise BadCheckpoint(f"{folder / name} is not an object")
    return said


def _quantisation(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantisation config, from config.json or a separate file; {} if there is none."""
    found = config.get("quantization_config") or config.get("compression_config")
    for name in _QUANTISATION_FILES:
        found = found or _object(folder, name)
    if found and not isinstance(found, dict):
        raise BadCheckpoint(f"{folder}: quantization_config must be an object or null, got {short(found)}")
    return found or {}


def has_weights(folder: Path) -> bool:
    """True if the folder has safetensors, or an index of them, besides those of an adapter."""
    return (folder / INDEX).exists() or any(path.name != ADAPTER for path in folder.glob("*.safetensors"))


def located(error: Exception, where: Path) -> BadCheckpoint:
    """The same error with the folder or file in front, if the message does not name it yet."""
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
    """folder / name, after checking that it is a file inside the folder. Raises `BadCheckpoint` or `NotFound`.

    The Hugging Face cache links snapshots/REVISION/FILE to the blobs/ folder of the same repository; such links are
    followed.
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


def _tokenizer(folder: Path, config: Config) -> tuple[Any, str | None]:
    """The tokenizer and the chat template (text, or None). Raises `NotFound` or `BadCheckpoint`."""
    from phi4mini.tokenizer import from_json
    from phi4mini.tokenizer.shipped import phi4_mini_with

    settings = read_json(folder, "tokenizer_config.json", {})
    if not isinstance(settings, dict):
        raise BadCheckpoint(f"{folder}: tokenizer_config.json is not an object")
    template = _template(folder, settings)
    try:
        settings = _with_names(folder, settings)
        if (folder / "tokenizer.json").exists():
            data = _bounded(_inside(folder, "tokenizer.json"))
            return from_json(data, settings, config.vocab_size), template
        if _has_shipped_vocabulary(config):
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
    """A template given as text, or the one named `default` in a list of {name, template} or in an object."""
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = {str(item.get("name")): item.get("template") for item in named}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _with_names(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the tokens of added_tokens.json, which HF reads where the settings list none themselves."""
    from phi4mini.tokenizer.tokenizer_config import names_as_config

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


def _with_head(
    folder: Path, config: Config, shapes: Mapping[str, tuple[int, ...]], part: Callable[[str, int, str], Rows]
) -> Config:
    """The config of a tied checkpoint that has a head nevertheless: untied if the head differs from the embedding.

    Training updated that head separately although the config said "tied", so it belongs to the model; transformers 5
    keeps it too.
    """
    table = tensor_names.parts(config, "hf")["embed"][0].name
    if shapes.get(table) == shapes[_HEAD] and _equal(part("embed", 0, table), part("head", 0, _HEAD)):
        return config
    _log.warning("%s: tie_word_embeddings is true but %s is another matrix; it is kept as the head", folder, _HEAD)
    return replace(config, tie_word_embeddings=False)


def _equal(one: Rows, other: Rows) -> bool:
    """True if two matrices of one shape hold the same numbers; they are read a few rows at a time."""
    step = max((1 << 20) // one.cols, 1)
    return all(
        np.array_equal(one.values(start, start + some), other.values(start, start + some), equal_nan=True)
        for start, some in ((start, min(step, one.rows - start)) for start in range(0, one.rows, step))
    )


def _has_shipped_vocabulary(config: Config) -> bool:
    """True if the tokenizer that this package ships fits the model."""
    return config.architecture == "phi3" and config.vocab_size == Config.phi4_mini().vocab_size


def needs_no_tokenizer_json(folder: Path) -> bool:
    """True if a folder is complete without tokenizer.json: the tokenizer that this package ships fits, and
    tokenizer_config.json is there. Phi-4-mini-reasoning has the same vocabulary as Phi-4-mini-instruct but another chat
    template, which only that file tells.
    """
    if not (folder / "tokenizer_config.json").exists():
        return False
    try:
        return _has_shipped_vocabulary(Config.from_json(read_json(folder, "config.json"), {}))
    except BadCheckpoint:
        return False
