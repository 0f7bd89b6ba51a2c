"""estimate: the memory that a model will take, computed from its config."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from phi4mini.cli.common import put, put_json, size
from phi4mini.cli.options import command, json_option, kv_option, model_option, quant_option
from phi4mini.errors import BadInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from phi4mini.model.config import Config
    from phi4mini.weights.resolve import Source

_USUAL_CTX = 4096


@command()
@model_option
@quant_option
@kv_option
@click.option("-c", "--ctx-size", type=click.IntRange(min=1), help="Tokens of context.  [4096, or the model's longest]")
@json_option
def estimate(model: str, quant: str | None, kv: Any, ctx_size: int | None, as_json: bool) -> None:
    """Memory for weights, KV cache and compute buffers, and the largest context that fits. Nothing is loaded."""
    from phi4mini.kernels.cpu import cpu
    from phi4mini.llm.estimate import estimate as estimated

    config, weights, recipe = _config_and_weights(model, quant)
    ctx = ctx_size or min(_USUAL_CTX, config.max_position_embeddings)
    if ctx > config.max_position_embeddings:
        raise BadInput(f"a context of {ctx} tokens is more than the model's longest, {config.max_position_embeddings}")
    found = estimated(config, weights, kv, ctx, cpu().memory_available)
    if as_json:
        more = {"total": found.total, "fits": found.fits}
        put_json({"model": model, "quant": recipe, "kv_format": kv, **asdict(found), **more})
        return
    put(f"weights   {size(found.weights):>8}  {config.num_parameters / 1e9:.2f} billion parameters, {recipe}\n")
    put(f"KV cache  {size(found.kv):>8}  {ctx} tokens x {size(found.kv_per_token)}, {kv}\n")
    put(f"compute   {size(found.compute):>8}  at most\n")
    verdict = "fits in" if found.fits else "DOES NOT FIT in"
    put(f"total     {size(found.total):>8}  {verdict} {size(found.available)} available\n")
    why = ", the model's longest" if found.largest_ctx == found.longest else ""
    put(f"largest context that fits: {found.largest_ctx} tokens{why}\n")


def _config_and_weights(name: str, quant: str | None) -> tuple[Config, int, str]:
    """The config, the bytes of the weights and the recipe. Bytes are exact for a store or a GGUF; for other checkpoints
    they follow from the recipe.
    """
    from phi4mini.llm.estimate import recipe_formats, weight_bytes
    from phi4mini.weights.load import USUAL, check_recipe, open_checkpoint
    from phi4mini.weights.resolve import resolve
    from phi4mini.weights.store.convert import contents_of
    from phi4mini.weights.store.store import open_store

    source = resolve(name)
    if source.kind == "store" and source.path is not None:
        check_recipe(source.path, quant)
        opened = open_store(source.path)
        return opened.config, sum(entry.nbytes for entry in opened.entries.values() if entry.shape), opened.recipe
    quant = quant or USUAL
    origin = _origin(source)
    if origin is not None and origin.is_file():
        checkpoint = open_checkpoint(source, origin)
        return checkpoint.config, weight_bytes(checkpoint.config, contents_of(checkpoint, quant, {}).formats), quant
    config = _config(source, origin)
    return config, weight_bytes(config, recipe_formats(config, quant)), quant


def _origin(source: Source) -> Path | None:
    """The file or folder of a model on this machine; None for a model whose config is built in."""
    from phi4mini.weights.sources.demo import demo_gguf
    from phi4mini.weights.sources.hub_gguf import fetch

    if source.kind == "demo":
        return demo_gguf(offline=True)
    if source.kind != "hub" or source.is_default:
        return source.path
    try:
        return fetch(source.repo, source.variant, offline=True)
    except NotFound as error:
        told = f"{source.name} is not on this machine; a folder with its config.json is enough: -m FOLDER"
        raise NotFound(told) from error


def _config(source: Source, folder: Path | None) -> Config:
    """The config of config.json; Phi-4-mini's is built in."""
    from dataclasses import replace

    from phi4mini.model.config import Config
    from phi4mini.weights.checkpoints.folder import read_json

    if source.kind == "synthetic":
        return replace(Config.phi4_mini(), num_layers=source.layers)
    if folder is None:
        return Config.phi4_mini()
    return Config.from_json(read_json(folder, "config.json"), read_json(folder, "generation_config.json", {}))
