"""The GGUF container: equal to the `gguf` package's reading of the same file; hostile files refused."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.gguf import TYPES, GgufFile
from tests.weights.twins import config_json, write_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def made(keys: bytes = b"", count: int = 0, tensors: bytes = b"", tensor_count: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensor_count, count) + keys + tensors


def tensor(name: str = "a", shape: tuple = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    metadata = {"a.list": [1, 2, 3], "a.floats": [0.5, 1.5], "a.flag": True, "a.float": 0.25, "a.text": "żółw"}
    write_gguf(path, Config.from_json(config_json("Llama")), {"attn_q": "Q8_0", "ffn_up": "Q4_0"}, metadata)
    return path


def test_metadata_and_tensors_equal_the_gguf_package(sound):
    ours, theirs = GgufFile(sound), gguf.GGUFReader(sound)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata.keys() == fields.keys()
    for name, value in fields.items():
        assert ours.metadata[name] == value, name
    assert ours.tensors.keys() == {t.name for t in theirs.tensors}
    for t in theirs.tensors:
        mine = ours.tensors[t.name]
        assert (mine.type, mine.shape) == (t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)))
        raw = ours.raw(mine, 0, mine.nbytes // mine.row_bytes)
        assert raw.tobytes() == t.data.tobytes()


def test_the_demo_equals_the_gguf_package(demo_gguf):
    ours, theirs = GgufFile(demo_gguf), gguf.GGUFReader(demo_gguf)
    assert ours.metadata["tokenizer.ggml.tokens"] == theirs.fields["tokenizer.ggml.tokens"].contents()
    assert {(t.name, int(t.data_offset)) for t in theirs.tensors} == {(t.name, t.offset) for t in ours.tensors.values()}


KEY = text("k")
HOSTILE = {
    "empty": b"",
    "magic": b"GGML" + bytes(40),
    "version 1": made(version=1) + bytes(32),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(32),
    "too many keys": made(count=1 << 60) + bytes(32),
    "too many tensors": made(tensor_count=1 << 60) + bytes(32),
    "endless name": made(struct.pack("<Q", 1 << 62), 1) + bytes(32),
    "endless string": made(KEY + struct.pack("<IQ", 8, 1 << 62), 1) + bytes(32),
    "endless array": made(KEY + struct.pack("<IIQ", 9, 4, 1 << 62), 1) + bytes(32),
    "endless array of strings": made(KEY + struct.pack("<IIQ", 9, 8, 1 << 62), 1) + bytes(32),
    "array of arrays": made(KEY + struct.pack("<IIQ", 9, 9, 1), 1) + bytes(32),
    "unknown type": made(KEY + struct.pack("<I", 99), 1) + bytes(32),
    "not UTF-8": made(struct.pack("<Q", 1) + b"\xff" + struct.pack("<IB", 0, 1), 1) + bytes(32),
    "key twice": made((KEY + struct.pack("<IB", 0, 1)) * 2, 2) + bytes(32),
    "no dimensions": made(tensors=tensor(shape=()), tensor_count=1) + bytes(256),
    "nine dimensions": made(tensors=tensor(shape=(1,) * 9), tensor_count=1) + bytes(256),
    "zero rows": made(tensors=tensor(shape=(32, 0)), tensor_count=1) + bytes(256),
    "overflow": made(tensors=tensor(shape=(1 << 62, 1 << 62)), tensor_count=1) + bytes(256),
    "type not supported": made(tensors=tensor(kind=39, shape=(256,)), tensor_count=1) + bytes(512),
    "half a block": made(tensors=tensor(kind=8, shape=(33,)), tensor_count=1) + bytes(256),
    "offset beyond": made(tensors=tensor(offset=1 << 40), tensor_count=1) + bytes(256),
    "offset crooked": made(tensors=tensor(offset=4), tensor_count=1) + bytes(256),
    "overlap": made(tensors=tensor() + tensor("b", offset=64), tensor_count=2) + bytes(512),
    "tensor twice": made(tensors=tensor() + tensor(offset=128), tensor_count=2) + bytes(512),
    "alignment": made(text("general.alignment") + struct.pack("<II", 4, 3), 1) + bytes(64),
    "alignment zero": made(text("general.alignment") + struct.pack("<II", 4, 0), 1) + bytes(64),
    "data cut": made(tensors=tensor(shape=(32, 32)), tensor_count=1) + bytes(256),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_A3_a_hostile_file_is_refused_at_once(tmp_path, name):
    path = tmp_path / "bad.gguf"
    path.write_bytes(HOSTILE[name])
    began = time.perf_counter()
    with pytest.raises(BadCheckpoint, match=r"bad\.gguf") as caught:
        GgufFile(path)
    assert time.perf_counter() - began < 0.5
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_A1_a_file_cut_anywhere_is_refused(tmp_path, sound):
    whole, path = sound.read_bytes(), tmp_path / "cut.gguf"
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        with pytest.raises(BadCheckpoint, match=r"cut\.gguf"):
            GgufFile(path)
    path.write_bytes(whole[: len(whole) - 8000])
    with pytest.raises(BadCheckpoint, match=f"truncated: its tensors end at byte .*, the file has {len(whole) - 8000}"):
        GgufFile(path)


NOT_CARRIED = sorted(
    (
        kind
        for kind in gguf.GGMLQuantizationType
        if kind.value not in TYPES and kind.name.startswith(("IQ", "TQ", "MX", "NV"))
    ),
    key=lambda kind: kind.value,
)


@pytest.mark.parametrize("kind", NOT_CARRIED, ids=lambda kind: kind.name)
def test_GG7_a_type_we_cannot_carry_is_named(tmp_path, kind):
    path = tmp_path / "m.gguf"
    path.write_bytes(made(tensors=tensor(kind=kind.value, shape=(256,)), tensor_count=1) + bytes(512))
    with pytest.raises(BadCheckpoint, match=rf"m\.gguf: tensor 'a' is of type {kind.name}, not one of .*Q4_K"):
        GgufFile(path)


def test_GG7_the_types_have_the_sizes_of_the_gguf_package():
    assert len(NOT_CARRIED) >= 10
    for number, (name, weights, nbytes) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (weights, nbytes))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"none\.gguf"):
        GgufFile(tmp_path / "none.gguf")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_to_the_header_is_refused_or_harmless(sound, tmp_path_factory, data):
    whole = bytearray(sound.read_bytes())
    header = min(t.offset for t in GgufFile(sound).tensors.values())
    for at in data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=3)):
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(whole)
    try:
        file = GgufFile(path)
    except BadCheckpoint:
        return
    for t in file.tensors.values():
        assert np.asarray(file.raw(t, 0, t.nbytes // t.row_bytes)).nbytes == t.nbytes
