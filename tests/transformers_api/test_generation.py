"""GenerationConfig: what a call is told wins over its config, that over the model's own."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini import AutoModelForCausalLM, GenerationConfig, set_seed
from phi4mini.errors import BadInput
from phi4mini.transformers_api.generation import _Seeds, layered
from tests import tiny_chat

PROMPT = [39, 293, 75, 78]
FIELDS = {
    "temperature": st.floats(0.1, 2.0),
    "top_k": st.integers(1, 9),
    "do_sample": st.booleans(),
    "repetition_penalty": st.floats(0.5, 2.0),
    "pad_token_id": st.integers(0, 9),
    "seed": st.integers(0, 9),
}
SAID = st.fixed_dictionaries({}, optional=FIELDS)


@settings(deadline=None)
@given(SAID, SAID, SAID)
def test_TF10_the_nearest_that_speaks_is_heard(own, config, call):
    for given_config in (config, GenerationConfig(**config), GenerationConfig.from_dict(config)):
        heard = layered(GenerationConfig(**own), given_config, call | {"top_p": None})
        assert heard == own | config | call


@pytest.mark.parametrize(
    ("own", "config", "call", "heard"),
    [
        ({"max_length": 99}, {}, {"max_new_tokens": 3}, {"max_new_tokens": 3}),
        ({"max_new_tokens": 99}, {}, {"max_length": 30}, {"max_length": 30}),
        ({"max_new_tokens": 99}, {"max_length": 30}, {}, {"max_length": 30}),
        ({"max_length": 99}, {"max_new_tokens": 5}, {}, {"max_new_tokens": 5}),
        ({"max_length": 99}, {"max_new_tokens": 5}, {"max_new_tokens": 7}, {"max_new_tokens": 7}),
        ({"max_length": 99}, {}, {}, {"max_length": 99}),
        ({"min_length": 9}, {}, {"min_new_tokens": 2}, {"min_new_tokens": 2}),
        ({"min_new_tokens": 9}, {"min_length": 2}, {}, {"min_length": 2}),
        ({"max_length": 9}, {"min_length": 2}, {}, {"max_length": 9, "min_length": 2}),
        ({}, {}, {"max_length": 9, "max_new_tokens": 2}, {"max_length": 9, "max_new_tokens": 2}),
    ],
)
def test_TF10_of_two_lengths_the_nearest_is_heard(own, config, call, heard):
    assert layered(GenerationConfig(**own), config, call) == heard


def test_TF10_a_config_in_every_form(model, folder):
    two = GenerationConfig(max_new_tokens=2)
    assert two.max_new_tokens == 2 and two.temperature is None
    assert two == GenerationConfig.from_dict({"max_new_tokens": 2})
    assert json.loads(two.to_json_string()) == two.to_dict() == two.to_diff_dict() == {"max_new_tokens": 2}
    assert copy.deepcopy(two) == two and two != GenerationConfig() and "max_new_tokens" in repr(two)
    assert two.update(max_new_tokens=3, unknown=1) == {"unknown": 1} and two.max_new_tokens == 3
    assert model.generate([PROMPT], generation_config=two).shape == (1, 7)
    assert model.generate([PROMPT], generation_config={"max_new_tokens": 1}).shape == (1, 5)
    assert model.generate([PROMPT], generation_config=two, max_new_tokens=1).shape == (1, 5)
    model.generation_config.max_new_tokens = 4
    assert model.generate([PROMPT]).shape == (1, 8)
    found = GenerationConfig.from_pretrained(str(folder), max_new_tokens=8)
    assert (found.eos_token_id, found.pad_token_id, found.max_new_tokens) == ([321, 319], 319, 8)
    assert model.generation_config.eos_token_id == [321, 319]
    for wrong in ({"num_beams": 4}, {"bogus": 1}, {"penalty_alpha": 0.6}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            GenerationConfig(**wrong)
        with pytest.raises(BadInput, match=next(iter(wrong))):
            setattr(two, *next(iter(wrong.items())))
    with pytest.raises(BadInput, match="generation_config"):
        model.generate([PROMPT], generation_config=3)


def test_TF10_a_checkpoints_own_defaults_hold_and_what_is_not_here_is_said(home, caplog):
    folder = tiny_chat.write(home / "samples")
    said = {"do_sample": True, "temperature": 5.0, "top_k": 9, "num_beams": 4, "max_window_size": 6, "max_length": 7}
    ends = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(ends | said | {"transformers_version": "5.0"}))
    model = AutoModelForCausalLM.from_pretrained(str(folder), torch_dtype="float32")
    lines = [record.getMessage() for record in caplog.records if "generation_config.json" in record.getMessage()]
    assert len(lines) == 2 and "num_beams" in lines[0] and "max_window_size" in lines[1]
    drawn = {tuple(model.generate([PROMPT], seed=seed)[0].tolist()) for seed in range(4)}
    assert len(drawn) > 1 and {len(row) for row in drawn} == {7}
    greedy = model.generate([PROMPT], do_sample=False, max_new_tokens=9)
    assert (model.generate([PROMPT], do_sample=False, max_new_tokens=9) == greedy).all() and greedy.shape == (1, 13)
    model.llm.close()


def test_set_seed_makes_drawn_answers_come_again(model, monkeypatch):
    monkeypatch.setattr(_Seeds, "source", None)
    drawn = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 8}

    def two():
        return [model.generate([PROMPT], **drawn).tolist() for _ in range(2)]

    set_seed(7)
    first = two()
    set_seed(7)
    assert two() == first and first[0] != first[1] and two() != first
    with pytest.raises(BadInput, match="seed"):
        set_seed("7")
