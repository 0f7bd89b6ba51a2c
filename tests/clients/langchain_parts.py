"""What the tests of both LangChain packages ask for: one structured answer, one tool, and the errors they look for."""

from __future__ import annotations

import pydantic
import pytest

exceptions = pytest.importorskip("langchain_core.exceptions", reason="needs langchain-core (the extra clients)")
tools = pytest.importorskip("langchain_core.tools", reason="needs langchain-core (the extra clients)")


class Answer(pydantic.BaseModel):
    """Whether all is fine."""

    fine: bool


@tools.tool
def get_time(city: str) -> str:
    """The time in a city."""
    return f"noon in {city}"
