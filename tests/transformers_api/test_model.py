"""A call for logits and loss, and the small methods that scripts call on a model."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini import BitsAndBytesConfig
from phi4mini.errors import BadInput


def test_TF5_a_call_takes_what_the_tokenizer_gives(model, tok):
    one = tok("Hello you", return_tensors="np")
    out = model(**one)
    assert out.logits.shape == (1, one.input_ids.shape[1], 330) and out.logits.dtype == np.float32
    assert (out.logits[0] == model.llm.logits(one.input_ids[0])).all()
    relatives = {
        "ids": model(one.input_ids),
        "one row": model(one.input_ids[0]),
        "a list": model(one.input_ids.tolist()),
        "lists of the tokenizer": model(**tok("Hello you")),
        "by name": model(input_ids=one.input_ids),
        "no mask": model(input_ids=one.input_ids, attention_mask=None),
        "no cache": model(**one, use_cache=False),
        "as a tuple": model(**one, return_dict=False),
        "one of two": model(np.repeat(one.input_ids, 2, 0)),
        "all kept": model(**one, logits_to_keep=0),
    }
    for name, other in relatives.items():
        assert (other.logits[:1] == out.logits).all(), name
        assert (other["logits"][0] == other[0][0]).all() and other.to_tuple()[0] is other.logits
    assert (model(**one, logits_to_keep=1).logits == out.logits[:, -1:]).all() and out.loss is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_TF5_padding_is_left_out_of_logits(model, tok, side):
    texts = ["Hello", "Hi you there", "a"]
    padded = tok(texts, padding=True, padding_side=side, return_tensors="np")
    logits = model(**padded).logits
    for i, text in enumerate(texts):
        real = padded.attention_mask[i].astype(bool)
        assert (logits[i, real] == model(**tok(text)).logits[0]).all() and not logits[i, ~real].any()


def test_TF5_a_loss_is_the_mean_over_labels(model, tok):
    ids = tok("Hi you there", return_tensors="np").input_ids
    logits = model(ids).logits[0].astype(np.float64)
    chances = -(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[np.arange(len(logits) - 1), ids[0, 1:]]
    assert abs(model(ids, labels=ids).loss - chances.mean()) < 1e-5
    some = np.where(np.arange(ids.shape[1]) < 3, -100, ids[0])[None]
    assert abs(model(ids, labels=some).loss - chances[2:].mean()) < 1e-5
    assert np.isnan(model(ids, labels=np.full_like(ids, -100)).loss)
    for wrong in (ids[:, 1:], np.full_like(ids, 330), np.full_like(ids, -1)):
        with pytest.raises(BadInput, match="labels"):
            model(ids, labels=wrong)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "input_ids"),
        ({"input_ids": [[1], [2, 3]]}, "padding=True"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "attention_mask"),
        ({"input_ids": "text"}, "ids"),
        ({"input_ids": [[1]], "output_attentions": True}, "output_attentions"),
        ({"input_ids": [[1]], "output_hidden_states": True}, "output_hidden_states"),
        ({"input_ids": [[1]], "past_key_values": ()}, "past_key_values"),
        ({"input_ids": [[1]], "inputs_embeds": np.zeros(3)}, "inputs_embeds"),
        ({"input_ids": [[1]], "position_ids": [[0]]}, "position_ids"),
        ({"input_ids": [[1]], "bogus": 1}, "bogus"),
    ],
)
def test_TF5_what_a_call_cannot_do_is_said(model, arguments, said):
    with pytest.raises(BadInput, match=said):
        model(**arguments)


def test_TF16_the_small_methods(model):
    for same in (model.eval(), model.to("cpu"), model.to(model.device), model.cpu(), model.float(), model.train(False)):
        assert same is model
    assert model.requires_grad_(False) is model and model.training is False
    assert (model.device, model.device.type, str(model.device)) == ("cpu", "cpu", "cpu")
    assert str(model.dtype).endswith("float32") and model.get_memory_footprint() > model.num_parameters()
    assert model.num_parameters() - model.num_parameters(exclude_embeddings=True) == 330 * 128
    for wrong in (lambda: model.to("cuda"), model.train, lambda: model.to(dtype="float16"), lambda: model.half):
        with pytest.raises(BadInput):
            wrong()
    with pytest.raises(BadInput, match="q4"):
        BitsAndBytesConfig(load_in_4bit=True)
