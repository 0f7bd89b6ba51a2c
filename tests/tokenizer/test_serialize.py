"""A tokenizer as bytes and back; damaged blobs."""

from __future__ import annotations

import json

import pytest

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import from_bytes, to_bytes
from tests.tokenizer.vocabularies import small

TEXT = "hello <|mine|> wörld<|im_end|><|end|> \n<|mine|>  x"


def test_phi_blob_is_tiny_and_keeps_added_tokens(phi):
    phi.add_tokens(["<|mine|>"])
    blob = to_bytes(phi)
    again = from_bytes(blob)
    assert len(blob) < 500
    assert again.is_phi4 and again.added_tokens == phi.added_tokens
    assert again.encode(TEXT, parse_special=True) == phi.encode(TEXT, parse_special=True)


def test_other_blob_is_self_contained():
    ours = small()
    ours.bos_id, ours.eos_ids, ours.pad_id = 261, (263, 261), None
    again = from_bytes(to_bytes(ours))
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
    blob = json.dumps(json.loads(to_bytes(shared_phi)) | change).encode()
    with pytest.raises(BadCheckpoint, match=told):
        from_bytes(blob).encode("x", parse_special=True)


@pytest.mark.parametrize("blob", [b"", b"\xff\xfe", b"[]", b"3", b"{}"])
def test_blob_that_is_none(blob):
    with pytest.raises(BadCheckpoint, match="damaged"):
        from_bytes(blob)
