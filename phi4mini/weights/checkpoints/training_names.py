"""Tensor names as training programs leave them -> the names of `tensor_names.py`.

Promises: a prefix is removed only if every tensor has it; the words that torch.compile and FSDP insert are removed
wherever they stand; two names never become one. A warning says what was renamed. An adapter that is not merged and a
classifier are refused by name. This file does not know shapes or dtypes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config_json import short

_log = logging.getLogger(__name__)

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_HEAD = "lm_head."
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_ADAPTER_WORDS = ("base_layer", "modules_to_save", "lora_magnitude_vector")
_CLASSIFIERS = ("score.", "classifier.", "qa_outputs.")
_VALUE_HEAD = "v_head."


def canonical(where: str, names: Iterable[str]) -> dict[str, str]:
    """Name as tensor_names.py spells it -> name in the file.

    Raises `BadCheckpoint` if the tensors are an adapter or a classifier, or if two names become one.
    """
    listed = list(names)
    _refuse_adapters(where, listed)
    renamed = {name: _unwrapped(name) for name in listed}
    prefix, backbone = _prefix(set(renamed.values()))
    if prefix:
        renamed = {name: new.removeprefix(prefix) for name, new in renamed.items()}
    renamed = {name: _placed(new, backbone) for name, new in renamed.items()}
    found: dict[str, str] = {}
    for name, new in renamed.items():
        if new in found:
            raise BadCheckpoint(f"{where}: {short(found[new])} and {short(name)} are both {short(new)}")
        found[new] = name
    first = next((name for name, new in renamed.items() if name != new), None)
    if first is not None:
        _log.warning("%s: tensor names are read without their wrapping: %s is %s", where, first, renamed[first])
    _refuse_classifiers(where, found)
    return found


def passed_over(where: str, names: Iterable[str]) -> set[str]:
    """Canonical names that no text depends on: rotary tables of old checkpoints, and PPO's value head with one line."""
    listed = set(names)
    values = {name for name in listed if name.startswith(_VALUE_HEAD)}
    if values:
        _log.warning("%s: %s is a value head from training, which text does not need; not used", where, min(values))
    return values | {name for name in listed if name.endswith("rotary_emb.inv_freq")}


def check_adapter(folder: Path, config: Mapping[str, Any] | None, whole: bool) -> None:
    """Adapter files in a folder: refused without a whole model beside them, said with one. `config`: adapter_config."""
    if config is None and not (folder / ADAPTER).exists():
        return
    said = {} if config is None else config
    kind = f"{str(said['peft_type'])[:20]} adapter" if said.get("peft_type") else "adapter"
    base = said.get("base_model_name_or_path")
    of = f" of {short(base)}" if base else ""
    if not whole:
        raise BadCheckpoint(
            f"{folder}: this is a {kind}{of}, not a whole model; merge it into its base "
            f"(peft: merge_and_unload, then save_pretrained) and open the result"
        )
    _log.warning("%s: the %s%s beside the full weights is not applied; they are opened as they are", folder, kind, of)


def _unwrapped(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in _WRAPPERS)


def _placed(name: str, backbone: bool) -> str:
    """The name with `model.` before what belongs to the backbone, and not before the heads."""
    bare = name.removeprefix("model.")
    if bare.startswith((_HEAD, _VALUE_HEAD)):
        return bare
    return name if backbone else f"model.{name}"


def _prefix(names: set[str]) -> tuple[str, bool]:
    """What stands before every name, and whether `model.` follows it, told from where the embedding is."""
    before = {match[1] for name in names if (match := re.fullmatch(r"((?:.*\.)?)embed_tokens\.weight\w*", name))}
    if len(before) != 1:
        return "", True
    whole = before.pop()
    backbone = whole == "model." or whole.endswith(".model.")
    prefix = whole.removesuffix("model.") if backbone else whole
    if not all(name.startswith((prefix, _VALUE_HEAD)) for name in names):
        return "", True
    return prefix, backbone


def _refuse_adapters(where: str, names: list[str]) -> None:
    for name in names:
        if any(word in _ADAPTER_WORDS or word.startswith("lora_") for word in name.split(".")):
            raise BadCheckpoint(
                f"{where}: {short(name)} belongs to an adapter that is not merged; merge it into the weights "
                f"(peft: merge_and_unload) and save again"
            )


def _refuse_classifiers(where: str, names: Iterable[str]) -> None:
    for name in names:
        if name.removeprefix("model.").startswith(_CLASSIFIERS):
            raise BadCheckpoint(f"{where}: {short(name)} is the head of a classifier; a language model is needed")
