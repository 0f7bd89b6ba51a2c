"""Names as training programs leave them: read where that is certain, named in the error where it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.checkpoints.training_names import canonical, passed_over
from tests.weights.twins import config_json

CONFIGS = {
    "phi3": Config.from_json(config_json()),
    "llama": Config.from_json(config_json("Llama", tie_word_embeddings=False)),
}
PREFIXES = [
    "_orig_mod.",
    "module.",
    "base_model.model.",
    "model.",
    "_fsdp_wrapped_module.",
    "language_model.",
    "pretrained_model.",
    "_forward_module.",
    "student.",
]


def tensors(family: str) -> list[str]:
    return list(tensor_names.inverse(CONFIGS[family], "hf"))


@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize("prefix", [*PREFIXES, "module._orig_mod.", "_orig_mod.base_model.model.", "model.model."])
def test_CK4_a_prefix_of_every_name_is_left_out_with_one_line(family, prefix, caplog):
    saved = [prefix + name for name in tensors(family)]
    assert canonical("m", saved) == dict(zip(tensors(family), saved, strict=True))
    assert len(caplog.records) == 1
    assert f"{saved[0]} is {tensors(family)[0]}" in caplog.text


@given(
    st.sampled_from(sorted(CONFIGS)),
    st.lists(st.sampled_from(PREFIXES), max_size=4),
    st.lists(st.tuples(st.sampled_from(["model", "layers", "self_attn", "mlp", "1"]), st.booleans()), max_size=3),
    st.booleans(),
)
def test_CK4_any_combination_of_wrappers_comes_off(family, prefixes, inside, backbone_alone):
    """Prefixes before all names, FSDP's and torch.compile's words within, and a backbone saved without `model.`."""

    def saved(name: str) -> str:
        words = [name.removeprefix("model.") if backbone_alone else name]
        words = words[0].split(".")
        for after, compiled in inside:
            wrapper = "_orig_mod" if compiled else "_fsdp_wrapped_module"
            words = [word for one in words for word in ([one, wrapper] if one == after else [one])]
        return "".join(prefixes) + ".".join(words)

    ours = tensors(family)
    assert canonical("m", map(saved, ours)) == {name: saved(name) for name in ours}


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_names_as_they_should_be_are_left_alone(family, caplog):
    assert canonical("m", tensors(family)) == {name: name for name in tensors(family)}
    assert not caplog.records


@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize("prefix", PREFIXES)
def test_CK4_a_prefix_that_only_some_names_have_is_left_for_the_error(family, prefix, caplog):
    saved = [prefix + name for name in tensors(family)]
    saved[-1] = "vision.weight"
    found = canonical("m", saved)
    assert found["vision.weight"] == "vision.weight"
    if prefix not in ("_orig_mod.", "_fsdp_wrapped_module.", "_forward_module."):
        assert found == {name: name for name in saved} and not caplog.records


def test_CK4_names_that_would_become_one_are_refused():
    both = [*tensors("phi3"), "model.norm._orig_mod.weight"]
    with pytest.raises(BadCheckpoint, match=r"^m: 'model\.norm\.weight' and 'model\.norm\._orig_mod\.weight' are both"):
        canonical("m", both)


def test_two_embeddings_leave_the_names_alone(caplog):
    saved = [*(f"a.{name}" for name in tensors("phi3")), *(f"b.{name}" for name in tensors("phi3"))]
    assert canonical("m", saved) == {name: name for name in saved}


O_PROJ = "model.layers.0.self_attn.o_proj"
UNMERGED = [
    f"{O_PROJ}.base_layer.weight",
    f"{O_PROJ}.lora_A.default.weight",
    f"{O_PROJ}.lora_B.default.weight",
    f"{O_PROJ}.lora_A.weight",
    f"base_model.model.{O_PROJ}.lora_B.weight",
    f"base_model.model.{O_PROJ}.base_layer.weight",
    f"{O_PROJ}.lora_magnitude_vector.default.weight",
    "model.embed_tokens.lora_embedding_A.default",
    "model.embed_tokens.modules_to_save.default.weight",
    "base_model.model.lm_head.modules_to_save.weight",
    f"{O_PROJ}.base_layer.qweight",
]


@pytest.mark.parametrize("name", UNMERGED)
def test_CK3_an_adapter_that_is_not_merged_is_named(name):
    with pytest.raises(BadCheckpoint, match=r"belongs to an adapter that is not merged; .*merge_and_unload") as caught:
        canonical("m", [*tensors("phi3"), name])
    assert name[:40] in str(caught.value)


@pytest.mark.parametrize("name", ["score.weight", "model.score.weight", "classifier.weight", "qa_outputs.bias"])
@pytest.mark.parametrize("prefix", ["", "base_model.model.", "module."])
def test_CK3_a_classifier_is_named(name, prefix):
    with pytest.raises(BadCheckpoint, match="is the head of a classifier; a language model is needed"):
        canonical("m", [prefix + one for one in (*tensors("phi3"), name)])


@pytest.mark.parametrize(
    "name",
    [
        "rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.31.self_attn.rotary_emb.inv_freq",
    ],
)
def test_CK10_rotary_tables_are_passed_over_quietly(name, caplog):
    assert passed_over("m", [*tensors("llama"), name]) == {name} and not caplog.records


def test_CK10_a_value_head_is_passed_over_with_a_line(caplog):
    heads = {"v_head.summary.weight", "v_head.summary.bias"}
    assert passed_over("m", [*tensors("phi3"), *heads]) == heads
    assert len(caplog.records) == 1 and "v_head.summary.bias is a value head" in caplog.text
    saved = [*(f"pretrained_model.{name}" for name in tensors("phi3")), *heads]
    assert set(canonical("m", saved)) == {*tensors("phi3"), *heads}
