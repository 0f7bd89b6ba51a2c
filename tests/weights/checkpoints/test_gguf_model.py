"""GGUF models: exact values, llama's rows put back in order, LongRoPE's factors, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from phi4mini.errors import BadCheckpoint
from phi4mini.formats.gguf_blocks import EXACT
from phi4mini.formats.matrix import Matrix
from phi4mini.llm.run import untrained_ids
from phi4mini.model.arrays import Weights, pieces
from phi4mini.model.config import Config
from phi4mini.tokenizer import phi4, ranks
from phi4mini.weights.checkpoints.gguf_model import open_gguf
from phi4mini.weights.store.convert import convert
from phi4mini.weights.store.store import open_store
from tests.weights.twins import config_json, permuted, write_gguf

WIDE = dict(hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2)


def config(family: str = "Llama", **changes) -> Config:
    return Config.from_json(config_json(family, **(WIDE | changes)))


def weights_of(path: Path, quant: str = "q4") -> Weights:
    out = path.with_suffix(f".{quant}.phi4")
    convert(open_gguf(path), quant, out)
    return open_store(out, verify=True).weights


def back(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `permuted`, found by permuting the row numbers."""
    order = permuted(np.arange(len(rows)), heads)
    out = np.empty_like(rows)
    out[order] = rows
    return out


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *EXACT])
def test_GG6_a_llama_of_every_type_keeps_its_exact_values(tmp_path, kind):
    numbers = config()
    values = write_gguf(tmp_path / "m.gguf", numbers, default=kind)
    weights = weights_of(tmp_path / "m.gguf", "f32" if "F" in kind else "q4")
    for n, layer in enumerate(weights.layers):
        blk = f"blk.{n}."
        qkv = [
            back(values[blk + "attn_q.weight"], numbers.num_heads),
            back(values[blk + "attn_k.weight"], numbers.num_kv_heads),
            values[blk + "attn_v.weight"],
        ]
        np.testing.assert_array_equal(layer.qkv.dequantize(), np.concatenate(qkv))
        gate_up = np.concatenate([values[blk + "ffn_gate.weight"], values[blk + "ffn_up.weight"]])
        np.testing.assert_array_equal(layer.gate_up.dequantize(), gate_up)
        np.testing.assert_array_equal(layer.down.dequantize(), values[blk + "ffn_down.weight"])
        np.testing.assert_array_equal(layer.o.dequantize(), values[blk + "attn_output.weight"])
        np.testing.assert_array_equal(layer.input_norm, values[blk + "attn_norm.weight"])
        np.testing.assert_array_equal(layer.post_norm, values[blk + "ffn_norm.weight"])
    np.testing.assert_array_equal(weights.embed.dequantize(), values["token_embd.weight"])
    np.testing.assert_array_equal(weights.norm, values["output_norm.weight"])
    assert weights.head is weights.embed


WIDER = {"Q2_K": "q2k", "Q3_K": "q6k", "IQ4_NL": "q8", "IQ4_XS": "q8k"}


@pytest.mark.parametrize("kind", EXACT)
def test_GG6_a_type_that_grows_says_by_how_much(tmp_path, caplog, kind):
    numbers = config("Phi3")
    write_gguf(tmp_path / "m.gguf", numbers, default=kind)
    layer = weights_of(tmp_path / "m.gguf").layers[0]
    told = [record.getMessage() for record in caplog.records if "wider formats" in record.getMessage()]
    if kind not in WIDER:
        assert told == []
        return
    assert layer.o.format.name == WIDER[kind]
    assert len(told) == 1 and f"m.gguf: {kind} as {WIDER[kind]}: stored exactly" in told[0] and "\n" not in told[0]
    matrices = numbers.num_parameters - numbers.hidden_size * (2 * numbers.num_layers + 1)
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    extra = EXACT[kind].matrix_bytes(16, 256) / (16 * 256) - nbytes / weights
    assert f"{matrices * extra / 1e9:.3g} GB more" in told[0]


def test_phi3_rows_stay_where_they_are(tmp_path):
    values = write_gguf(tmp_path / "m.gguf", config("Phi3"), default="Q5_K")
    layer = weights_of(tmp_path / "m.gguf").layers[1]
    assert layer.qkv.format.name == "q5k"
    np.testing.assert_array_equal(layer.qkv.dequantize(), values["blk.1.attn_qkv.weight"])
    np.testing.assert_array_equal(layer.gate_up.dequantize(), values["blk.1.ffn_up.weight"])


def test_the_demo_is_carried_over_bit_for_bit(demo_gguf, demo_store):
    tensors = {t.name: t for t in gguf.GGUFReader(demo_gguf).tensors}

    def values(name: str) -> np.ndarray:
        return gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)

    opened = open_store(demo_store("q4"), verify=True)
    weights = opened.weights
    assert {entry.format for entry in opened.entries.values()} == {"bytes", "f32", "q4m", "q8"}
    np.testing.assert_array_equal(weights.embed.dequantize(), values("token_embd.weight"))
    for n in (0, 29):
        layer = weights.layers[n]
        np.testing.assert_array_equal(layer.down.dequantize(), values(f"blk.{n}.ffn_down.weight"))
        np.testing.assert_array_equal(layer.qkv.dequantize()[:576], back(values(f"blk.{n}.attn_q.weight"), 9))
        np.testing.assert_array_equal(layer.qkv.dequantize()[576:768], back(values(f"blk.{n}.attn_k.weight"), 3))
    assert opened.config.eos_token_ids == (2,) and opened.chat_format == "smollm"
    assert opened.tokenizer.encode("Hello world") == [19556, 905]


def test_fused_tensors_of_equal_zero_meet_in_the_wider_format(tmp_path, caplog):
    values = write_gguf(tmp_path / "m.gguf", config(), {"attn_v": "Q8_0"}, default="Q4_0")
    layer = weights_of(tmp_path / "m.gguf").layers[0]
    assert layer.qkv.format.name == "q8" and layer.o.format.name == "q4" and not caplog.records
    np.testing.assert_array_equal(layer.qkv.dequantize()[-128:], values["blk.0.attn_v.weight"])


JOINED = {  # types of q, k, v -> formats of the parts, neighbours that share one being one
    ("Q4_K", "Q4_K", "Q6_K"): ["q4k", "q6k"],  # what llama.cpp's Q4_K_M makes of half the layers
    ("Q4_K", "Q4_K", "Q5_K"): ["q5k"],
    ("Q5_K", "Q5_K", "Q6_K"): ["q5k", "q6k"],
    ("Q2_K", "Q2_K", "Q4_K"): ["q2k", "q4k"],
    ("Q3_K", "Q3_K", "Q5_K"): ["q6k", "q5k"],
    ("Q3_K", "Q6_K", "Q3_K"): ["q6k"],
    ("Q4_0", "Q5_0", "Q8_0"): ["q8"],
    ("Q4_1", "Q5_1", "Q4_1"): ["q5m"],
    ("Q4_0", "Q4_1", "Q4_0"): ["q4", "q4m", "q4"],
    ("IQ4_XS", "IQ4_XS", "Q5_K"): ["q8k", "q5k"],
    ("IQ4_NL", "Q5_K", "Q6_K"): ["q8", "q5k", "q6k"],
    ("Q6_K", "Q4_K", "Q5_K"): ["q6k", "q5k"],
}


@pytest.mark.parametrize("kinds", JOINED, ids="-".join)
def test_GG10_joined_tensors_of_several_types_are_stored_part_by_part(tmp_path, caplog, kinds):
    numbers = config()
    named = dict(zip(("attn_q", "attn_k", "attn_v"), kinds, strict=True)) | {"ffn_gate": kinds[0], "ffn_up": kinds[2]}
    values = write_gguf(tmp_path / "m.gguf", numbers, named, default="Q4_K")
    layer = weights_of(tmp_path / "m.gguf").layers[1]
    assert [part.format.name for part in pieces(layer.qkv)] == JOINED[kinds] and "kept as f32" not in caplog.text
    q, k, v = (values[f"blk.1.attn_{part}.weight"] for part in "qkv")
    np.testing.assert_array_equal(layer.qkv.dequantize(), np.concatenate([back(q, 4), back(k, 2), v]))
    gate_up = np.concatenate([values["blk.1.ffn_gate.weight"], values["blk.1.ffn_up.weight"]])
    np.testing.assert_array_equal(layer.gate_up.dequantize(), gate_up)
    assert layer.qkv.nbytes < layer.qkv.rows * layer.qkv.cols * 1.2, "f32 would be four bytes a weight"
    tensor = weights_of(tmp_path / "m.gguf", "q8").layers[1].qkv
    assert isinstance(tensor, Matrix) and tensor.format.name == "q8", "a recipe for all holds for parts as well"


def test_parts_that_are_no_whole_strips_become_f32_and_are_named(tmp_path, caplog):
    narrow = config(num_attention_heads=32, num_key_value_heads=1)  # 8 rows of K
    values = write_gguf(tmp_path / "m.gguf", narrow, {"attn_v": "Q6_K", "attn_k": "Q5_K"}, default="Q4_K")
    layer = weights_of(tmp_path / "m.gguf").layers[0]
    assert layer.qkv.format.name == "f32" and layer.gate_up.format.name == "q4k"
    assert "layers.0.qkv and 1 more" in caplog.text and "kept as f32" in caplog.text
    np.testing.assert_array_equal(layer.qkv.dequantize()[-8:], values["blk.0.attn_v.weight"])


def test_asking_for_q8_rounds_only_what_q8_cannot_carry(tmp_path):
    values = write_gguf(tmp_path / "m.gguf", config(), {"ffn_down": "Q4_0", "attn_output": "Q6_K"}, default="Q8_0")
    layer = weights_of(tmp_path / "m.gguf", "q8").layers[0]
    assert {m.format.name for m in (layer.qkv, layer.o, layer.gate_up, layer.down)} == {"q8"}
    np.testing.assert_array_equal(layer.down.dequantize(), values["blk.0.ffn_down.weight"])
    o = values["blk.0.attn_output.weight"]
    assert 0 < np.abs(layer.o.dequantize() - o).max() < np.abs(o).max() / 100


LONGROPE = {"phi3.rope.scaling.original_context_length": 64}


def factors(scale: float, pairs: int = 24) -> list[tuple[str, np.ndarray]]:
    short, long = np.ones(pairs, np.float32), np.linspace(1, scale, pairs, dtype=np.float32)
    return [("rope_factors_short.weight", short), ("rope_factors_long.weight", long)]


def test_longrope_factors_and_partial_rotation_are_read(tmp_path):
    numbers = config("Phi3", partial_rotary_factor=0.75)
    mscale = math.sqrt(1 + math.log(2048 / 64) / math.log(64))
    metadata = LONGROPE | {"phi3.rope.scaling.attn_factor": mscale, "phi3.attention.sliding_window": 262144}
    write_gguf(tmp_path / "m.gguf", numbers, metadata=metadata, extra=factors(20.0))
    found = open_gguf(tmp_path / "m.gguf").config
    assert (found.rotary_dim, found.original_max_position_embeddings, found.sliding_window) == (48, 64, 262144)
    assert found.short_factor == (1.0,) * 24 and found.long_factor[-1] == 20.0
    assert found.attention_factor is None and found.rope_scale == pytest.approx(mscale, rel=1e-12)


def test_another_attention_factor_than_the_formula_wins(tmp_path):
    metadata = LONGROPE | {"phi3.rope.scaling.attn_factor": 1.5}
    numbers = config("Phi3", partial_rotary_factor=0.75)
    write_gguf(tmp_path / "m.gguf", numbers, metadata=metadata, extra=factors(20.0))
    assert open_gguf(tmp_path / "m.gguf").config.rope_scale == 1.5


def test_untied_head_is_read(tmp_path):
    values = write_gguf(tmp_path / "m.gguf", replace(config(), tie_word_embeddings=False), default="Q8_0")
    weights = weights_of(tmp_path / "m.gguf")
    np.testing.assert_array_equal(weights.head.dequantize(), values["output.weight"])
    assert weights.head is not weights.embed


def test_stop_ids_come_from_metadata_and_chat_format(tmp_path):
    write_gguf(tmp_path / "m.gguf", config(), metadata={"tokenizer.ggml.eot_token_id": 318})
    assert open_gguf(tmp_path / "m.gguf").config.eos_token_ids == (319, 318)


def test_TP10_a_file_without_the_name_of_its_split_is_refused_unless_its_vocabulary_is_known(tmp_path):
    write_gguf(tmp_path / "m.gguf", config(), metadata={"tokenizer.ggml.pre": None})
    with pytest.raises(BadCheckpoint, match=r"m\.gguf: the GGUF does not name its pre-tokenizer"):
        open_gguf(tmp_path / "m.gguf")
    vocabulary, merges = ranks.vocabulary_and_merges()
    names = vocabulary | phi4.PLACEHOLDERS | {token.content: token.id for token in phi4.ADDED}
    tokens = [*sorted(names, key=names.__getitem__), "covid19", *(f"[PAD{i}]" for i in range(200030, 200064))]
    metadata = {
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 199999 + [3] + [1] * 18 + [3] * 5 + [4] * 5 + [3, 4] + [5] * 34,
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
        "tokenizer.ggml.eos_token_id": 200020,
        "tokenizer.ggml.bos_token_id": 199999,
    }
    small = Config.from_json(config_json("Phi3", vocab_size=200064, hidden_size=32, num_attention_heads=2))
    write_gguf(tmp_path / "phi.gguf", small, metadata=metadata, default="Q8_0")
    opened = open_gguf(tmp_path / "phi.gguf").tokenizer
    assert opened.is_phi4 and opened.encode("a covid19<|tool_call|>")[:3] == [64, 220, 200029]
    assert untrained_ids(opened, 200064)[-34:] == tuple(range(200030, 200064))


def test_TP8_user_defined_tokens_of_a_gguf_are_words(tmp_path):
    write_gguf(tmp_path / "m.gguf", config(), metadata={"tokenizer.ggml.token_type": [1] * 317 + [4, 3, 3]})
    tokenizer = open_gguf(tmp_path / "m.gguf").tokenizer
    word, control = (tokenizer.token_text(id) for id in (317, 318))
    ids = tokenizer.encode(f"a{word}{control}")
    assert 317 in ids and 318 not in ids and tokenizer.decode(ids) == f"a{word}{control}"


REFUSED = {
    "architecture": dict(metadata={"general.architecture": "gemma"}, told="architecture 'gemma' is not supported"),
    "rope scaling": dict(metadata={"llama.rope.scaling.type": "linear"}, told="rope_scaling type 'linear'"),
    "llama 3.1 factors": dict(extra=[("rope_freqs.weight", np.ones(32, np.float32))], told="rope scaling of Llama 3.1"),
    "split": dict(metadata={"split.count": 3}, told="one of 3 parts of a split GGUF, but its name does not end in"),
    "key missing": dict(metadata={"llama.block_count": None}, told="llama.block_count is missing"),
    "layers 1e9": dict(metadata={"llama.block_count": 10**9}, told="num_hidden_layers must be a whole number"),
    "bias": dict(extra=[("blk.0.attn_q.bias", np.ones(4, np.float32))], told=r"unexpected \(blk.0.attn_q.bias\)"),
    "tensor missing": dict(leave_out=["blk.1.ffn_up.weight"], told=r"1 missing \(blk.1.ffn_up.weight\)"),
    "embedding missing": dict(leave_out=["token_embd.weight"], told="token_embd.weight is missing"),
    "sentencepiece": dict(metadata={"tokenizer.ggml.model": "llama"}, told="only gpt2"),
    "unknown split": dict(metadata={"tokenizer.ggml.pre": "viking"}, told="'viking' is not supported"),
    "tokens not text": dict(metadata={"tokenizer.ggml.tokens": [1, 2]}, told="tokens is not a list of strings"),
    "too many tokens": dict(metadata={"tokenizer.ggml.tokens": [str(i) for i in range(400)]}, told="400 tokens"),
    "stop id beyond": dict(metadata={"tokenizer.ggml.eos_token_id": 320}, told="eos_token_id 320"),
    "heads text": dict(metadata={"llama.attention.head_count": "many"}, told="num_attention_heads"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_computed_wrongly_is_refused_by_name(tmp_path, case):
    told = REFUSED[case]["told"]
    write_gguf(tmp_path / "m.gguf", config(), **{k: v for k, v in REFUSED[case].items() if k != "told"})
    with pytest.raises(BadCheckpoint, match=rf"m\.gguf: .*{told}") as caught:
        open_gguf(tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)


def test_a_nan_scale_is_named(tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path, config(), default="Q8_0")
    from phi4mini.weights.checkpoints.gguf import GgufFile

    tensor = GgufFile(path).tensors["blk.1.ffn_down.weight"]
    with open(path, "r+b") as file:
        file.seek(tensor.offset + 34 * 11)
        file.write(np.float16(np.nan).tobytes())
    with pytest.raises(BadCheckpoint, match=r"m\.gguf: layers\.1\.down, rows 0 to .*: a scale is NaN"):
        weights_of(path)
    assert not path.with_suffix(".q4.phi4").exists()
