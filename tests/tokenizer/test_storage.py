"""A tokenizer as bytes and back; damaged blobs; the tokenizer.json that HF reads."""

from __future__ import annotations

import json

import pytest
import tokenizers

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import Tokenizer
from tests.tokenizer.vocabularies import small

TEXT = "hello <|mine|> wörld<|im_end|><|end|> \n<|mine|>  x"


def test_phi_blob_is_tiny_and_keeps_added_tokens(phi):
    phi.add_tokens(["<|mine|>"])
    blob = phi.to_bytes()
    again = Tokenizer.from_bytes(blob)
    assert len(blob) < 500
    assert again.is_phi4 and again.added_tokens == phi.added_tokens
    assert again.encode(TEXT, parse_special=True) == phi.encode(TEXT, parse_special=True)


def test_other_blob_is_self_contained():
    ours = small()
    ours.bos_id, ours.eos_ids, ours.pad_id = 261, (263, 261), None
    again = Tokenizer.from_bytes(ours.to_bytes())
    assert (again.bos_id, again.eos_ids, again.pad_id, again.vocab_size) == (261, (263, 261), None, 264)
    for parse_special in (False, True):
        assert again.encode(TEXT, parse_special) == ours.encode(TEXT, parse_special)
    assert again.decode(range(264)) == ours.decode(range(264))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "version 2, this program reads 1"),
        ({"ranks_sha256": "0"}, "another o200k_base"),
        ({"rows": None}, "for None rows is not possible"),
        ({"kind": "json"}, "damaged"),
        ({"added": [{"id": 200030, "content": "<|gap|>"}]}, "its place in the vocabulary is 200029"),
    ],
)
def test_damaged_blob(shared_phi, change, told):
    blob = json.dumps(json.loads(shared_phi.to_bytes()) | change).encode()
    with pytest.raises(BadCheckpoint, match=told):
        Tokenizer.from_bytes(blob).encode("x", parse_special=True)


@pytest.mark.parametrize("blob", [b"", b"\xff\xfe", b"[]", b"3", b"{}"])
def test_blob_that_is_none(blob):
    with pytest.raises(BadCheckpoint, match="damaged"):
        Tokenizer.from_bytes(blob)


def test_hf_reads_what_save_json_writes(phi, reference, tmp_path):
    phi.add_tokens(["<|mine|>"])
    path = tmp_path / "tokenizer.json"
    phi.save_json(path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    ids = theirs.encode(TEXT, add_special_tokens=False).ids
    assert ids == phi.encode(TEXT, parse_special=True) and 200029 in ids
    assert theirs.decode(ids, skip_special_tokens=False) == phi.decode(ids)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]
