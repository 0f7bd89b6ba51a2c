"""Chat formats told from templates and tokens: what is guessed, what is not, and that it is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from phi4mini.chat.templates import format_named
from phi4mini.chat.templates.phi import Phi, Phi4, Phi35
from phi4mini.errors import BadInput
from phi4mini.llm.model import load_tokenizer
from phi4mini.weights import load
from phi4mini.weights.chat_choice import open_for_chat
from phi4mini.weights.checkpoints.chat_template import Chat, recognise
from phi4mini.weights.checkpoints.folder import open_folder
from phi4mini.weights.store.store import open_store
from tests.tokenizer.vocabularies import CHATML as CHATML_TOKENS
from tests.tokenizer.vocabularies import small
from tests.weights.twins import CHATML, small_folder

TEMPLATES = json.loads((Path(__file__).parents[2] / "chat" / "templates.json").read_text(encoding="utf-8"))
PHI, PHI35, PHI4 = Phi.tokens, Phi35.tokens, Phi4.tokens
BOTH = (*PHI, *CHATML_TOKENS[1:])  # what TRL's setup_chat_format leaves: a Phi tokenizer with ChatML's tokens
BROUGHT = [  # control tokens, template, format
    (PHI, TEMPLATES["phi"], "phi"),
    (PHI, "{# mine #}" + TEMPLATES["phi"], "phi"),
    (PHI, TEMPLATES["phi-reasoning"] + "{# mine #}", "phi-reasoning"),
    (BOTH, CHATML, "chatml"),
    (BOTH, TEMPLATES["phi"], "phi"),
    (BOTH, TEMPLATES["smollm"] + "{# mine #}", "smollm"),
    (PHI35, "{# mine #}" + TEMPLATES["phi-3.5"], "phi-3.5"),
    (PHI35, TEMPLATES["phi-3"], "phi-3"),
    (PHI, TEMPLATES["phi-3.5"], "phi-3.5"),
    (CHATML_TOKENS, CHATML, "chatml"),
    (CHATML_TOKENS, TEMPLATES["smollm"], "smollm"),
    (PHI4, TEMPLATES["phi-4"], "phi-4"),
    (PHI4, CHATML, "chatml"),
    (PHI, None, "phi"),
    (PHI, "", "phi"),
    (PHI, 7, "phi"),
    # what nobody here knows how to write
    (PHI4, TEMPLATES["phi-4"].replace("<|im_sep|>", "<|im_sep|>\\n"), "none"),
    (BOTH, None, "none"),
    (PHI35, None, "none"),
    (CHATML_TOKENS, None, "none"),
    (PHI, CHATML, "none"),
    (CHATML_TOKENS, TEMPLATES["phi-4"], "none"),
    (PHI, "{{ messages | tojson }}", "none"),
    (PHI, "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}", "none"),
    (PHI35, TEMPLATES["phi-3"].replace("\\n", "").replace("\n", ""), "phi"),
    (PHI35, "{{ bos_token }}" + TEMPLATES["phi-3"], "none"),
    (CHATML_TOKENS, CHATML.replace("['content']", "['content'] | trim"), "none"),
    (CHATML_TOKENS, CHATML.replace("user", "human"), "chatml"),
]


@pytest.mark.parametrize(("tokens", "template", "expected"), BROUGHT)
def test_TP2_the_format_is_the_templates_and_not_the_vocabularys(tokens, template, expected, caplog):
    found = recognise(template, small(control=tokens), "the model")
    assert found.name == expected
    assert caplog.messages == ([f"the model {found.note}"] if found.note else []), (
        "one line for all that is not certain"
    )
    assert bool(found.note) != (template in (TEMPLATES["phi"], TEMPLATES["phi-3.5"], TEMPLATES["smollm"]))


def test_TP4_a_base_model_has_no_format_and_nothing_is_said(caplog):
    assert recognise(None, small(control=("<s>", "</s>")), "x") == Chat("none") and not caplog.messages


def test_TP4_tokens_alone_are_enough_for_phi_only(caplog):
    assert recognise(None, small(control=PHI), "x").note == "has no chat template; by its control tokens it speaks phi"
    assert "do not make one certain: it can only continue text" in recognise(None, small(control=BOTH), "x").note


def chat_folder(folder: Path, template: str, tokens: tuple[str, ...] = CHATML_TOKENS) -> Path:
    """A model whose three control tokens are these and whose template is that."""
    small_folder(folder)
    tree = json.loads((folder / "tokenizer.json").read_text())
    for entry, content in zip(tree["added_tokens"], tokens, strict=True):
        entry["content"] = content
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A model cache of its own."""
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    return tmp_path


UNKNOWN = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"


@pytest.mark.parametrize("template", [UNKNOWN, CHATML])
def test_TP3_what_is_not_certain_is_said_before_converting_and_each_time_it_is_opened(cache, caplog, template):
    folder = chat_folder(cache / "m", template)
    lines_at_first_progress: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        lines_at_first_progress.append(len(caplog.messages))

    def opened() -> None:
        open_for_chat(lambda: open_store(load.ensure_store(str(folder), "q8", progress=progress)), "m", None)

    opened()
    assert lines_at_first_progress[0] == 1 == len(caplog.messages), "before, and not once more after"
    for times in (2, 3, 4):
        opened()
        assert len(caplog.messages) == times
    assert ("--chat-format NAME" in caplog.messages[-1]) == (template == UNKNOWN)
    assert all(
        "\n" not in line and record.levelno == logging.WARNING
        for line, record in zip(caplog.messages, caplog.records, strict=True)
    )


def test_TP3_the_tokenizer_alone_says_it_too_and_rendering_names_the_way_out(cache, caplog):
    folder = chat_folder(cache / "m", UNKNOWN)
    assert [load_tokenizer(str(folder))[1] for _ in range(3)] == ["none"] * 3
    assert len(caplog.messages) == 3


@pytest.mark.parametrize("name", ["chatml", "smollm"])
def test_TP5_a_named_format_is_used_at_opening_and_nothing_more_is_said(cache, caplog, name):
    folder = chat_folder(cache / "m", UNKNOWN, ("<|endoftext|>", "<|im_end|>", "<|im_start|>"))
    path = load.ensure_store(str(folder), "q8")
    before = path.read_bytes()
    caplog.clear()
    made = open_for_chat(lambda: open_store(path), "m", name)
    assert (made.chat_format, made.chat_note, caplog.messages) == (name, "", [])
    end = made.tokenizer.id_of("<|im_end|>")
    assert end in made.config.eos_token_ids and end not in open_store(path).config.eos_token_ids
    assert path.read_bytes() == before and made.fingerprint == open_store(path).fingerprint


def test_TP5_a_wrong_name_is_refused_before_anything_is_converted(cache):
    folder = chat_folder(cache / "m", UNKNOWN)
    with pytest.raises(BadInput, match="unknown chat format 'Phi'; known: phi, "):
        load_tokenizer(str(folder), chat_format="Phi")
    assert not (cache / "home").exists()
    with pytest.raises(BadInput, match=r"'phi-4' needs <\|im_sep\|>, which this tokenizer does not have"):
        load_tokenizer(str(folder), chat_format="phi-4")


def test_TP5_a_file_of_ones_own_may_be_written_with_a_format(cache):
    folder = chat_folder(cache / "m", UNKNOWN)
    load.convert_to(str(folder), "q8", cache / "m.phi4", chat_format="chatml")
    made = open_store(cache / "m.phi4")
    assert (made.chat_format, made.chat_note) == ("chatml", "")
    assert made.tokenizer.id_of("<|im_end|>") in made.config.eos_token_ids


@pytest.mark.parametrize("name", ["phi", "phi-reasoning", "phi-3.5", "phi-3", "phi-4", "chatml", "smollm"])
def test_the_token_that_ends_a_turn_ends_the_answer(tmp_path, name):
    end = format_named(name).stop_tokens[0]
    tokens = format_named(name).needs
    folder = small_folder(tmp_path / "m", vocab_size=330)
    tree = json.loads((folder / "tokenizer.json").read_text())
    first = tree["added_tokens"][0]
    tree["added_tokens"] = [{**first, "id": 317 + i, "content": token} for i, token in enumerate(tokens)]
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{##}" + TEMPLATES[name]}))
    opened = open_folder(folder)
    assert opened.chat_format == name and opened.config.eos_token_ids[0] == opened.tokenizer.id_of(end)
