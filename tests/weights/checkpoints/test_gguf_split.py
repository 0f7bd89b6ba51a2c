"""A GGUF in parts is the GGUF in one piece; parts that do not belong together are refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.gguf_model import open_gguf
from phi4mini.weights.checkpoints.gguf_split import is_part, open_parts, part_names, parts_here
from phi4mini.weights.resolve import fingerprint, resolve
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests.weights.twins import config_json, write_gguf

WIDE = dict(hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2)
MODEL = Config.from_json(config_json("Llama", **WIDE))


def parts(folder: Path, tensors: int, name: str = "m") -> list[Path]:
    folder.mkdir(exist_ok=True)
    write_gguf(folder / f"{name}.gguf", MODEL, default="Q4_K", split=tensors)
    return sorted(folder.glob(f"{name}-*.gguf"))


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[Path]:
    found = parts(tmp_path_factory.mktemp("split"), 7)
    assert len(found) == 3
    return found


@pytest.mark.parametrize("tensors", [1, 2, 3, 4, 5, 6, 7, 9, 10, 13, 19])
def test_GG4_parts_are_the_whole(tmp_path, tensors):
    """Whatever the number of parts, the same config and the same bytes in the store; named by any part."""
    write_gguf(tmp_path / "whole.gguf", MODEL, default="Q4_K")
    split = parts(tmp_path / "split", tensors)
    assert len(split) == -(-20 // tensors)
    stores = []
    for path in (tmp_path / "whole.gguf", *split[:1], *split[-1:]):
        opened = open_gguf(path)
        convert(opened, "q4", tmp_path / "out.phi4", {"name": "m"})
        stores.append(open_store(tmp_path / "out.phi4", verify=True).view.tobytes())
    assert stores[0] == stores[1] == stores[-1]


def test_GG4_any_part_is_the_same_model(three):
    """One source, whichever part is named; it changes when any part does."""
    sources = [resolve(str(path)) for path in three]
    assert len(set(sources)) == 1 and sources[0].path == three[0] and sources[0].kind == "gguf"
    before = fingerprint(sources[0])
    three[2].touch()
    assert fingerprint(sources[0]) == before
    data = bytearray(three[2].read_bytes())
    data[-1] ^= 1
    three[2].write_bytes(data)
    changed = fingerprint(sources[0])
    data[-1] ^= 1
    three[2].write_bytes(data)
    assert changed != before == fingerprint(sources[0])


def rewritten(path: Path, change: Callable[[dict], None], out: Path | None = None) -> None:
    """A part with other metadata, its tensors as they were."""
    reader = gguf.GGUFReader(path)
    keys = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    values = {name: field.contents() for name, field in keys.items()}
    change(values)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "llama")
    writer.kv_data = [{}]
    for name, value in values.items():
        if name in keys:
            kind, sub = keys[name].types[0], keys[name].types[-1]
            writer.add_key_value(name, value, kind, sub if kind == gguf.GGUFValueType.ARRAY else None)
        else:
            writer.add_string(name, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    del reader
    path.with_suffix(".new").replace(out or path)


def lose(number: int) -> Callable[[list[Path]], None]:
    return lambda files: files[number].unlink()


def state(number: int, key: str, value: object) -> Callable[[list[Path]], None]:
    return lambda files: rewritten(files[number], lambda values: values.update({key: value}))


def forget(number: int, key: str) -> Callable[[list[Path]], None]:
    return lambda files: rewritten(files[number], lambda values: values.pop(key))


def swap(files: list[Path]) -> None:
    files[1].rename(files[1].with_name("aside"))
    files[2].rename(files[1])
    files[1].with_name("aside").rename(files[2])


def repeat(files: list[Path]) -> None:
    rewritten(files[1], lambda values: values.update({"split.no": 2}), files[2])


def cut(files: list[Path]) -> None:
    files[2].write_bytes(files[2].read_bytes()[:-5000])


BROKEN = {  # what happened to three parts -> (error, what it names)
    "first missing": (lose(0), NotFound, "1 of 3 parts missing: m-00001-of-00003.gguf"),
    "second missing": (lose(1), NotFound, "1 of 3 parts missing: m-00002-of-00003.gguf"),
    "swapped": (swap, BadCheckpoint, "m-00002-of-00003.gguf: split.no 2 and split.count 3 are not those of part 2"),
    "count of another split": (state(1, "split.count", 4), BadCheckpoint, "split.no 1 and split.count 4"),
    "no number": (forget(1, "split.no"), BadCheckpoint, "m-00002-of-00003.gguf: split.no None"),
    "no count": (forget(1, "split.count"), BadCheckpoint, "split.count None"),
    "fewer tensors": (state(0, "split.tensors.count", 30), BadCheckpoint, "split.tensors.count"),
    "tensors of another split": (state(1, "split.tensors.count", 19), BadCheckpoint, "parts of two models"),
    "a part twice": (repeat, BadCheckpoint, "is in m-00002-of-00003.gguf as well"),
    "a part cut": (cut, BadCheckpoint, "m-00003-of-00003.gguf: truncated"),
    "another model's": (state(2, "general.architecture", "phi3"), BadCheckpoint, "'general.architecture' is not that"),
    "renamed": (lambda files: files[2].rename(files[2].with_name("m.gguf")), NotFound, "1 of 3 parts missing"),
    "no parts at all": (lambda files: [path.unlink() for path in files[1:]], NotFound, "2 of 3 parts missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_GG5_parts_that_do_not_belong_together(three, tmp_path, case):
    files = [Path(shutil.copy(path, tmp_path)) for path in three]
    harm, error, told = BROKEN[case]
    harm(files)
    with pytest.raises(error, match=r"m-0000\d-of-00003\.gguf: ") as caught:
        open_parts(next(path for path in files if path.exists()))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_GG5_a_part_under_another_name_says_what_is_wrong(three, tmp_path):
    shutil.copy(three[0], tmp_path / "model.gguf")
    with pytest.raises(
        BadCheckpoint, match=r"model\.gguf: it is one of 3 parts of a split GGUF, but its name does not"
    ):
        open_gguf(tmp_path / "model.gguf")


def test_a_whole_file_with_a_parts_name_is_whole(tmp_path):
    write_gguf(tmp_path / "m-00001-of-00003.gguf", MODEL)
    assert open_gguf(tmp_path / "m-00001-of-00003.gguf").config.num_layers == 2


@pytest.mark.parametrize("name", ["m.gguf", "m-1-of-3.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf"])
def test_what_is_no_part_stands_for_itself(tmp_path, name):
    assert part_names(name) == [name] and parts_here(tmp_path / name) == [tmp_path / name]


def test_parts_are_named_as_the_one_given():
    assert part_names("A-00002-of-00003.GGUF") == [f"A-0000{i}-of-00003.GGUF" for i in (1, 2, 3)]
    assert is_part("A-00002-of-00003.GGUF") and not is_part("A.gguf")
