"""tokenizer.json and tokenizer_config.json of a checkpoint, and files that contradict themselves."""

from __future__ import annotations

import json

import pytest
import tokenizers

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import from_json
from tests.tokenizer.vocabularies import small


def test_phi_tokenizer_json_is_the_shipped_one(phi, tmp_path, config):
    phi.add_tokens(["<|mine|>"])
    phi.save_json(tmp_path / "tokenizer.json")
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    again = from_json(tree, config)
    assert again.is_phi4 and again.added_tokens == phi.added_tokens
    tree["model"]["vocab"]["a"] = 65  # a lie about one id is enough to leave the shipped one
    tree["model"]["vocab"]["b"] = 64
    other = from_json(tree, config)
    assert not other.is_phi4 and other.encode("b") == [64] and other.encode("a") == [65]
    assert other.eos_ids == (199999,) and other.encode("<|user|>  a", parse_special=True) == [200021, 65]


def test_flags_of_the_config_win():
    tree = json.loads(small().parsing_backend.to_str())
    id = next(entry["id"] for entry in tree["added_tokens"] if entry["content"] == "<|im_end|>")
    config = {"added_tokens_decoder": {str(id): {"content": "<|im_end|>", "rstrip": True, "special": False}}}
    ours = from_json(tree, config)
    assert ours.encode("<|im_end|>  a", parse_special=True) == [id, ord("a")]
    assert ours.decode([id], skip_special_tokens=True) == "<|im_end|>"


def test_template_processing_adds_nothing():
    backend = tokenizers.Tokenizer.from_str(small().parsing_backend.to_str())
    bos = backend.token_to_id("<|im_start|>")
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
    )
    assert from_json(backend.to_str()).encode("hello", parse_special=True) == small().encode("hello")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"type": "WordPiece", "vocab": {}}}, "model type 'WordPiece' is not supported"),
        ({"model": 5}, "has no model"),
        ({"model": {"type": "BPE", "vocab": 3, "merges": []}}, "cannot be used"),
        ({"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}, "is not supported, only ByteLevel"),
        ({"added_tokens": [{"content": "x"}]}, "integer id"),
        ({"added_tokens": 7}, "must be a list"),
        ({"added_tokens": [{"id": 9999, "content": "<x>"}]}, "its place in the vocabulary is 264"),
    ],
)
def test_lying_tokenizer_json(change, told):
    tree = json.loads(small().parsing_backend.to_str()) | change
    with pytest.raises(BadCheckpoint, match=told):
        from_json(tree).encode("x", parse_special=True)


def test_not_json_and_more_ids_than_rows():
    with pytest.raises(BadCheckpoint, match="not JSON"):
        from_json(b"{")
    with pytest.raises(BadCheckpoint, match="264 ids but the model only 200 rows"):
        from_json(small().parsing_backend.to_str(), rows=200)
    with pytest.raises(BadCheckpoint, match="must map ids to tokens"):
        from_json(small().parsing_backend.to_str(), {"added_tokens_decoder": {"x": {}}})
