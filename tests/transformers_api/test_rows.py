"""`generate`: each row says what it says alone, whatever it is padded with and whoever is beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini import GenerationConfig
from phi4mini.errors import BadInput

PROMPTS = [[39, 293, 75, 78], [39, 72], [64], [257, 81, 72, 287, 13, 39, 72, 275, 71], [100] * 20]
N = {"max_new_tokens": 5}
_OPEN: list = []  # the model, for properties, which take no fixtures


@pytest.fixture(autouse=True)
def opened_here(opened):
    from phi4mini.transformers_api import CausalLM

    _OPEN[:] = [CausalLM(opened.llm)]


def alone(model, prompt, **arguments):
    return model.generate([prompt], **(N | arguments))[0][len(prompt) :].tolist()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(PROMPTS), max_size=4, min_size=1), st.booleans(), st.integers(0, 2))
def test_TF14_a_padded_batch_is_its_rows_one_by_one(prompts, left, more):
    (model,) = _OPEN
    longest = max(map(len, prompts)) + more
    spare = [longest - len(prompt) for prompt in prompts]
    rows = [[319] * n * left + p + [319] * n * (not left) for p, n in zip(prompts, spare, strict=True)]
    mask = [[0] * n * left + [1] * len(p) + [0] * n * (not left) for p, n in zip(prompts, spare, strict=True)]
    made = model.generate(input_ids=np.array(rows), attention_mask=np.array(mask), **N)
    assert made[:, :longest].tolist() == rows
    assert made[:, longest:].tolist() == [alone(model, prompt) for prompt in prompts]


def test_TF14_relatives_of_a_batch(model):
    one, two = alone(model, PROMPTS[0]), alone(model, PROMPTS[1])
    padded = [PROMPTS[0], [319, 319, *PROMPTS[1]]]
    mask = [[1] * 4, [0, 0, 1, 1]]
    assert model.generate(padded, attention_mask=mask, **N)[:, 4:].tolist() == [one, two]
    # without a mask, a pad id that ends no answer can only be padding, as in transformers; one that does is text
    assert model.generate([PROMPTS[0], [5, 5, *PROMPTS[1]]], pad_token_id=5, **N)[1, 4:].tolist() == two
    assert model.generate(padded, **N)[1, 4:].tolist() == alone(model, padded[1]) != two
    # rows that end early are filled: with what is asked for, else with the pad id
    ended = model.generate(padded, attention_mask=mask, eos_token_id=two[1], pad_token_id=9, **N)
    assert ended[1, 4:].tolist() == [*two[:2], 9, 9, 9] and ended[0, 4:].tolist() == one
    assert model.generate(padded, attention_mask=mask, eos_token_id=[two[1], 7], **N)[1, -1] == 319
    model.generation_config.pad_token_id = None
    model.config.pad_token_id = 6
    assert model.generate(padded, attention_mask=mask, eos_token_id=two[1], **N)[1, -1] == 6
    assert model.generate(PROMPTS[0], **N).shape == (1, 9)
    assert model.generate(PROMPTS[0], eos_token_id=-1, **N)[0, 4:].tolist() == one


def test_TF14_several_answers_to_one_prompt(model):
    drawn = {"do_sample": True, "temperature": 4.0, "seed": 3, **N}
    made = model.generate(PROMPTS[:1], num_return_sequences=3, **drawn)
    assert made.shape == (3, 9) and len({tuple(row) for row in made.tolist()}) == 3
    assert [row[4:] for row in made.tolist()] == [alone(model, PROMPTS[0], **drawn | {"seed": s}) for s in (3, 4, 5)]
    assert model.generate([[1, 2], [3, 4]], num_return_sequences=2, **drawn)[:, 0].tolist() == [1, 1, 3, 3]
    for wrong in ({"num_return_sequences": 2}, {"num_return_sequences": 0}, {"num_return_sequences": "2"}):
        with pytest.raises(BadInput, match="num_return_sequences"):
            model.generate(PROMPTS[:1], **wrong, **N)


def test_TF4_a_stop_string_ends_the_ids_after_it(model, tok):
    whole = alone(model, PROMPTS[3], max_new_tokens=12)
    for at in range(12):
        (piece,) = [tok.decode(whole[: at + 1])[-1:]]
        made = alone(model, PROMPTS[3], max_new_tokens=12, stop_strings=[piece, "never"], tokenizer=tok)
        first = next(n for n in range(12) if piece in tok.decode(whole[: n + 1]))
        assert made == whole[: first + 1]
        assert made == alone(model, PROMPTS[3], max_new_tokens=12, stop_strings=piece)  # our own tokenizer does
    config = GenerationConfig(stop_strings=[tok.decode(whole[:1])])
    assert alone(model, PROMPTS[3], generation_config=config) == whole[:1]


def test_TF4_lengths_and_ids_that_are_not_drawn(model):
    whole = alone(model, PROMPTS[0])
    relatives = {
        "max_length": ({"max_new_tokens": None, "max_length": 9}, whole),
        "min_length": ({"min_length": 6, "eos_token_id": whole[0]}, None),
        "min_new_tokens": ({"min_new_tokens": 2, "eos_token_id": whole[0]}, None),
        "suppressed": ({"suppress_tokens": [whole[0]]}, None),
        "bad words": ({"bad_words_ids": [[whole[0]]]}, None),
        "a penalty": ({"repetition_penalty": 1.0}, whole),
        "greedy": ({"do_sample": False, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "min_p": 0.1}, whole),
        "top_k 1": ({"do_sample": True, "top_k": 1}, whole),
        "no beams": ({"num_beams": 1, "early_stopping": True, "length_penalty": 2.0}, whole),
        "a cache": ({"use_cache": False, "cache_implementation": "static"}, whole),
    }
    for name, (arguments, wanted) in relatives.items():
        made = alone(model, PROMPTS[0], **arguments)
        assert made == wanted if wanted else made[0] != whole[0], name
    for wrong in ({"max_length": 4}, {"max_new_tokens": 0}):
        with pytest.raises(BadInput, match=r"max_"):
            model.generate(PROMPTS[:1], **wrong)


def test_TF15_scores_are_those_the_ids_were_drawn_from(model):
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    for prompt, count in ((PROMPTS[0], 5), ([*PROMPTS[4], *PROMPTS[4]], 60)):  # the second crosses LongRoPE's boundary
        out = model.generate([prompt], max_new_tokens=count, **asked)
        new = out.sequences[0, len(prompt) :]
        assert len(out.scores) == len(out.logits) == count and out.scores[0].shape == (1, 330)
        assert [int(step[0].argmax()) for step in out.scores] == new.tolist()
        chances = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
        told = model.llm.generate(prompt, max_new_tokens=count, logprobs=0).logprobs
        assert np.abs(chances[0] - [each.logprob for each in told]).max() < 1e-4
    assert (out[0] == out["sequences"]).all() and out.attentions is None and next(iter(out)) == "sequences"
    assert list(model.generate([prompt], return_dict_in_generate=True, **N)) == ["sequences"]
    two = model.generate([[1, 2], [3, 4]], **asked, **N)
    alone = model.generate([3, 4], **asked, **N)
    assert two.scores[0].shape == (2, 330) and (two.scores[4][1] == alone.scores[4][0]).all()


@pytest.mark.parametrize(
    "changing",
    [{"do_sample": True}, {"repetition_penalty": 1.2}, {"min_new_tokens": 2}, {"suppress_tokens": [3]}],
)
def test_TF15_scores_that_are_changed_are_refused(model, changing):
    asked = {"return_dict_in_generate": True, "output_scores": True}
    with pytest.raises(BadInput, match=r"output_scores.*output_logits"):
        model.generate(PROMPTS[:1], **asked, **changing, **N)
    logits = model.generate(PROMPTS[:1], return_dict_in_generate=True, output_logits=True, **changing, **N).logits
    assert (logits[0][0] == model(PROMPTS[:1]).logits[0, -1]).all()
