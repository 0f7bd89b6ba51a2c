"""ChatAnthropic of LangChain."""

from __future__ import annotations

import pytest

from tests.clients.conftest import TOO_LONG
from tests.clients.langchain_parts import Answer, exceptions, get_time

langchain = pytest.importorskip("langchain_anthropic", reason="needs langchain-anthropic (the extra clients)")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]


@pytest.fixture
def model(address):
    return langchain.ChatAnthropic(
        model="default", base_url=address, api_key="none", max_retries=0, max_tokens=60, temperature=0
    )


def test_PR14_whole_and_streamed(model):
    whole = model.invoke("Say hi to Anna.")
    pieces = list(model.stream("Say hi to Anna."))
    assert "".join(piece.text for piece in pieces) == whole.text and whole.usage_metadata["output_tokens"] > 1


def test_PR14_tools(model):
    said = model.bind_tools([get_time], tool_choice="any", parallel_tool_calls=False).invoke("What time is it?")
    (call,) = said.tool_calls
    assert call["name"] == "get_time" and list(call["args"]) == ["city"]
    again = model.bind_tools([get_time]).invoke([("user", "What time is it?"), said, get_time.invoke(call)])
    assert again.response_metadata


def test_PR14_structured_output(model):
    assert isinstance(model.with_structured_output(Answer).invoke("Is all fine?"), Answer)


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_PR14_overflow_is_recognised(model, how):
    with pytest.raises(exceptions.ContextOverflowError):
        list(model.stream(TOO_LONG)) if how == "stream" else model.invoke(TOO_LONG)


def test_PR14_another_error_is_not_taken_for_overflow(model):
    with pytest.raises(Exception) as caught:
        model.invoke("hi", stop=["x" * 300])
    assert not isinstance(caught.value, exceptions.ContextOverflowError) and "stop_sequences" in str(caught.value)
