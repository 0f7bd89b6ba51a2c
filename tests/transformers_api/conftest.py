"""A tiny checkpoint that can chat, opened once: no network, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from phi4mini import AutoModelForCausalLM, AutoTokenizer, pipeline
from phi4mini.transformers_api import CausalLM, PretrainedTokenizer, TextGenerationPipeline
from tests import tiny_chat


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the stores of these checkpoints go, instead of the user's cache."""
    where = tmp_path_factory.mktemp("transformers_api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI4MINI_HOME", str(where / "home"))
        yield where


@pytest.fixture(scope="package")
def folder(home: Path) -> Path:
    return tiny_chat.write(home / "chat")


@pytest.fixture(scope="package")
def opened(folder: Path) -> Iterator[CausalLM]:
    model = AutoModelForCausalLM.from_pretrained(str(folder), torch_dtype="float32", kv="f32")
    yield model
    model.llm.close()


@pytest.fixture
def model(opened: CausalLM) -> CausalLM:
    """The model with settings of its own, which a test may change."""
    return CausalLM(opened.llm)


@pytest.fixture
def tok(folder: Path) -> PretrainedTokenizer:
    return AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture
def pipe(model: CausalLM, tok: PretrainedTokenizer) -> TextGenerationPipeline:
    return pipeline("text-generation", model=model, tokenizer=tok)


@pytest.fixture(scope="package")
def phi() -> PretrainedTokenizer:
    return AutoTokenizer.from_pretrained("microsoft/Phi-4-mini-instruct")
