"""What the tests of this room share: Phi's tokenizer, a small ChatML one, Jinja as the templates' own interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi4mini.tokenizer import Tokenizer, phi4_mini
from tests.tokenizer.vocabularies import small

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def phi() -> Tokenizer:
    """Phi-4-mini's tokenizer; do not add tokens to it."""
    return phi4_mini()


@pytest.fixture(scope="session")
def chatml() -> Tokenizer:
    """Single bytes and ChatML's control tokens."""
    return small()


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    """The official chat templates by the name of our format."""
    return json.loads((HERE / "templates.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def jinja(templates: dict[str, str]) -> Callable[..., str]:
    """Render a template as HF transformers does."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def run(name: str, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        return environment.from_string(templates[name]).render(
            messages=messages, add_generation_prompt=add_generation_prompt, eos_token="<|endoftext|>"
        )

    return run
