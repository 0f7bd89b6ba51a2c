"""A GGUF's metadata: what asks for data that are not there, or contradicts them, is refused by name.

Phi-4-mini alone may lack its rope factors: they are known.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.checkpoints.gguf import GgufFile
from phi4mini.weights.checkpoints.gguf_config import _head_fields, gguf_config
from phi4mini.weights.checkpoints.gguf_model import open_gguf
from tests.weights.twins import _add, _metadata, config_json, write_gguf

WIDE = dict(hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2)
ROPE, ATTENTION = "phi3.rope.scaling.", "phi3.attention."
ORIGINAL = {ROPE + "original_context_length": 64}
MSCALE = 1.2909944487358056  # sqrt(1 + ln(2048 / 64) / ln(64)), 12 digits of it


def config(family: str = "Phi3", **changes: Any) -> Config:
    return Config.from_json(config_json(family, **(WIDE | changes)))


def factors(pairs: int = 32, other: int | None = None) -> list[tuple[str, np.ndarray]]:
    long = np.linspace(1, 20, pairs if other is None else other, dtype=np.float32)
    return [("rope_factors_short.weight", np.ones(pairs, np.float32)), ("rope_factors_long.weight", long)]


def opened(tmp_path: Path, family: str = "Phi3", **how: Any) -> Config:
    write_gguf(tmp_path / "m.gguf", config(family), **how)
    return open_gguf(tmp_path / "m.gguf").config


def refusal(tmp_path: Path, family: str = "Phi3", **how: Any) -> str:
    with pytest.raises(BadCheckpoint, match=r"m\.gguf: ") as caught:
        opened(tmp_path, family, **how)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


MISSING = {  # metadata that ask for what is not there -> what the error names
    "context beyond the original": (dict(metadata=ORIGINAL), "context_length 2048 is beyond"),
    "attention factor": (dict(metadata={ROPE + "attn_factor": MSCALE}), "attn_factor is 1.29"),
    "both": (dict(metadata=ORIGINAL | {ROPE + "attn_factor": MSCALE}), "rope_factors_long.weight are missing"),
    "longrope": (dict(metadata={ROPE + "type": "longrope"}), "type is longrope"),
    "su": (dict(metadata={ROPE + "type": "su"}), "type is su"),
    "original is text": (dict(metadata={ROPE + "original_context_length": "64"}), "original_context_length '64'"),
    "one tensor": (dict(metadata=ORIGINAL, extra=factors()[:1]), "rope_factors_short.weight is the only"),
    "the other tensor": (dict(metadata=ORIGINAL, extra=factors()[1:]), "rope_factors_long.weight is the only"),
    "no original length": (dict(extra=factors()), "original_context_length is missing"),
    "linear without a factor": (dict(metadata={ROPE + "type": "linear"}), "rope_scaling type 'linear'"),
}


@pytest.mark.parametrize("case", MISSING)
def test_GG1_metadata_that_imply_factors_which_are_missing(tmp_path, case):
    how, told = MISSING[case]
    assert told in refusal(tmp_path, **how)


CONTRADICTIONS = {  # metadata that contradict tensors or each other, or change what is computed
    "yarn": (dict(metadata={ROPE + "type": "yarn", ROPE + "factor": 4.0}), "rope_scaling type 'yarn'"),
    "yarn beside factors": (dict(metadata=ORIGINAL | {ROPE + "type": "yarn"}, extra=factors()), "type 'yarn'"),
    "linear": (dict(metadata={ROPE + "type": "linear", ROPE + "factor": 4.0}), "type 'linear'"),
    "bare factor": (dict(metadata={ROPE + "factor": 4.0}), "rope.scaling.factor 4.0 stretches positions"),
    "old linear scale": (dict(metadata={"phi3.rope.scale_linear": 2.0}), "rope.scale_linear 2.0"),
    "another factor": (
        dict(metadata=ORIGINAL | {ROPE + "type": "longrope", ROPE + "factor": 8.0}, extra=factors()),
        "factor 8.0 is not context_length 2048 / original_context_length 64",
    ),
    "too few factors": (dict(metadata=ORIGINAL, extra=factors(24)), "short_factor must be 32 numbers"),
    "factors of two lengths": (dict(metadata=ORIGINAL, extra=factors(32, 24)), "long_factor must be 32 numbers"),
    "factors in two rows": (
        dict(metadata=ORIGINAL, extra=[(n, a.reshape(2, -1)) for n, a in factors()]),
        "not a list of F32",
    ),
    "factors as halves": (
        dict(metadata=ORIGINAL, extra=[(n, a.astype(np.float16)) for n, a in factors()]),
        "rope_factors_short.weight is F16",
    ),
    "factor zero": (dict(metadata=ORIGINAL, extra=[(n, a * 0) for n, a in factors()]), "short_factor must be a number"),
    "mscale zero": (dict(metadata=ORIGINAL | {ROPE + "attn_factor": 0.0}, extra=factors()), "attention_factor must be"),
    "rotary beyond the head": (dict(metadata={"phi3.rope.dimension_count": 66}), "dimension_count 66"),
    "rotary zero": (dict(metadata={"phi3.rope.dimension_count": 0}), "dimension_count 0"),
    "rotary a fraction": (dict(metadata={"phi3.rope.dimension_count": 0.75}), "dimension_count 0.75"),
    "rotary odd": (dict(metadata={"phi3.rope.dimension_count": 31}), "must be even"),
    "rotary against factors": (
        dict(metadata=ORIGINAL | {"phi3.rope.dimension_count": 48}, extra=factors()),
        "short_factor must be 24 numbers",
    ),
    "experts": (dict(metadata={"phi3.expert_count": 16}), "phi3.expert_count 16 is not supported"),
    "experts used": (dict(metadata={"phi3.expert_used_count": 2}), "phi3.expert_used_count 2"),
    "key length": (dict(metadata={ATTENTION + "key_length": 32}), "tensors do not fit|dimension_count 64"),
    "value length": (dict(metadata={ATTENTION + "value_length": 32}), "value_length 32 is not the width of a key, 64"),
    "vocabulary": (dict(metadata={"phi3.vocab_size": 384}), "vocab_size 384 is not the 320 rows"),
    "layers": (dict(metadata={"phi3.block_count": 3}), "6 missing"),
    "fewer layers": (dict(metadata={"phi3.block_count": 1}), "6 unexpected"),
    "heads": (dict(metadata={ATTENTION + "head_count": 8}), "dimension_count 64|tensors do not fit"),
    "kv heads missing": (dict(metadata={ATTENTION + "head_count_kv": None}), "blk.0.attn_qkv.weight"),
    "kv heads by layer": (dict(metadata={ATTENTION + "head_count_kv": [2, 4]}), "differs between layers"),
    "kv heads of three layers": (dict(metadata={ATTENTION + "head_count_kv": [2, 2, 2]}), "lists 3 layers"),
    "feed forward": (dict(metadata={"phi3.feed_forward_length": 128}), "blk.0.ffn_up.weight"),
    "window": (dict(metadata={ATTENTION + "sliding_window": -1.0}), "sliding_window must be a whole number"),
    "not causal": (dict(metadata={ATTENTION + "causal": False}), "attention.causal False"),
    "softcapping": (dict(metadata={"phi3.attn_logit_softcapping": 50.0}), "attn_logit_softcapping 50.0"),
    "logit scale": (dict(metadata={"phi3.logit_scale": 0.5}), "logit_scale 0.5"),
    "an adapter": (dict(metadata={"general.type": "adapter"}), "general.type 'adapter'"),
    "an importance matrix": (dict(metadata={"general.type": "imatrix"}), "general.type 'imatrix'"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_GG2_metadata_that_contradict(tmp_path, case):
    how, told = CONTRADICTIONS[case]
    message = refusal(tmp_path, **how)
    assert any(word in message for word in told.split("|")), message


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"rope.scaling.attn_factor": 1.5}, "rope.scaling.attn_factor is 1.5: rope scaling is not supported for llama"),
        ({"rope.scaling.original_context_length": 64}, "beyond llama.rope.scaling.original_context_length 64"),
        ({"rope.scaling.type": "longrope"}, "not supported for llama"),
        ({"rope.scaling.factor": 8.0}, "stretches positions"),
        ({"attention.sliding_window": 512}, "sliding_window 512 is less than the context 2048"),
        ({"rope.dimension_count": 32}, "partial_rotary_factor"),
    ],
)
def test_GG2_a_llama_file_that_asks_for_more_than_llama_has(tmp_path, metadata, told):
    assert told in refusal(tmp_path, "Llama", metadata={f"llama.{key}": value for key, value in metadata.items()})


OPENED = {  # what says nothing new is no reason to refuse
    "original is the context": {ROPE + "original_context_length": 2048},
    "original is longer": {ROPE + "original_context_length": 4096},
    "attention factor one": {ROPE + "attn_factor": 1.0},
    "no scaling": {ROPE + "type": "none"},
    "linear by one": {ROPE + "type": "linear", ROPE + "factor": 1.0},
    "no window": {ATTENTION + "sliding_window": 0},
    "a window as long as the context": {ATTENTION + "sliding_window": 262144},
    "no experts": {"phi3.expert_count": 0, "phi3.expert_used_count": 0},
    "kv heads by layer, all equal": {ATTENTION + "head_count_kv": [2, 2]},
    "width of a head": {ATTENTION + "key_length": 64, ATTENTION + "value_length": 64},
    "vocabulary": {"phi3.vocab_size": 320},
    "a model": {"general.type": "model"},
    "no padding": {"tokenizer.ggml.padding_token_id": 0xFFFFFFFF},
}


@pytest.mark.parametrize("case", OPENED)
def test_GG2_metadata_that_say_nothing_new_open(tmp_path, case, caplog):
    found = opened(tmp_path, metadata=OPENED[case])
    assert found.short_factor is None and found.num_kv_heads == 2 and found.rotary_dim == 64 and found.window is None
    assert not [record for record in caplog.records if "factor" in record.getMessage()]


@pytest.fixture(scope="module")
def longrope(tmp_path_factory) -> GgufFile:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(path, config(), metadata=ORIGINAL | {ROPE + "attn_factor": MSCALE}, extra=factors())
    return GgufFile(path)


KEYS = ["general.type", "general.architecture", *(f"phi3.{key}" for key in (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size", "expert_count",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.sliding_window", "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor", "rope.scaling.original_context_length",
))]  # fmt: skip
WHOLE = st.sampled_from([-1, 0, 1, 2, 3, 31, 32, 64, 96, 2048, 1 << 31, 1 << 63])
VALUES = st.one_of(WHOLE, st.floats(), st.booleans(), st.text(max_size=9), st.lists(WHOLE, max_size=3))


@settings(deadline=None, max_examples=400)
@given(changes=st.dictionaries(st.sampled_from(KEYS), st.none() | VALUES, min_size=1, max_size=3))
def test_GG2_any_value_of_any_key_is_refused_or_read(longrope, changes):
    """Never another error, and never a config that is not what the metadata say."""
    whole = {key: value for key, value in (longrope.metadata | changes).items() if value is not None}
    file = SimpleNamespace(metadata=whole, tensors=longrope.tensors, raw=longrope.raw)
    try:
        found = gguf_config(file, "m.gguf")
    except BadCheckpoint as error:
        assert "\n" not in str(error)
        return
    assert found.max_position_embeddings == whole["phi3.context_length"] and found.long_factor is not None
    assert found.original_max_position_embeddings == whole[ROPE + "original_context_length"]
    assert found.rotary_dim == whole.get("phi3.rope.dimension_count", found.head_dim) == 64
    assert found.rope_theta == whole.get("phi3.rope.freq_base", 10000.0)
    if ROPE + "attn_factor" in whole:
        assert found.rope_scale == pytest.approx(whole[ROPE + "attn_factor"], rel=1e-6)


@given(head_dim=st.integers(2, 1024), data=st.data())
def test_any_rotary_width_survives_the_fraction(head_dim, data):
    rotary = data.draw(st.integers(1, head_dim))
    meta = {"phi3.attention.key_length": head_dim, "phi3.rope.dimension_count": rotary}
    assert int(head_dim * _head_fields(meta, "phi3", None, None)["partial_rotary_factor"]) == rotary


# ---- Phi-4-mini's own shapes

OWN = Config.phi4_mini()


def sparse_phi4_mini(path: Path, metadata: dict[str, Any], numbers: Config = OWN) -> Path:
    """A GGUF of Phi-4-mini's shapes, without rope factors, whose weights are a hole in the file."""
    writer = gguf.GGUFWriter(path, "phi3")
    base = {f"{ROPE}original_context_length": 4096, f"{ATTENTION}sliding_window": 262144}
    for key, value in (_metadata(numbers) | base | metadata).items():
        if value is not None:
            _add(writer, key, value)
    total = 0
    for part in (part for some in tensor_names.parts(numbers, "gguf").values() for part in some):
        kind = gguf.GGMLQuantizationType["Q4_0" if len(part.shape) > 1 else "F32"]
        nbytes = int(np.prod(part.shape)) * 18 // 32 if len(part.shape) > 1 else part.shape[0] * 4
        writer.add_tensor_info(part.name, part.shape, np.dtype(np.float32), nbytes, raw_dtype=kind)
        total += -(-nbytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size + total + 64)
    return path


@pytest.mark.parametrize(
    "metadata",
    [
        {},  # what a conversion from a transformers 5 folder leaves
        {ROPE + "attn_factor": 1.1902380714238083},
        {ROPE + "type": "longrope"},
        {ROPE + "original_context_length": None},
        {ROPE + "type": "longrope", ROPE + "factor": 32.0},
    ],
)
def test_GG3_phi4_mini_without_its_factors_gets_them(tmp_path, caplog, metadata):
    path = sparse_phi4_mini(tmp_path / "phi.gguf", metadata)
    with caplog.at_level(logging.WARNING):
        found = open_gguf(path).config
    assert (found.short_factor, found.long_factor) == (OWN.short_factor, OWN.long_factor)
    assert found.original_max_position_embeddings == 4096 and found.rope_scale == OWN.rope_scale
    for rope in ("short", "long"):
        np.testing.assert_array_equal(found.inv_freq(rope), OWN.inv_freq(rope))
    told = [record.getMessage() for record in caplog.records if "factors" in record.getMessage()]
    assert len(told) == 1 and "phi.gguf: there are no rope factors" in told[0] and "Phi-4-mini's factors" in told[0]


OTHER_SHAPES = {
    "context": dict(max_position_embeddings=65536),
    "theta": dict(rope_theta=500000.0),
    "layers": dict(num_layers=31),
    "width": dict(hidden_size=3200, head_dim=128),
    "vocabulary": dict(vocab_size=200192),
    "feed forward": dict(intermediate_size=8224),
    "kv heads": dict(num_kv_heads=6),
    "rotary width": dict(rotary_dim=128),
    "rotary half": dict(rotary_dim=64),
}


@pytest.mark.parametrize("case", [*OTHER_SHAPES, "original", "mscale"])
def test_GG3_a_relative_of_phi4_mini_does_not_get_them(tmp_path, case):
    changes = OTHER_SHAPES.get(case, {})
    rotary = changes.get("rotary_dim", 96)
    numbers = replace(OWN, short_factor=(1.0,) * (rotary // 2), long_factor=(1.0,) * (rotary // 2), **changes)
    metadata = {"original": {ROPE + "original_context_length": 8192}, "mscale": {ROPE + "attn_factor": 1.5}}.get(
        case, {}
    )
    if "head_dim" in changes:
        metadata = {ATTENTION + "key_length": 128, ATTENTION + "value_length": 128}
    with pytest.raises(BadCheckpoint, match=r"phi\.gguf: phi3\..* are missing: convert again"):
        open_gguf(sparse_phi4_mini(tmp_path / "phi.gguf", metadata, numbers))
