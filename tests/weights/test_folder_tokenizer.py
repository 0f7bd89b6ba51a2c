"""The tokenizer and the template of a model folder: which files count, in which order, and what contradicts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from phi4mini.errors import BadCheckpoint
from phi4mini.llm.run import untrained_ids
from phi4mini.tokenizer import from_bytes, to_bytes
from phi4mini.weights.checkpoints.folder import open_folder
from tests.weights.twins import CHATML, small_folder

A, B = "{# a #}" + CHATML, "{# b #}"  # a template that is known, and one that writes nothing
TEMPLATE_FILES = [  # tokenizer_config's chat_template, chat_template.jinja, chat_template.json, which one counts
    (A, None, None, "chatml"),
    (None, A, None, "chatml"),
    (B, A, None, "chatml"),
    (A, B, None, "none"),
    (A, "", None, "none"),
    ([{"name": "default", "template": A}], None, None, "chatml"),
    ([{"name": "tool_use", "template": B}, {"name": "default", "template": A}], None, None, "chatml"),
    ([{"name": "default", "template": B}, {"name": "tool_use", "template": A}], None, None, "none"),
    ([{"name": "tool_use", "template": A}], None, None, "none"),
    ([{"name": "default", "template": B}], A, None, "chatml"),
    ({"default": A, "tool_use": B}, None, None, "chatml"),
    ({"rag": A}, None, None, "none"),
    (None, A.replace("\n", "\r\n"), None, "chatml"),
    (None, A + "\r\n", None, "chatml"),
    (None, None, A, "chatml"),
    (B, None, A, "none"),
    ([], None, None, "none"),
    (7, None, None, "none"),
]


@pytest.mark.parametrize(("settings", "jinja", "processor", "expected"), TEMPLATE_FILES)
def test_TP6_templates_are_taken_in_transformers_order(tmp_path, settings, jinja, processor, expected):
    folder = small_folder(tmp_path / "m")
    tree = json.loads((folder / "tokenizer.json").read_text())
    for token, content in zip(tree["added_tokens"], ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], strict=True):
        token["content"] = content
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": settings}))
    if jinja is not None:
        (folder / "chat_template.jinja").write_bytes(jinja.encode())
    if processor is not None:
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": processor}))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(A if expected == "none" else B)
    assert open_folder(folder).chat_format == expected


def phi_folder(folder: Path, **files: object) -> Path:
    """A model of Phi-4-mini's vocabulary saved without tokenizer.json, with these JSON files beside it."""
    small_folder(folder, vocab_size=200064, hidden_size=8, eos_token_id=199999, bos_token_id=199999)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def entry(content: str, **flags: bool) -> dict[str, object]:
    return {"content": content, "special": True} | flags


OWN = {"<|endoftext|>": 199999, "<|end|>": 200020, "<|tool_call|>": 200025}
BROUGHT_TOKENS = [  # files, then id, special and rstrip of each token that must be there
    ({"added_tokens": {"<|think|>": 200029}}, {"<|think|>": (200029, False, False)}),
    ({"added_tokens": OWN | {"<|think|>": 200029}}, {"<|think|>": (200029, False, False)}),
    ({"added_tokens": {"[a]": 200030, "[b]": 200029}}, {"[a]": (200030, False, False), "[b]": (200029, False, False)}),
    ({"added_tokens": OWN}, {"<|end|>": (200020, True, True), "<|tool_call|>": (200025, False, True)}),
    (
        {"added_tokens": {"<s>": 200029}, "special_tokens_map": {"bos_token": {"content": "<s>"}}},
        {"<s>": (200029, True, False)},
    ),
    (
        {"added_tokens": {"<s>": 200029}, "tokenizer_config": {"additional_special_tokens": ["<s>"]}},
        {"<s>": (200029, True, False)},
    ),
    (
        {"tokenizer_config": {"added_tokens_decoder": {"200029": entry("<|think|>")}}},
        {"<|think|>": (200029, True, False)},
    ),
    (
        {"tokenizer_config": {"added_tokens_decoder": {"200029": entry("[w]", special=False, rstrip=True)}}},
        {"[w]": (200029, False, True)},
    ),
    (
        {"tokenizer_config": {"added_tokens_decoder": {"200025": entry("<|tool_call|>", rstrip=False)}}},
        {"<|tool_call|>": (200025, True, False)},
    ),
    (
        {"tokenizer_config": {"added_tokens_decoder": {"200010": entry("<|endoftext10|>")}}},
        {"<|endoftext10|>": (200010, True, False)},
    ),
    (
        {
            "tokenizer_config": {"added_tokens_decoder": {"200029": entry("<|think|>")}},
            "added_tokens": {"<|think|>": 200029},
        },
        {"<|think|>": (200029, True, False)},
    ),
]


@pytest.mark.parametrize(("files", "expected"), BROUGHT_TOKENS)
def test_TP7_added_tokens_reach_the_shipped_vocabulary(tmp_path, files, expected, caplog):
    opened = open_folder(phi_folder(tmp_path / "m", **files)).tokenizer
    assert opened.is_phi4 and "added_tokens.json" not in caplog.text
    for tokenizer in (opened, from_bytes(to_bytes(opened))):
        for content, (id, special, rstrip) in expected.items():
            token = tokenizer.added_token(content)
            assert (token.id, token.special, token.rstrip) == (id, special, rstrip)
            assert tokenizer.encode(f"a{content}", parse_special=True) == [64, id]
            assert id not in untrained_ids(tokenizer, 200064)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"added_tokens": {"<|think|>": 5}}, "'<|think|>' has id 5; free are 200029 to 200063"),
        ({"added_tokens": {"<|think|>": 200010}}, "'<|think|>' has id 200010; free are"),
        ({"added_tokens": {"<|think|>": 200020}}, "'<|think|>' has id 200020; free are"),
        ({"added_tokens": {"<|think|>": 200040}}, "'<|think|>' has id 200040, the next free row is 200029"),
        ({"added_tokens": {"<|think|>": 200064}}, "'<|think|>' has id 200064; free are"),
        ({"added_tokens": {"<|end|>": 200029}}, "'<|end|>' has id 200020 and, in its settings, 200029"),
        ({"added_tokens": {"a": 200029, "b": 200029}}, "'a' and 'b' both have id 200029"),
        ({"added_tokens": {"a": 200029}}, "'a' has id 200029, its place in the vocabulary is 64"),
        ({"added_tokens": {"a": "200029"}}, "must map tokens to ids"),
        ({"added_tokens": {"a": -1}}, "must map tokens to ids"),
        ({"added_tokens": ["a"]}, "must map tokens to ids"),
        ({"added_tokens": {"": 200029}}, "is not possible"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"200029": entry("a"), "200030": entry("a")}}},
            "'a' has id 200029 and, in its settings, 200030",
        ),
    ],
)
def test_TP7_added_tokens_that_contradict_are_refused(tmp_path, files, told):
    with pytest.raises(BadCheckpoint, match=re.escape(told)) as caught:
        open_folder(phi_folder(tmp_path / "m", **files))
    assert str(caught.value).startswith(str(tmp_path / "m"))


def test_TP7_added_tokens_reach_a_tokenizer_json_too_and_what_is_left_out_is_said(tmp_path, caplog):
    folder = small_folder(tmp_path / "m", vocab_size=330)
    (folder / "added_tokens.json").write_text(json.dumps({"covid19": 320}))
    opened = open_folder(folder).tokenizer
    assert opened.encode("a covid19")[-1] == 320 and not caplog.messages
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": {}}))
    assert 320 not in open_folder(folder).tokenizer.encode("a covid19")
    assert "added_tokens.json names 'covid19'" in caplog.text and "as transformers does" in caplog.text
