"""The tokenizer against HF's: golden vectors, random text, random ids; and what it refuses."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadInput
from phi4mini.tokenizer import WHITE_SPACE, Tokenizer, phi4
from tests.tokenizer.vocabularies import small

NAMES = [token.content for token in phi4.ADDED] + ["<|endoftext10|>", "<|endoftext98|>", "<|", "|>", "<|end", "end|>"]
SPACES = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\x0b",
    "\x1c",
    "\x1d",
    "\x1f",
    "\x85",
    "\xa0",
    "\u1680",
    "\u2003",
    "\u2028",
    "\u3000",
]
PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(NAMES),
    st.sampled_from(SPACES),
    st.sampled_from(["I'm", "DON'T", "1234567", "naïve", "e\u0301", "你好", "👩‍👩‍👧", "\u01c5", "ʰ", "ß", "//\n"]),
)
TEXTS = st.lists(PIECES, max_size=10).map("".join)
PHI_IDS = st.lists(
    st.integers(0, phi4.ROWS - 1) | st.integers(0, 255) | st.sampled_from(range(199_990, 200_064)), max_size=20
)
FEW = settings(max_examples=200, deadline=None)


def test_golden_plain(shared_phi, golden):
    for case in golden["ordinary"]:
        assert shared_phi.encode(case["text"]) == case["ids"]
        assert shared_phi.encode(case["text"], parse_special=True) == case["ids"]
        assert shared_phi.decode(case["ids"]) == case["text"]


def test_golden_with_added_tokens(shared_phi, golden):
    for case in golden["with_added_tokens"]:
        assert shared_phi.encode(case["text"], parse_special=True) == case["ids"]
        assert shared_phi.decode(case["ids"]) == case["decode_keep"]
        assert shared_phi.decode(case["ids"], skip_special_tokens=True) == case["decode_skip_special"]


@FEW
@given(text=TEXTS)
def test_parse_special_is_hf(shared_phi, reference, text):
    expected = reference.encode(text, add_special_tokens=False)
    assert shared_phi.encode(text, parse_special=True) == expected.ids
    assert shared_phi.encode_spans(text) == (expected.ids, [start for start, _ in expected.offsets])


@FEW
@given(text=TEXTS)
def test_plain_text_round_trips_and_never_becomes_control(shared_phi, text):
    ids = shared_phi.encode(text)
    assert max(ids, default=0) < phi4.ENDOFTEXT - 1  # neither added tokens nor placeholders
    assert shared_phi.decode(ids) == text


@FEW
@given(ids=PHI_IDS, skip=st.booleans())
def test_decode_is_hf(shared_phi, reference, ids, skip):
    assert shared_phi.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)


@FEW
@given(ids=PHI_IDS)
def test_stream_joined_is_decode(shared_phi, ids):
    stream = shared_phi.stream()
    pieces = [stream.push(id) for id in ids]
    assert "".join(pieces) + stream.flush() == shared_phi.decode(ids)


@FEW
@given(data=st.binary(max_size=24))
def test_broken_utf8_decodes_as_in_hf(shared_phi, reference, data):
    ids = [shared_phi.encode("x")[0]] + [phi_byte(shared_phi, byte) for byte in data]
    assert shared_phi.decode(ids) == reference.decode(ids)
    stream = shared_phi.stream()
    assert "".join(map(stream.push, ids)) + stream.flush() == shared_phi.decode(ids)


def phi_byte(tokenizer: Tokenizer, byte: int) -> int | None:
    """Id of a single byte."""
    from phi4mini.tokenizer.bytelevel import CHARS

    return tokenizer.id_of(CHARS[byte])


def test_stream_holds_half_a_character(shared_phi):
    ids = shared_phi.encode("🌍")
    assert len(ids) > 1
    stream = shared_phi.stream()
    assert [stream.push(id) for id in ids] == [""] * (len(ids) - 1) + ["🌍"]


def test_white_space_is_what_hf_strips(reference):
    swallowed = [chr(c) for c in range(0x11000) if not 0xD800 <= c < 0xE000]
    kept = {c for c in swallowed if len(reference.encode(f"<|user|>{c}", add_special_tokens=False).ids) > 1}
    assert set(swallowed) - kept == set(WHITE_SPACE)


def test_names_and_ids(shared_phi):
    assert (shared_phi.bos_id, shared_phi.eos_ids, shared_phi.pad_id) == (199999, (200020, 199999), 199999)
    assert shared_phi.id_of("<|end|>") == 200020
    assert shared_phi.id_of("<|nothing|>") is None
    assert shared_phi.control_ids == {199999, *range(200018, 200029)}
    assert (len(shared_phi), shared_phi.vocab_size) == (200029, 200064)
    assert shared_phi.token_bytes(shared_phi.encode("é")[0]) == "é".encode()
    assert shared_phi.token_text(shared_phi.encode("🌍")[0]) == "\ufffd"
    assert shared_phi.token_bytes(200040) == b""


@pytest.mark.parametrize("id", [-1, 200064, 10**12])
def test_id_beyond_the_vocabulary_is_refused(shared_phi, id):
    with pytest.raises(BadInput, match=str(id)):
        shared_phi.decode([5, id])


def test_lone_surrogate_is_refused_with_its_place(shared_phi):
    for parse_special in (False, True):
        with pytest.raises(BadInput, match=r"U\+D83D at character 3"):
            shared_phi.encode("né \ud83d!", parse_special)
    with pytest.raises(BadInput, match="must be str, got bytes"):
        shared_phi.encode(b"x")


def test_free_rows_take_35_tokens_and_not_one_more(phi):
    names = [f"<|mine_{i}|>" for i in range(35)]
    assert phi.add_tokens(names) == list(range(200029, 200064))
    assert phi.add_tokens([names[3], "<|end|>"]) == [200032, 200020]
    with pytest.raises(BadInput, match=r"no free row for the token '<\|one_more\|>': the model has 200064 rows"):
        phi.add_tokens(["<|one_more|>"])
    assert phi.encode("a<|mine_34|> b", parse_special=True) == phi.encode("a<|mine_34|> b") == [64, 200063, 287]
    assert phi.decode([200063]) == "<|mine_34|>"


def test_all_or_none_are_added(phi):
    phi.add_tokens([f"<|{i}|>" for i in range(33)])
    with pytest.raises(BadInput, match=r"<\|c\|>"):
        phi.add_tokens(["<|a|>", "<|b|>", "<|c|>"])
    assert phi.id_of("<|a|>") is None and len(phi) == 200062


def test_tokens_that_cannot_be_added(phi):
    for bad in ([""], ["  "], [7]):
        with pytest.raises(BadInput, match="cannot add the token"):
            phi.add_tokens(bad)
    with pytest.raises(BadInput, match="not one string"):
        phi.add_tokens("<|a|>")


def test_a_placeholder_can_be_taken_and_a_word_stays_a_word(phi):
    assert phi.add_tokens(["<|endoftext10|>", " hello", "hello"]) == [200010, 200029, phi.encode("hello")[0]]
    assert phi.encode("<|endoftext10|>", parse_special=True) == [200010]
    assert phi.encode("<|endoftext10|>") == [200010] and len(phi.encode("<|endoftext11|>")) == 8
    assert phi.encode("a hello") == [64, 200029]
    assert phi.encode("hello") == phi.encode("hello", parse_special=True)


def test_special_flag_decides_what_skip_special_tokens_hides(phi):
    shown, hidden = phi.add_tokens(["<|shown|>"]) + phi.add_tokens(["<|hidden|>"], special=True)
    assert phi.decode([shown, hidden], skip_special_tokens=True) == "<|shown|>"


def test_vocabulary_whose_merges_spell_a_control_token():
    """Merges can build "<s>" letter by letter; plain text must still not become it."""
    tokenizer = small(control=(), merges=("< s", "<s >"))
    tokenizer._extend([phi4.AddedToken(tokenizer.id_of("<s>"), "<s>", special=True)])
    assert tokenizer.encode("a<s>b") == list(b"a<s>b")
    assert tokenizer.decode(tokenizer.encode("a<s>b")) == "a<s>b"
    assert tokenizer.id_of("<s>") in tokenizer.encode("a<s>b", parse_special=True)


def test_hf_reads_what_save_json_writes(phi, reference, tmp_path):
    text = "hello <|mine|> wörld<|im_end|><|end|> \n<|mine|>  x"
    phi.add_tokens(["<|mine|>"])
    path = tmp_path / "tokenizer.json"
    phi.save_json(path)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    ids = theirs.encode(text, add_special_tokens=False).ids
    assert ids == phi.encode(text, parse_special=True) and 200029 in ids
    assert theirs.decode(ids, skip_special_tokens=False) == phi.decode(ids)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]
