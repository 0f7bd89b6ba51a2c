"""Our packed store: one file that holds a whole model in kernel layout, opened by mapping it.

Promises: a store that opens has the length, the header hash, and the names, shapes and formats that its config implies.
Opening reads the header only; `verify` reads every byte. The mapping is read-only. This file does not know where the
weights came from.

    bytes 0..7    magic "PHI4MINI"
    bytes 8..11   version u32: 2; 1 had chat formats guessed by control tokens alone
    bytes 12..19  length of the header u64
    bytes 20..51  sha256 of the header
    bytes 64..    header: JSON, UTF-8; then zeros up to a multiple of 4096
    then          blobs, each at a multiple of 4096: the tokenizer, then the arrays as `tensor_names.arrays` orders them

Header: config (`Config.to_json`), chat_format, chat_note (a warning to show whenever the store is opened, or ""),
recipe, source (source_identity.py), rotation (null: none), nbytes (of the file), tokenizer {offset, nbytes, sha256} and
arrays [{name, shape, format, offset, nbytes, sha256}, ...]. An array of one dimension is plain float32. An array of two
dimensions is a `Matrix`, or several matrices one after the other: the format "q4k*4096+q6k*1024" means 4096 rows of
q4k, then 1024 rows of q6k. All numbers are little-endian.

A store is replaced by renaming a new file over it, which leaves an open mapping intact. Truncating or overwriting the
file in place kills a program that has it mapped: the operating system answers the read with a bus error (SIGBUS).
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phi4mini.errors import BadCheckpoint, BadInput, NotFound
from phi4mini.formats.format_table import FORMATS, Format
from phi4mini.formats.matrix import Matrix
from phi4mini.model.arrays import LayerWeights, Stack, Weights, row_formats
from phi4mini.model.config import Config
from phi4mini.model.config_json import short
from phi4mini.weights.checkpoints import tensor_names

if TYPE_CHECKING:
    from phi4mini.tokenizer import Tokenizer

MAGIC = b"PHI4MINI"
VERSION, GUESSED = 2, 1
SUFFIX = ".phi4"
ALIGNMENT = 4096  # a page: blobs can be mapped, dropped and hashed one by one
HEADER_AT = 64
MOST_HEADER = 1 << 24  # bytes; a thousand layers take two million
PREFIX = struct.Struct("<8sIQ32s")


@dataclass(frozen=True)
class Entry:
    """One blob: the tokenizer (shape (), format "bytes"), a vector or a matrix."""

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int
    nbytes: int
    sha256: str


@dataclass
class OpenModel:
    """A mapped store: weights, config, tokenizer and chat format. Arrays are read-only views of the file."""

    path: Path
    header: dict[str, Any]
    weights: Weights
    entries: dict[str, Entry]
    view: np.ndarray  # the whole file, uint8, read-only

    @property
    def config(self) -> Config:
        return self.weights.config

    @property
    def chat_format(self) -> str:
        """Which chat format the model was trained on: a name of phi4mini.chat."""
        return str(self.header["chat_format"])

    @property
    def chat_note(self) -> str:
        """A warning about how the chat format was found, to show at every opening; "" if the format is certain."""
        return str(self.header["chat_note"])

    @property
    def recipe(self) -> str:
        return str(self.header["recipe"])

    @property
    def nbytes(self) -> int:
        return self.view.size

    @property
    def tokenizer_bytes(self) -> bytes:
        """The tokenizer's own bytes, their hash checked. Raises `BadCheckpoint` if they were changed."""
        entry = self.entries["tokenizer"]
        blob = self.view[entry.offset : entry.offset + entry.nbytes].tobytes()
        if hashlib.sha256(blob).hexdigest() != entry.sha256:
            raise BadCheckpoint(f"{self.path}: the tokenizer's bytes do not have the hash the header states")
        return blob

    @property
    def fingerprint(self) -> str:
        """The sha256 of the header as hex. The header holds the hash of every matrix, so equal means equal weights."""
        return bytes(self.view[20:52]).hex()

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, built when first asked for."""
        from phi4mini.tokenizer import from_bytes

        return from_bytes(self.tokenizer_bytes)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read everything: every hash, and that no weight or scale is NaN or infinite. Raises `BadCheckpoint`."""
        done = 0
        for entry in self.entries.values():
            blob = self.view[entry.offset : entry.offset + entry.nbytes]
            if hashlib.sha256(blob.data).hexdigest() != entry.sha256:
                raise BadCheckpoint(f"{self.path}: {entry.name} does not have the hash stated for it: it was changed")
            if entry.shape and not _all_finite(entry, self.view):
                raise BadCheckpoint(f"{self.path}: {entry.name} holds NaN or infinity")
            done += entry.nbytes
            if progress:
                progress(done, self.nbytes)


def open_store(path: str | Path, verify: bool = False) -> OpenModel:
    """Map a store. `verify` reads every byte as well. Raises `NotFound` or `BadCheckpoint`, never touches the file."""
    path = Path(path)
    view = _map(path)
    header = _read_header(path, view)
    try:
        config = Config.from_store_json(header["config"])
        entries = _read_entries(header, config, view.size)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadCheckpoint(f"{path}: its header is not one of a store: {short(error)}") from error
    model = OpenModel(path, header, _weights(config, entries, view), entries, view)
    if verify:
        model.verify()
    return model


def read_header(path: str | Path) -> dict[str, Any]:
    """The header without the arrays, its length and hash checked. Enough to list stores."""
    path = Path(path)
    return _read_header(path, _map(path))


def align(offset: int) -> int:
    """The next multiple of 4096."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def array_bytes(shape: tuple[int, ...], format: str) -> int:
    """Bytes of one array in the store. Raises `BadInput` for an unknown format."""
    if len(shape) == 1:
        return 4 * shape[0]
    return sum(form.matrix_bytes(rows, shape[1]) for form, rows in row_formats(format, shape[0]))


def _map(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size < HEADER_AT:
                raise BadCheckpoint(f"{path}: truncated: {size} bytes, a store begins with {HEADER_AT}")
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from error


def _read_header(path: Path, view: np.ndarray) -> dict[str, Any]:
    magic, version, length, digest = PREFIX.unpack(view[: PREFIX.size].tobytes())
    if magic != MAGIC:
        raise BadCheckpoint(f"{path}: not a store of phi4mini: it does not begin with {MAGIC.decode()}")
    if version not in (GUESSED, VERSION):
        raise BadCheckpoint(f"{path}: store version {version} is not known here; up to {VERSION} is. Convert it again")
    if length > MOST_HEADER:
        raise BadCheckpoint(f"{path}: a header of {length} bytes is more than the limit {MOST_HEADER}")
    if HEADER_AT + length > view.size:
        raise BadCheckpoint(
            f"{path}: truncated: its header ends at {HEADER_AT + length}, the file has {view.size} bytes"
        )
    text = view[HEADER_AT : HEADER_AT + length].tobytes()
    if hashlib.sha256(text).digest() != digest:
        raise BadCheckpoint(f"{path}: the header does not have the hash stated before it: it was changed")
    try:
        header = json.loads(text)
        size = header["nbytes"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: its header is not one of a store: {short(error)}") from error
    if size != view.size:
        what = "truncated" if isinstance(size, int) and size > view.size else "wrong length"
        raise BadCheckpoint(f"{path}: {what}: {short(size)} bytes expected, the file has {view.size}")
    if header.get("rotation") is not None:
        raise BadCheckpoint(f"{path}: its weights are rotated, which this version does not know")
    return _of_version_1(header) if version == GUESSED else dict(header)


def _of_version_1(header: dict[str, Any]) -> dict[str, Any]:
    """A version 1 header in today's terms. Version 1 did not record whether the chat format was certain, and its
    "chatml" meant ChatML with SmolLM's default system turn.
    """
    name = str(header.get("chat_format"))
    name = "smollm" if name == "chatml" else name
    note = f"was packed by an earlier version, which may have guessed its chat format, {name}; convert it anew"
    return {**header, "chat_format": name, "chat_note": note}


def _read_entries(header: dict[str, Any], config: Config, size: int) -> dict[str, Entry]:
    """The blobs in order; each has the size that its shape implies, lies inside the file and overlaps no other."""
    expected = tensor_names.arrays(config)
    listed = header["arrays"]
    if [item["name"] for item in listed] != list(expected):
        raise BadCheckpoint(f"its {len(listed)} arrays are not the {len(expected)} its config asks for")
    blob = header["tokenizer"]
    entries = [Entry("tokenizer", (), "bytes", blob["offset"], blob["nbytes"], blob["sha256"])]
    for item in listed:
        shape, form = expected[item["name"]], item["format"]
        if tuple(item["shape"]) != shape or not _is_format(form, shape):
            raise BadCheckpoint(
                f"{item['name']}: shape {short(item['shape'])} and format {short(form)} do not fit the config"
            )
        entries.append(Entry(item["name"], shape, form, item["offset"], item["nbytes"], item["sha256"]))
    free = HEADER_AT
    for entry in entries:
        needed = array_bytes(entry.shape, entry.format) if entry.shape else entry.nbytes
        whole = type(entry.offset) is int and type(entry.nbytes) is int
        if (
            not whole
            or entry.nbytes != needed
            or entry.offset % ALIGNMENT
            or not free <= entry.offset <= size - entry.nbytes
        ):
            raise BadCheckpoint(f"{entry.name}: {short(entry.nbytes)} bytes at {short(entry.offset)} do not fit")
        free = entry.offset + entry.nbytes
    return {entry.name: entry for entry in entries}


def _is_format(name: Any, shape: tuple[int, ...]) -> bool:
    if len(shape) == 1 or not isinstance(name, str):
        return bool(name == "f32")
    try:
        return bool(row_formats(name, shape[0]))
    except BadInput:
        return False


def _matrices(entry: Entry, view: np.ndarray) -> list[Matrix]:
    """The matrix, or its parts, of an entry of two dimensions."""
    at, found = entry.offset, []
    for form, rows in row_formats(entry.format, entry.shape[0]):
        nbytes = form.matrix_bytes(rows, entry.shape[1])
        found.append(Matrix(form, rows, entry.shape[1], view[at : at + nbytes]))
        at += nbytes
    return found


def _weights(config: Config, entries: dict[str, Entry], view: np.ndarray) -> Weights:
    def array(name: str) -> Any:
        entry = entries[name]
        if len(entry.shape) == 1:
            return view[entry.offset : entry.offset + entry.nbytes].view(np.float32)
        parts = _matrices(entry, view)
        return parts[0] if len(parts) == 1 else Stack(parts)

    layers = [
        LayerWeights(**{field: array(f"layers.{n}.{field}") for field in tensor_names.LAYER_ARRAYS})
        for n in range(config.num_layers)
    ]
    embed = array("embed")
    return Weights(config, embed, layers, array("norm"), embed if config.tie_word_embeddings else array("head"))


def _all_finite(entry: Entry, view: np.ndarray) -> bool:
    """True if an array holds neither NaN nor infinity."""
    if len(entry.shape) == 1:
        return _finite(view[entry.offset : entry.offset + entry.nbytes], FORMATS["f32"])
    return all(_finite(part.data, part.format) for part in _matrices(entry, view))


def _finite(blob: np.ndarray, form: Format) -> bool:
    """True if every value is finite; a value of a block format is finite if its half-float scales are."""
    if form.name == "f32":
        pieces = np.array_split(blob.view(np.float32), blob.size // 2**22 + 1)  # isfinite allocates a byte a value
        return all(bool(np.isfinite(piece).all()) for piece in pieces)
    if not form.block:
        return not bool(((blob.view(np.uint16) & 0x7F80) == 0x7F80).any())
    supers = blob.reshape(-1, form.superblock_bytes)
    return bool(np.isfinite(np.ascontiguousarray(supers[:, : form.half_bytes]).view(np.float16)).all())
