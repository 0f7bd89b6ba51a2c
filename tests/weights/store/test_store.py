"""The store: what is written comes back, and no damage of any kind goes unseen or crashes the reader."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.checkpoints.folder import open_folder
from phi4mini.weights.checkpoints.gguf_model import open_gguf
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.recipes import RECIPES
from phi4mini.weights.store.store import ALIGNMENT, HEADER_AT, PREFIX, open_store, read_header
from tests.weights.twins import config_json, small_folder, write_gguf


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    convert(open_folder(small_folder(folder / "twin")), "q8", folder / "m.phi4", {"name": "twin", "identity": "abc"})
    return folder / "m.phi4"


def rewritten(sound: Path, path: Path, change) -> Path:
    """The store with another header, its length and hash made right again."""
    raw = sound.read_bytes()
    magic, version, length, _ = PREFIX.unpack(raw[: PREFIX.size])
    header = json.loads(raw[HEADER_AT : HEADER_AT + length])
    header = change(header) or header
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    front = PREFIX.pack(magic, version, len(text), hashlib.sha256(text).digest()).ljust(HEADER_AT, b"\0") + text
    path.write_bytes(front + raw[len(front) :])
    return path


@pytest.mark.parametrize("quant", RECIPES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_recipe_gives_the_weights_back(tmp_path, quant, tied):
    checkpoint = open_folder(small_folder(tmp_path / "twin", "Llama", tie_word_embeddings=tied))
    convert(checkpoint, quant, tmp_path / "m.phi4", {"name": "twin", "identity": "abc"})
    opened = open_store(tmp_path / "m.phi4", verify=True)
    assert opened.config == checkpoint.config and opened.recipe == quant
    assert opened.nbytes == (tmp_path / "m.phi4").stat().st_size
    bits = {"f32": 24, "bf16": 8, "q8": 7, "q4": 2.5, "q4m": 3.5, "q4-head8": 2.5}[quant]
    for n, layer in enumerate(opened.weights.layers):
        for field in tensor_names.LAYER_ARRAYS:
            rows = checkpoint.arrays[f"layers.{n}.{field}"]
            exact = rows.values(0, rows.rows)
            stored = getattr(layer, field)
            if field.endswith("norm"):
                np.testing.assert_array_equal(stored, exact[0])
            else:
                assert np.abs(stored.dequantize() - exact).max() <= np.abs(exact).max() / 2**bits
    assert (opened.weights.head is opened.weights.embed) == tied
    assert opened.weights.head.format.name == {"q4-head8": "q8"}.get(quant, quant)


def test_blobs_are_aligned_read_only_and_in_order(sound):
    opened = open_store(sound)
    assert list(opened.entries) == ["tokenizer", *tensor_names.arrays(opened.config)]
    assert all(entry.offset % ALIGNMENT == 0 for entry in opened.entries.values())
    assert opened.weights.layers[0].qkv.data.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        opened.weights.layers[0].qkv.data[0] = 1


def test_the_header_says_where_it_came_from(sound):
    header = read_header(sound)
    assert header["source"] == {"name": "twin", "identity": "abc"}
    assert header["rotation"] is None and header["recipe"] == "q8" and header["nbytes"] == sound.stat().st_size


def test_the_tokenizer_comes_along(sound):
    opened = open_store(sound)
    text = "a tokenizer of its own"
    assert opened.tokenizer.decode(opened.tokenizer.encode(text)) == text
    assert opened.tokenizer is opened.tokenizer


def test_A1_a_store_cut_anywhere_is_refused_with_both_sizes(sound, tmp_path):
    whole, path = sound.read_bytes(), tmp_path / "cut.phi4"
    for size in [*range(0, len(whole), len(whole) // 20), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(BadCheckpoint, match=rf"cut\.phi4: truncated: .*{size}"):
            open_store(path)


def test_bytes_too_many_are_refused(sound, tmp_path):
    path = tmp_path / "long.phi4"
    path.write_bytes(sound.read_bytes() + b"x")
    with pytest.raises(BadCheckpoint, match="wrong length"):
        open_store(path)


@pytest.mark.parametrize("name", ["layers.1.down", "norm", "embed", "tokenizer"])
def test_A2_one_flipped_bit_is_found_by_verify(sound, tmp_path, name):
    entry = open_store(sound).entries[name]
    raw = bytearray(sound.read_bytes())
    raw[entry.offset + entry.nbytes // 2] ^= 1
    path = tmp_path / "flipped.phi4"
    path.write_bytes(raw)
    open_store(path)
    with pytest.raises(BadCheckpoint, match=rf"flipped\.phi4: {name} does not have the hash"):
        open_store(path, verify=True)


@pytest.mark.parametrize(("name", "form"), [("layers.1.down", "q8"), ("norm", "f32"), ("embed", "q8")])
def test_nan_under_a_right_hash_is_found_by_verify(sound, tmp_path, name, form):
    raw = bytearray(sound.read_bytes())
    entry = open_store(sound).entries[name]
    nan = np.float16(np.nan).tobytes() if form == "q8" else np.float32(np.nan).tobytes()
    raw[entry.offset : entry.offset + len(nan)] = nan
    (tmp_path / "raw").write_bytes(raw)

    def rehash(header):
        for item in header["arrays"]:
            if item["name"] == name:
                blob = raw[entry.offset : entry.offset + entry.nbytes]
                item["sha256"] = hashlib.sha256(blob).hexdigest()

    path = rewritten(tmp_path / "raw", tmp_path / "nan.phi4", rehash)
    with pytest.raises(BadCheckpoint, match=rf"nan\.phi4: {name} holds NaN"):
        open_store(path, verify=True)


def test_nan_in_every_format_is_found(tmp_path):
    from phi4mini.formats.format_table import FORMATS
    from phi4mini.weights.store.store import _finite

    for form in FORMATS.values():
        blob = np.zeros(form.matrix_bytes(32, 512), np.uint8)
        assert _finite(blob, form), form.name
        at = blob.size // 2  # the second strip begins here, with its first header or value
        blob[at : at + 4] = np.frombuffer(b"\xff\xff\xff\xff", np.uint8)
        assert not _finite(blob, form), form.name


def arrays(change):
    return lambda header: change(header["arrays"])


LIES = {
    "no config": lambda h: h.pop("config") and None,
    "config is a list": lambda h: h.update(config=[]),
    "layers 1e9": lambda h: h["config"].update(num_layers=10**9),
    "negative heads": lambda h: h["config"].update(num_heads=-4),
    "vocabulary": lambda h: h["config"].update(vocab_size=319),
    "no arrays": lambda h: h.update(arrays=[]),
    "arrays null": lambda h: h.update(arrays=None),
    "array missing": arrays(lambda a: a.pop() and None),
    "array twice": arrays(lambda a: a.append(a[-1])),
    "swapped": arrays(lambda a: a.reverse()),
    "renamed": arrays(lambda a: a[1].update(name="layers.0.qkw")),
    "shape": arrays(lambda a: a[2].update(shape=[64, 64])),
    "unknown format": arrays(lambda a: a[2].update(format="q2")),
    "format not text": arrays(lambda a: a[2].update(format=["q8"])),
    "other format": arrays(lambda a: a[2].update(format="q4")),
    "vector as matrix": arrays(lambda a: a[1].update(format="q8")),
    "offset beyond": arrays(lambda a: a[-1].update(offset=1 << 40)),
    "offset negative": arrays(lambda a: a[3].update(offset=-4096)),
    "offset crooked": arrays(lambda a: a[3].update(offset=a[3]["offset"] + 1)),
    "offset fractional": arrays(lambda a: a[3].update(offset=float(a[3]["offset"]))),
    "overlap": arrays(lambda a: a[4].update(offset=a[3]["offset"])),
    "inside the header": arrays(lambda a: a[0].update(offset=0)),
    "size": arrays(lambda a: a[3].update(nbytes=1)),
    "size text": arrays(lambda a: a[3].update(nbytes="many")),
    "no tokenizer": lambda h: h.pop("tokenizer") and None,
    "tokenizer beyond": lambda h: h["tokenizer"].update(nbytes=1 << 40),
    "rotated": lambda h: h.update(rotation={"kind": "hadamard"}),
    "header is a list": lambda h: [1],
    "header is a number": lambda h: 5,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_with_a_right_hash_is_refused(sound, tmp_path, lie):
    path = rewritten(sound, tmp_path / "bad.phi4", LIES[lie])
    with pytest.raises(BadCheckpoint, match=r"bad\.phi4") as caught:
        open_store(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert "length" not in str(caught.value) and "truncated" not in str(caught.value), "refused for another reason"


def test_another_version_says_what_to_do(sound, tmp_path):
    raw = bytearray(sound.read_bytes())
    raw[8] = 3
    path = tmp_path / "new.phi4"
    path.write_bytes(raw)
    with pytest.raises(BadCheckpoint, match="store version 3 is not known here; up to 2 is"):
        open_store(path)


@pytest.mark.parametrize(("kept", "read"), [("chatml", "smollm"), ("phi", "phi"), ("none", "none")])
def test_a_store_of_version_1_opens_and_says_that_its_chat_format_may_be_guessed(sound, tmp_path, kept, read):
    """It kept no note, and "chatml" was the name of what is called smollm now."""

    def change(header):
        del header["chat_note"]
        header["chat_format"] = kept

    path = rewritten(sound, tmp_path / "old.phi4", change)
    raw = bytearray(path.read_bytes())
    raw[8] = 1
    path.write_bytes(raw)
    opened = open_store(path)
    assert opened.chat_format == read and "may have guessed" in opened.chat_note
    assert opened.fingerprint == hashlib.sha256(bytes(raw[HEADER_AT:]).split(b"\0")[0]).hexdigest()


def test_what_is_no_store_is_said_to_be_none(tmp_path):
    path = tmp_path / "m.phi4"
    path.write_bytes(b"GGUF" + bytes(200))
    with pytest.raises(BadCheckpoint, match="not a store"):
        open_store(path)
    with pytest.raises(NotFound, match=r"none\.phi4: No such file"):
        open_store(tmp_path / "none.phi4")
    with pytest.raises(NotFound, match="directory"):
        open_store(tmp_path)


def test_A9_a_store_replaced_under_an_open_mapping_stays_whole(sound, tmp_path):
    path = tmp_path / "m.phi4"
    path.write_bytes(sound.read_bytes())
    opened = open_store(path)
    before = opened.weights.embed.dequantize()
    convert(open_folder(sound.parent / "twin"), "q4", path)
    np.testing.assert_array_equal(opened.weights.embed.dequantize(), before)
    assert open_store(path).recipe == "q4"


def test_the_same_source_gives_the_same_bytes(sound, tmp_path):
    convert(open_folder(sound.parent / "twin"), "q8", tmp_path / "again.phi4", {"name": "twin", "identity": "abc"})
    assert (tmp_path / "again.phi4").read_bytes() == sound.read_bytes()


def test_longer_offsets_make_room_for_a_longer_header():
    from phi4mini.formats.format_table import FORMATS
    from phi4mini.weights.store.writer import Contents, _front, _layout

    config = replace(Config.phi4_mini(), num_layers=300)
    formats = dict.fromkeys(tensor_names.arrays(config), FORMATS["f32"])
    contents = Contents(config, b"tokenizer", "phi", "f32", {"name": "n", "identity": "f"}, formats)
    entries = _layout(contents)
    total = entries[-1].offset + entries[-1].nbytes
    assert len(_front(contents, entries, total)) <= entries[0].offset


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_before_the_blobs_is_refused(sound, tmp_path, data):
    raw = bytearray(sound.read_bytes())
    length = PREFIX.unpack(raw[: PREFIX.size])[2]
    used = [*range(PREFIX.size), *range(HEADER_AT, HEADER_AT + length)]
    at = data.draw(st.sampled_from(used))
    raw[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged.phi4"
    path.write_bytes(raw)
    with pytest.raises(BadCheckpoint):
        open_store(path)


# ---- matrices in parts

PARTS = {"attn_v": "Q6_K", "ffn_up": "Q5_0"}


@pytest.fixture(scope="module")
def parted(tmp_path_factory) -> Path:
    """Q and K in q4k above V in q6k; gate in q4k above up in q8."""
    folder = tmp_path_factory.mktemp("parted")
    shapes = dict(hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2)
    write_gguf(folder / "m.gguf", Config.from_json(config_json("Llama", **shapes)), PARTS, default="Q4_K")
    convert(open_gguf(folder / "m.gguf"), "q4", folder / "m.phi4")
    return folder / "m.phi4"


def test_GG10_a_store_says_which_matrices_have_parts(parted):
    stated = {item["name"]: item["format"] for item in read_header(parted)["arrays"]}
    assert stated["layers.0.qkv"] == "q4k*384+q6k*128" and stated["layers.1.gate_up"] == "q4k*256+q8*256"
    assert stated["layers.0.o"] == stated["layers.0.down"] == stated["embed"] == "q4k"


NO_PARTS = ["", "q4k", "q4k*384", "q4k*384+q6k*127", "q4k*385+q6k*127", "q4k*384+q6k*128+q6k*16", "q6k*384+q4k*128"]
NO_PARTS += [
    "q4k*384+q9k*128",
    "q4k*-16+q6k*528",
    "q4k*384+",
    "+q4k*512",
    "q4k*384 +q6k*128",
    "q4k*0+q6k*512",
    "q4k*384,q6k*128",
]


@pytest.mark.parametrize("name", [*NO_PARTS, None, 7, ["q4k*384", "q6k*128"], {"q4k": 384}])
def test_GG10_parts_that_lie_are_refused(parted, tmp_path, name):
    def lie(header):
        next(item for item in header["arrays"] if item["name"] == "layers.0.qkv")["format"] = name

    raw = parted.read_bytes()
    length = PREFIX.unpack(raw[: PREFIX.size])[2]
    header = json.loads(raw[HEADER_AT : HEADER_AT + length])
    lie(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    front = PREFIX.pack(raw[:8], 2, len(text), hashlib.sha256(text).digest()).ljust(HEADER_AT, b"\0") + text
    assert len(front) <= header["tokenizer"]["offset"]
    path = tmp_path / "lie.phi4"
    path.write_bytes(front + raw[len(front) :])
    with pytest.raises(BadCheckpoint, match=r"lie\.phi4: layers\.0\.qkv: "):
        open_store(path)


@pytest.mark.parametrize("part", [0, 1])
def test_GG10_nan_in_a_part_is_found(parted, tmp_path, part):
    opened = open_store(parted, verify=True)
    entry = opened.entries["layers.1.qkv"]
    at = entry.offset + part * opened.weights.layers[1].qkv.parts[0].nbytes
    raw = bytearray(parted.read_bytes())
    raw[at : at + 2] = np.float16(np.nan).tobytes()
    path = tmp_path / "m.phi4"
    path.write_bytes(raw)
    fixed = rewritten(path, tmp_path / "nan.phi4", lambda h: _rehash(h, raw))
    with pytest.raises(BadCheckpoint, match=r"layers\.1\.qkv holds NaN"):
        open_store(fixed, verify=True)


def _rehash(header, raw):
    for item in header["arrays"]:
        item["sha256"] = hashlib.sha256(raw[item["offset"] : item["offset"] + item["nbytes"]]).hexdigest()
