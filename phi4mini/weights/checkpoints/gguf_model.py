"""A model in a GGUF file (architectures phi3 and llama) -> `Checkpoint`.

Promises: metadata pass the same checks as a config.json; quantised blocks are copied unchanged; the rows of q and k
that llama's conversion interleaved are put back in order. Metadata that would change the computation in a way not
supported here are refused by name (gguf_config.py). Sources: llama.cpp's convert_hf_to_gguf.py and gguf-py's constants.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from phi4mini.errors import BadCheckpoint
from phi4mini.formats.gguf_blocks import EXACT, bits_more, decode
from phi4mini.formats.matrix import Blocks, Matrix, pack_blocks
from phi4mini.model.config import Config
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints.checkpoint import Checkpoint, assemble, finish
from phi4mini.weights.checkpoints.gguf import Tensor
from phi4mini.weights.checkpoints.gguf_config import FACTORS, Gguf, gguf_config
from phi4mini.weights.checkpoints.gguf_split import open_parts
from phi4mini.weights.checkpoints.row_reader import Rows
from phi4mini.weights.checkpoints.safetensors import to_f32

_BITS_WORTH_A_LINE = 3.5  # warn if a type takes this many bits a weight more in a store than in its file; Q5_K: 3.1
_log = logging.getLogger(__name__)


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF model, whole or by any of its parts. Reads metadata and rope factors, no weights.

    Raises `NotFound` or `BadCheckpoint`.
    """
    file = open_parts(path)
    try:
        config = gguf_config(file, str(path))
        tokenizer = _tokenizer(file, config)
    except BadCheckpoint as error:
        message = str(error)
        raise BadCheckpoint(message if message.startswith(str(path)) else f"{path}: {message}") from error
    config, chat_format = finish(config, tokenizer, file.metadata.get("tokenizer.chat_template"), str(path))

    def part(ours: str, index: int, name: str) -> Rows:
        rows = GgufRows(file, file.tensors[name])
        if config.architecture != "llama" or not ours.endswith(".qkv") or index == 2:
            return rows
        return Reordered(rows, _interleaved((config.num_heads, config.num_kv_heads)[index], rows.rows))

    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    ignored = FACTORS.values() if config.short_factor else ()
    _say_growth(file, str(path))
    arrays = assemble(str(path), config, "gguf", shapes, part, ignored)
    return Checkpoint(str(path), config, tokenizer, chat_format, arrays)


def _say_growth(file: Gguf, where: str) -> None:
    """Warn if a store will be much larger than the file: our format for some GGUF types takes more bits a weight."""
    wide = [tensor for tensor in file.tensors.values() if bits_more(tensor.type) >= _BITS_WORTH_A_LINE]
    if not wide:
        return
    kinds = sorted({tensor.type for tensor in wide})
    extra = sum(math.prod(tensor.shape) * bits_more(tensor.type) / 8 for tensor in wide)
    _log.warning(
        "%s: %s: stored exactly, but in wider formats that take %.3g GB more than the file's blocks",
        where,
        ", ".join(f"{kind} as {EXACT[kind].name}" for kind in kinds),
        extra / 1e9,
    )


class GgufRows:
    """A matrix (a vector is one row) of any type in a GGUF file."""

    def __init__(self, file: Gguf, tensor: Tensor) -> None:
        self.file, self.tensor = file, tensor
        self.rows, self.cols = tensor.nbytes // tensor.row_bytes, tensor.shape[-1]
        self.format = EXACT.get(tensor.type)

    def values(self, start: int, stop: int) -> np.ndarray:
        if self.format is None:
            raw = self.file.raw(self.tensor, start, stop)
            return to_f32(raw.reshape(-1), self.tensor.type).reshape(stop - start, self.cols)
        packed = pack_blocks(self.blocks(start, stop), self.format)
        return Matrix(self.format, stop - start, self.cols, packed).dequantize()

    def blocks(self, start: int, stop: int) -> Blocks:
        return decode(self.tensor.type, self.file.raw(self.tensor, start, stop))


class Reordered:
    """Rows in another order: row i is row order[i] of `inner`. To read a range, the rows from its first to its last
    source row are read.
    """

    def __init__(self, inner: GgufRows, order: np.ndarray) -> None:
        self.inner, self.order = inner, order
        self.rows, self.cols, self.format = inner.rows, inner.cols, inner.format

    def values(self, start: int, stop: int) -> np.ndarray:
        low, high, picked = self._span(start, stop)
        return self.inner.values(low, high)[picked]

    def blocks(self, start: int, stop: int) -> Blocks:
        low, high, picked = self._span(start, stop)
        wide = self.inner.blocks(low, high)
        rest = [None if part is None else part[picked] for part in (wide.minimum, wide.d, wide.dmin)]
        return Blocks(wide.q[picked], wide.scale[picked], *rest)

    def _span(self, start: int, stop: int) -> tuple[int, int, np.ndarray]:
        wanted = self.order[start:stop]
        low = int(wanted.min())
        return low, int(wanted.max()) + 1, wanted - low


def _interleaved(heads: int, rows: int) -> np.ndarray:
    """Where llama's conversion put each row of q or k: row j of half h of a head is its row 2 j + h in the file."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _tokenizer(file: Gguf, config: Config) -> Any:
    from phi4mini.tokenizer import from_bpe

    prefix = "tokenizer.ggml."
    meta = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    if meta.get("model") != "gpt2":
        raise BadCheckpoint(
            f"its tokenizer is of kind {short(meta.get('model'))}, only gpt2 (byte-level BPE) can be read from a GGUF; "
            f"use the safetensors checkpoint"
        )
    lists = [meta.get(key) for key in ("tokens", "merges")]
    for key, value in zip(("tokens", "merges"), lists, strict=True):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadCheckpoint(f"tokenizer.ggml.{key} is not a list of strings")
    if len(meta["tokens"]) > config.vocab_size:
        raise BadCheckpoint(f"the tokenizer has {len(meta['tokens'])} tokens, the model {config.vocab_size} rows")
    types = meta.get("token_type")
    return from_bpe(
        meta["tokens"],
        meta["merges"],
        types if isinstance(types, list) and all(type(kind) is int for kind in types) else None,
        pre=None if meta.get("pre") is None else str(meta["pre"]),
        bos_id=config.bos_token_id,
        eos_ids=config.eos_token_ids,
        pad_id=config.pad_token_id,
        rows=config.vocab_size,
    )
