"""Config: Phi-4-mini's numbers, every spelling of config.json, every lie, LongRoPE's rule and tables."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mini.errors import BadCheckpoint, BadInput
from phi4mini.model.config import Config
from tests.shared import SHARED, needs_shared

EPS = 2.0**-24  # half a unit in the last place of a float32 near 1

PHI35: dict[str, Any] = {  # Phi-3.5-mini-instruct: longrope over all 96 dimensions of a head, its own head matrix
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "long_factor": [1.08 + j for j in range(48)],
        "short_factor": [1.0 + j / 50 for j in range(48)],
        "type": "longrope",
    },
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": False,
    "vocab_size": 32064,
}
PHI3_4K = {k: v for k, v in PHI35.items() if k != "rope_scaling"} | {
    "max_position_embeddings": 4096,
    "sliding_window": 2047,
    "rope_scaling": None,
}
LLAMA: dict[str, Any] = {  # SmolLM2-135M-Instruct
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}


@needs_shared
def test_phi4_mini_is_what_its_files_say() -> None:
    facts = SHARED / "facts"
    config = json.loads((facts / "config.json").read_text())
    generation = json.loads((facts / "generation_config.json").read_text())
    assert Config.from_json(config, generation) == Config.phi4_mini()


def test_phi4_mini_sizes() -> None:
    config = Config.phi4_mini()
    assert config.num_parameters == 3_836_021_760  # the index's total_size / 2 bytes
    assert (config.qkv_rows, config.q_rows, config.kv_rows, config.group_size) == (5120, 3072, 1024, 3)
    assert config.layer_shapes["gate_up"] == (16384, 3072)
    assert config.matrix_elements_per_token == config.num_parameters - 65 * 3072  # all but the norms
    assert config.kv_bytes_per_token("f32") == 2 * 32 * 8 * 128 * 4
    assert config.kv_bytes_per_token("int8") == 32 * 8 * (2 * 128 + 8)
    assert config.flops_per_token(1000) - config.flops_per_token(0) == 4 * 32 * 24 * 128 * 1000
    assert config.window is None  # 262144 is beyond the longest context


def test_stop_ids_come_from_both_files() -> None:
    stops = Config.from_json(PHI35, {"eos_token_id": [32007, 32001, 32000]}).eos_token_ids
    assert stops == (32007, 32001, 32000)
    assert Config.from_json(PHI35, {"eos_token_id": 32007}).eos_token_ids == (32007, 32000)
    assert Config.from_json(PHI35).eos_token_ids == (32000,)
    assert Config.from_json(PHI35 | {"eos_token_id": None}).eos_token_ids == ()


def test_phi35() -> None:
    config = Config.from_json(PHI35)
    assert (config.head_dim, config.rotary_dim, config.group_size) == (96, 96, 1)
    assert config.short_factor is not None and len(config.short_factor) == 48
    assert not config.tie_word_embeddings
    assert config.rope_scale == pytest.approx(math.sqrt(17 / 12), rel=1e-15)


def test_phi3_4k_has_plain_rope_and_a_live_window() -> None:
    config = Config.from_json(PHI3_4K)
    assert config.rope_boundary is None and config.rope_scale == 1.0
    assert config.window == config.sliding_window == 2047
    assert config.rope_set(100_000) == config.rope_set(100_000, "long") == "short"
    assert config.flops_per_token(4000) == config.flops_per_token(2047)


def test_llama() -> None:
    config = Config.from_json(LLAMA)
    assert (config.architecture, config.head_dim, config.rotary_dim, config.rope_theta) == ("llama", 64, 64, 100000)
    assert config.num_parameters == 134_515_008
    assert Config.from_json(LLAMA | {"head_dim": 128}).q_rows == 9 * 128


def test_keys_that_may_be_absent() -> None:
    lean = {k: v for k, v in LLAMA.items() if k not in ("rms_norm_eps", "rope_theta", "num_key_value_heads")}
    config = Config.from_json(lean | {"architectures": None})
    assert (config.rms_norm_eps, config.rope_theta, config.num_kv_heads) == (1e-6, 10000.0, 9)


@pytest.mark.parametrize("name", ["longrope", "su", "yarn"])
def test_every_name_of_longrope(name: str) -> None:
    assert Config.from_json(PHI35 | {"rope_scaling": PHI35["rope_scaling"] | {"type": name}}) == Config.from_json(PHI35)


def test_transformers_5_spelling() -> None:
    old = PHI35 | {"partial_rotary_factor": 0.5}
    old["rope_scaling"] = {"type": "longrope", "short_factor": [1.0] * 24, "long_factor": [2.0] * 24}
    new = {k: v for k, v in old.items() if k not in ("rope_scaling", "rope_theta", "partial_rotary_factor")}
    new["rope_parameters"] = {
        **old["rope_scaling"],
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 4096,
    }
    assert Config.from_json(new) == Config.from_json(old)
    plain = {k: v for k, v in LLAMA.items() if k not in ("rope_scaling", "rope_theta")}
    plain["rope_parameters"] = {"rope_type": "default", "rope_theta": 100000}
    assert Config.from_json(plain) == Config.from_json(LLAMA)


def test_a_stated_scale_wins() -> None:
    stated = Config.from_json(PHI35 | {"rope_scaling": PHI35["rope_scaling"] | {"attention_factor": 1.25}})
    assert stated.rope_scale == 1.25
    stretched = Config.from_json(PHI35 | {"rope_scaling": PHI35["rope_scaling"] | {"factor": 16.0}})
    assert stretched.rope_scale == pytest.approx(math.sqrt(1 + 4 / 12), rel=1e-15)
    shrunk = Config.from_json(PHI35 | {"max_position_embeddings": 2048})
    assert shrunk.rope_scale == 1.0


def test_rope_set_flips_after_the_original_length() -> None:
    config = Config.phi4_mini()
    assert [config.rope_set(n) for n in (1, 4095, 4096, 4097, 131072)] == ["short", "short", "short", "long", "long"]
    assert config.rope_set(10, "long") == "long" and config.rope_set(9999, "short") == "short"
    assert config.rope_boundary == 4096
    with pytest.raises(BadInput, match="auto, short or long"):
        config.rope_set(10, "medium")  # type: ignore[arg-type]


@needs_shared
@pytest.mark.parametrize("rope_set", ["short", "long"])
def test_inverse_frequencies_match_the_golden_ones(rope_set: Any) -> None:
    golden = json.loads((SHARED / "facts" / "longrope-golden.json").read_text())
    got, want = Config.phi4_mini().inv_freq(rope_set), np.array(golden[f"inv_freq_{rope_set}"])
    # Rounded to float32: the exponent (worth EPS * exponent * ln theta of the power), the power, the factor, their
    # product, the reciprocal.
    limit = EPS * (4 + math.log(10000.0)) * want
    assert got.dtype == np.float32 and (np.abs(got - want) <= limit).all()
    assert Config.phi4_mini().rope_scale == golden["attention_scaling"]


@needs_shared
def test_rope_tables_match_the_golden_ones() -> None:
    golden = json.loads((SHARED / "facts" / "longrope-golden.json").read_text())
    config, scale = Config.phi4_mini(), golden["attention_scaling"]
    for sample in golden["samples"]:
        position, kind = sample["pos"], sample["set"]
        angle = position * np.array(golden[f"inv_freq_{kind}"])
        # The angle carries the error of inv_freq (above) and its own rounding; a wrong angle moves cos and sin by as
        # much at most, and the result is rounded twice more.
        limit = scale * (EPS * (5 + math.log(10000.0)) * angle + 3 * EPS)
        cos, sin = config.rope_table(np.array([position]), kind)
        assert cos.shape == sin.shape == (1, 48) and cos.dtype == sin.dtype == np.float32
        assert (np.abs(cos[0] - np.array(sample["cos"])[:48]) <= limit).all()
        assert (np.abs(sin[0] - np.array(sample["sin"])[:48]) <= limit).all()


def test_rope_table_of_a_far_position_uses_the_float32_angle() -> None:
    config = Config.phi4_mini()
    angle = np.float32(131071) * config.inv_freq("long")
    cos, _ = config.rope_table(np.array([3, 131071]), "long")
    want = np.cos(angle.astype(np.float64)) * config.rope_scale
    assert np.abs(cos[1] - want).max() <= config.rope_scale * 3 * EPS


def test_our_own_form_comes_back() -> None:
    for config in (Config.phi4_mini(), Config.from_json(PHI3_4K), Config.from_json(LLAMA)):
        assert Config.from_store_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_layers": -1}, "num_hidden_layers must be a whole number from 1 to 1024, got -1"),
        ({"color": 1}, "'color' is not a field"),
        ({"eos_token_ids": 3}, "eos_token_ids must be a list"),
        ({"architecture": "gpt"}, "'gpt' is not phi3 or llama"),
        ({"long_factor": None}, "needs both"),
        ({"short_factor": "11"}, "short_factor must be 48 numbers"),
        ({"rotary_dim": 130, "head_dim": 128}, "more than head_dim 128"),
    ],
)
def test_a_lying_store_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadCheckpoint, match=said):
        Config.from_store_json(Config.phi4_mini().to_json() | change)


def test_a_store_with_a_missing_field_is_refused() -> None:
    fields = Config.phi4_mini().to_json()
    del fields["head_dim"]
    with pytest.raises(BadCheckpoint, match="head_dim is missing"):
        Config.from_store_json(fields)


WHOLE = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "sliding_window",
]


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("lie", [-1, 0, True, 1.0, "32", [32], 10**12, float("nan"), float("inf")])
def test_whole_numbers_are_checked(key: str, lie: object) -> None:
    with pytest.raises(BadCheckpoint, match=rf"{key} must be a whole number from \d+ to \d+, got") as caught:
        Config.from_json(PHI35 | {key: lie})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [*WHOLE[:5], "max_position_embeddings"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(BadCheckpoint, match=f"the key {key} is missing"):
        Config.from_json({k: v for k, v in PHI35.items() if k != key})


FACTOR_LIES = [-1.0, 0, math.nan, math.inf, -math.inf, True, "1", None, 1e9, 10**400]


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta", "partial_rotary_factor"])
@pytest.mark.parametrize("lie", [-1.0, 0, math.nan, math.inf, True, "1", 1e13])
def test_numbers_are_checked(key: str, lie: object) -> None:
    with pytest.raises(BadCheckpoint, match=f"{key} must be a number above 0 and at most"):
        Config.from_json(PHI35 | {key: lie})


@pytest.mark.parametrize("key", ["short_factor", "long_factor"])
@pytest.mark.parametrize("lie", FACTOR_LIES)
def test_factors_are_checked(key: str, lie: object) -> None:
    with pytest.raises(BadCheckpoint, match=f"{key} must be a number above 0 and at most 1e\\+06"):
        Config.from_json(PHI35 | {"rope_scaling": PHI35["rope_scaling"] | {key: [1.0] * 47 + [lie]}})


@pytest.mark.parametrize("key", ["short_factor", "long_factor"])
@pytest.mark.parametrize("lie", [[], [1.0] * 47, [1.0] * 49, 1.0, None, {"a": 1}])
def test_factor_lists_have_the_right_length(key: str, lie: object) -> None:
    with pytest.raises(BadCheckpoint, match=f"{key} must be 48 numbers|needs both"):
        Config.from_json(PHI35 | {"rope_scaling": PHI35["rope_scaling"] | {key: lie}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_attention_heads": 31}, "hidden_size 3072 is not a multiple of num_attention_heads 31"),
        ({"num_key_value_heads": 5}, "num_attention_heads 32 is not a multiple of num_key_value_heads 5"),
        ({"num_key_value_heads": 64}, "num_attention_heads 32 is not a multiple of num_key_value_heads 64"),
        ({"head_dim": 95, "rope_scaling": None}, "head_dim 95 and rotary_dim 95 must be even"),
        ({"partial_rotary_factor": 0.7, "rope_scaling": None}, "rotary_dim 67 must be even"),
        ({"partial_rotary_factor": 0.75}, "short_factor must be 36 numbers .* got 48"),
        ({"partial_rotary_factor": 0.001}, "rotary_dim must be a whole number from 2"),
        ({"original_max_position_embeddings": 1}, "at least 2"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; only silu is"),
        ({"hidden_act": None}, "hidden_act None is not supported"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"lm_head_bias": True}, "lm_head_bias True is not supported"),
        ({"architectures": ["Phi3ForSequenceClassification"]}, "'Phi3ForSequenceClassification' is not supported"),
        ({"architectures": ["Phi4MMForCausalLM"]}, "'Phi4MMForCausalLM' is not supported"),
        ({"architectures": [{}]}, "architectures {} is not supported"),
        ({"architectures": None, "model_type": "qwen2"}, "model_type 'qwen2' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "type 'linear' is not supported for phi3; longrope is"),
        ({"rope_scaling": "longrope"}, "rope_scaling must be an object or null"),
        ({"rope_scaling": {"type": "longrope"}}, "the key short_factor is missing"),
        ({"rope_scaling": PHI35["rope_scaling"] | {"factor": -2}}, "scale_factor must be a number above 0"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false, got 1"),
        ({"eos_token_id": 32064}, "eos_token_id 32064 is not an id from 0 to 32063"),
        ({"eos_token_id": [[1]]}, r"eos_token_id \[1\] is not an id"),
        ({"eos_token_id": list(range(1000))}, "eos_token_id lists 1000 ids, more than the limit 256"),
        ({"bos_token_id": -1}, "bos_token_id -1 is not an id"),
        ({"pad_token_id": True}, "pad_token_id True is not an id"),
        (
            {"num_hidden_layers": 1024, "hidden_size": 65536, "intermediate_size": 1 << 20, "num_attention_heads": 1024,
             "head_dim": 96},
            "parameters are more than the limit",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadCheckpoint, match=said) as caught:
        Config.from_json(PHI35 | change)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"mlp_bias": True}, "mlp_bias True is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'llama3' is not supported for llama; no rope"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "'longrope' is not supported for llama"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported for llama"),
        ({"sliding_window": 4096}, "sliding_window 4096 is not supported for llama"),
    ],
)
def test_llama_options_that_are_not_supported(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadCheckpoint, match=said):
        Config.from_json(LLAMA | change)


@pytest.mark.parametrize("parsed", [[], None, 3, "config"])
def test_a_file_that_is_no_object_is_refused(parsed: Any) -> None:
    with pytest.raises(BadCheckpoint, match=r"config: config\.json must hold an object"):
        Config.from_json(parsed)


def test_a_generation_config_that_is_no_object_is_refused() -> None:
    with pytest.raises(BadCheckpoint, match=r"generation_config\.json must hold an object"):
        Config.from_json(PHI35, [1])  # type: ignore[arg-type]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(PHI35)), JSON_VALUES)
def test_any_value_of_any_key_is_a_config_or_one_line(key: str, value: Any) -> None:
    for base in (PHI35, LLAMA):
        try:
            config = Config.from_json(copy.deepcopy(base) | {key: value}, {key: value})
        except BadCheckpoint as error:
            assert "\n" not in str(error)
        else:
            assert config.inv_freq("short").shape == (config.rotary_dim // 2,)


def test_kv_formats_are_named() -> None:
    with pytest.raises(BadInput, match="int8 or f32"):
        Config.phi4_mini().kv_bytes_per_token("f16")  # type: ignore[arg-type]
