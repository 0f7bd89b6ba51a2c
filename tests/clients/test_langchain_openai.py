"""ChatOpenAI of LangChain, over chat completions and responses."""

from __future__ import annotations

import pytest

from tests.clients.conftest import TOO_LONG
from tests.clients.langchain_parts import Answer, exceptions, get_time

langchain = pytest.importorskip("langchain_openai", reason="needs langchain-openai (the extra clients)")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def model(request, address):
    return langchain.ChatOpenAI(
        model="default",
        base_url=f"{address}/v1",
        api_key="none",
        max_retries=0,
        max_tokens=300,
        use_responses_api=request.param,
    )


def test_PR13_whole_and_streamed(model):
    whole = model.invoke("Say hi to Anna.")
    pieces = list(model.stream("Say hi to Anna."))
    assert "".join(piece.text for piece in pieces) == whole.text and whole.usage_metadata["output_tokens"] > 1


def test_PR13_tools(model):
    said = model.bind_tools([get_time], tool_choice="any", parallel_tool_calls=False).invoke("What time is it?")
    (call,) = said.tool_calls
    assert call["name"] == "get_time" and list(call["args"]) == ["city"]
    again = model.bind_tools([get_time]).invoke([("user", "What time is it?"), said, get_time.invoke(call)])
    assert again.response_metadata


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_PR13_structured_output(model, method):
    if method == "json_mode":
        made = model.with_structured_output(None, method=method).invoke("Say hi to Anna.")
        assert isinstance(made, dict)
        return
    assert isinstance(model.with_structured_output(Answer, method=method).invoke("Is all fine?"), Answer)


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_PR13_overflow_is_recognised(model, how):
    with pytest.raises(exceptions.ContextOverflowError):
        list(model.stream(TOO_LONG)) if how == "stream" else model.invoke(TOO_LONG)


def test_PR13_another_error_is_not_taken_for_overflow(model):
    with pytest.raises(Exception) as caught:
        model.invoke("hi", temperature=101.0)
    assert not isinstance(caught.value, exceptions.ContextOverflowError) and "temperature" in str(caught.value)


def test_PR13_embeddings(address):
    made = langchain.OpenAIEmbeddings(
        model="default", base_url=f"{address}/v1", api_key="none", check_embedding_ctx_length=False
    )
    vectors = made.embed_documents(["a house", "a small house"])
    assert len(vectors) == 2 and abs(sum(x * x for x in vectors[0]) - 1) < 1e-4
