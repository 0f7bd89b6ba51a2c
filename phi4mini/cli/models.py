"""pull, convert, ls, show, rm: manage the models on this machine. They call `phi4mini.weights` and print results."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phi4mini.cli.common import ProgressLine, put, put_json, put_table, say, size
from phi4mini.cli.options import (
    DEFAULT_MODEL,
    chat_format_option,
    command,
    json_option,
    model_option,
    offline_option,
    quant_option,
    yes_option,
)

if TYPE_CHECKING:
    from phi4mini.weights.library import ModelFile
    from phi4mini.weights.store.store import OpenModel


@command()
@click.argument("name", default=DEFAULT_MODEL)
@quant_option
@offline_option
@click.option("--refresh", is_flag=True, help="Ask the hub for a newer revision.")
@json_option
def pull(name: str, quant: str | None, offline: bool, refresh: bool, as_json: bool) -> None:
    """Download a model, resuming an earlier download, and convert it. NAME: hub id or demo."""
    from phi4mini.weights.load import ensure_store
    from phi4mini.weights.resolve import resolve

    if refresh and (kind := resolve(name).kind) != "hub":
        say(f"--refresh has no effect: {name} is not on the hub ({kind})")
    with ProgressLine() as progress:
        path = ensure_store(name, quant, offline, progress, refresh)
    _put_path(path, as_json)


@command()
@model_option
@quant_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write.  [MODEL-QUANT.phi4 here]")
@chat_format_option
@offline_option
@json_option
def convert(
    model: str, quant: str | None, output: Path | None, chat_format: str | None, offline: bool, as_json: bool
) -> None:
    """Write a model as one packed file: weights, config, tokenizer and chat format."""
    from phi4mini.weights.load import convert_to

    with ProgressLine() as progress:
        path = convert_to(model, quant, output, offline, progress, chat_format)
    _put_path(path, as_json)


def _put_path(path: Path, as_json: bool) -> None:
    nbytes = path.stat().st_size
    if as_json:
        put_json({"path": str(path), "bytes": nbytes})
    else:
        put(f"{path}\n")
        say(f"{size(nbytes)}")


@command(name="ls")
@json_option
def ls(as_json: bool) -> None:
    """List the models that are ready to run, with their size on disk."""
    from phi4mini.weights.library import list_models

    models = list_models()
    if as_json:
        put_json([_as_json(model) for model in models])
        return
    if not models:
        say("no models yet; `phi4mini pull demo` fetches a small one")
        return
    rows = [["NAME", "QUANT", "SIZE", "MODIFIED", "FILE"]]
    rows += [[m.name, _recipe(m), size(m.nbytes), _date(m.modified), m.path.name] for m in models]
    put_table(rows, right=[2])
    say(f"{size(sum(m.nbytes for m in models))} in {models[0].path.parent.parent}")


def _as_json(model: ModelFile) -> dict[str, Any]:
    return {
        "name": model.name,
        "quant": model.recipe,
        "bytes": model.nbytes,
        "architecture": model.architecture,
        "modified": model.modified,
        "path": str(model.path),
        "broken": model.broken,
    }


def _recipe(model: ModelFile) -> str:
    return "broken" if model.broken else model.recipe or "-"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


@command()
@click.argument("name", default=DEFAULT_MODEL)
@quant_option
@click.option("--verify", is_flag=True, help="Read every byte: compare all hashes, look for NaN.")
@json_option
def show(name: str, quant: str | None, verify: bool, as_json: bool) -> None:
    """Show the config, recipe and formats of a model on this machine."""
    from phi4mini.weights.load import ensure_store
    from phi4mini.weights.store.store import open_store

    opened = open_store(ensure_store(name, quant, offline=True))
    if verify:
        with ProgressLine() as progress:
            opened.verify(lambda done, total: progress(f"verifying {opened.path.name}", done, total))
        say(f"{opened.path.name}: all hashes match, no number is NaN")
    facts = _facts(opened)
    if as_json:
        put_json(facts)
        return
    for key, value in facts.items():
        if not isinstance(value, dict):
            put(f"{key.replace('_', ' '):<24} {value}\n")
    for kind, total in facts["formats"].items():
        put(f"{'  stored as ' + kind:<24} {size(total)}\n")


def _facts(opened: OpenModel) -> dict[str, Any]:
    from phi4mini.model.arrays import row_formats

    config = opened.config
    formats: dict[str, int] = {}
    for entry in opened.entries.values():
        for form, rows in row_formats(entry.format, entry.shape[0]) if entry.shape else []:
            nbytes = entry.nbytes if len(entry.shape) == 1 else form.matrix_bytes(rows, entry.shape[1])
            formats[form.name] = formats.get(form.name, 0) + nbytes
    return {
        "name": opened.header["source"]["name"],
        "path": str(opened.path),
        "architecture": config.architecture,
        "parameters": config.num_parameters,
        "bytes": opened.nbytes,
        "quant": opened.recipe,
        "formats": formats,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "vocabulary": config.vocab_size,
        "longest_context": config.max_position_embeddings,
        "rope_boundary": config.rope_boundary,
        "kv_bytes_per_token": {kv: config.kv_bytes_per_token(kv) for kv in ("int8", "f32")},
        "chat_format": opened.chat_format,
        "stop_ids": list(config.eos_token_ids),
    }


@command()
@click.argument("name")
@yes_option
@json_option
def rm(name: str, yes: bool, as_json: bool) -> None:
    """Delete a model from the cache. NAME: a model (all files made from it), or one file."""
    from phi4mini.errors import BadInput
    from phi4mini.weights.library import find, remove

    found = find(name)
    for model in found:
        say(f"{model.path}  {size(model.nbytes)}")
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput("stdin is no terminal to ask on whether to delete; -y deletes without asking")
        click.confirm(f"Delete {len(found)} file{'s' * (len(found) > 1)}?", abort=True, err=True)
    removed = remove(name)
    if as_json:
        put_json({"removed": [str(model.path) for model in removed], "bytes": sum(m.nbytes for m in removed)})
    else:
        say(f"deleted {size(sum(m.nbytes for m in removed))}")
