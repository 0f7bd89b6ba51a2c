"""Streaming over SentencePiece pieces, where HF's own decoder is the reference."""

from __future__ import annotations

import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from phi4mini.tokenizer import from_json

PIECES = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "b", "é", "▁▁", "<|end|>"]


def sentencepiece() -> tokenizers.Tokenizer:
    """As Llama-2 and Phi-3.5 have it: byte fallback, a visible space, one space cut at the start."""
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {piece: id for id, piece in enumerate(PIECES)}, [("▁", "a"), ("▁", "▁")], byte_fallback=True
        )
    )
    steps = tokenizers.normalizers
    made.normalizer = steps.Sequence([steps.Prepend("▁"), steps.Replace(" ", "▁")])
    ends = tokenizers.decoders
    made.decoder = ends.Sequence([ends.Replace("▁", " "), ends.ByteFallback(), ends.Fuse(), ends.Strip(" ", 1, 0)])
    made.add_tokens([tokenizers.AddedToken("<|end|>", special=True, normalized=False, rstrip=True)])
    return made


REFERENCE = sentencepiece()
OURS = from_json(REFERENCE.to_str(), {"eos_token": {"content": "<|end|>"}, "pad_token": None})
IDS = st.lists(st.integers(0, len(PIECES) - 1) | st.integers(0x80, 0xFF), max_size=12)


@given(ids=IDS)
def test_pieces_decode_as_in_hf(ids):
    assert OURS.decode(ids) == REFERENCE.decode(ids, skip_special_tokens=False)


@given(text=st.text(max_size=8))
def test_utf8_in_byte_pieces(text):
    ids = [1 + byte for byte in text.encode()]
    stream = OURS.stream()
    assert "".join(map(stream.push, ids)) + stream.flush() == REFERENCE.decode(ids)


@given(text=st.text(alphabet="ab é<|end>\u2581", max_size=12))
def test_encode_as_in_hf(text):
    assert OURS.encode(text, parse_special=True) == REFERENCE.encode(text, add_special_tokens=False).ids
    assert OURS.control_ids.isdisjoint(OURS.encode(text))


def test_names_from_the_config():
    assert (OURS.eos_ids, OURS.pad_id, OURS.bos_id) == ((PIECES.index("<|end|>"),), None, None)


def test_a_stream_can_be_used_again():
    stream = OURS.stream()
    for _ in range(2):
        assert stream.push(PIECES.index("▁a")) == "a"
        assert stream.push(1 + 0xF0) == ""
        assert stream.flush() == "\ufffd"
