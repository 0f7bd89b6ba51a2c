"""The `ollama` client, which takes the server for its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import CITIES, CONTEXT, TOO_LONG, TOOL

ollama = pytest.importorskip("ollama", reason="needs ollama (the extra clients)")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]
HI = [{"role": "user", "content": "Say hi to Anna."}]
SHORT = {"num_predict": 20, "seed": 1, "num_ctx": 1024}


@pytest.fixture
def client(address):
    return ollama.Client(host=address)


def test_PR16_the_model_is_found_and_described(client):
    (model,) = client.list().models
    shown = client.show(model.model)
    assert shown.modelinfo[f"{shown.modelinfo['general.architecture']}.context_length"] == CONTEXT
    assert "tools" in shown.capabilities and shown.details.parameter_size == model.details.parameter_size
    (running,) = client.ps().models
    assert running.model == model.model == "demo:latest" and running.size == model.size


@pytest.mark.parametrize("model", ["demo", "demo:latest", "default"])
def test_PR16_chat_whole_and_streamed(client, model):
    whole = client.chat(model, HI, options=SHORT, keep_alive="5m")
    pieces = list(client.chat(model, HI, options=SHORT, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert (pieces[-1].done and pieces[-1].done_reason == whole.done_reason == "stop") or whole.eval_count == 20
    assert whole.total_duration >= whole.prompt_eval_duration + whole.eval_duration > 0


def test_PR16_generate_whole_streamed_and_raw(client):
    whole = client.generate("demo", "Say hi to Anna.", system="Be brief.", options=SHORT)
    pieces = list(client.generate("demo", "Say hi to Anna.", system="Be brief.", options=SHORT, stream=True))
    assert "".join(piece.response for piece in pieces) == whole.response and whole.response
    assert client.generate("demo", "Once upon a", raw=True, options=SHORT).eval_count > 0
    assert client.generate("demo", "").done_reason == "load"


@pytest.mark.parametrize("stream", [False, True])
def test_PR16_tools(client, stream):
    """The model has seen three calls, and makes the fourth."""
    turns: list[Any] = []
    for city in ("Oslo", "Rome", "Lima"):
        call = {"function": {"name": "get_time", "arguments": {"city": city}}}
        turns += [{"role": "user", "content": f"What time is it in {city}?"}]
        turns += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "noon"}]
        turns += [{"role": "assistant", "content": f"It is noon in {city}."}]
    turns.append({"role": "user", "content": "What time is it in Oslo?"})
    made = client.chat("demo", turns, tools=[TOOL], options={"num_predict": 60}, stream=stream)
    messages = [piece.message for piece in made] if stream else [made.message]
    (call,) = [call for message in messages for call in message.tool_calls or ()]
    assert call.function.name == "get_time" and call.function.arguments == {"city": "Oslo"}
    said = next(message for message in messages if message.tool_calls)
    turns += [said, {"role": "tool", "content": "noon", "tool_name": "get_time"}]
    assert client.chat("demo", turns, tools=[TOOL], options=SHORT).done


def test_PR16_a_function_is_a_tool(client):
    def get_time(city: str) -> str:
        """The time in a city.

        Args:
            city: Its name.
        """
        return city

    assert client.chat("demo", HI, tools=[get_time], options=SHORT).done


def test_PR16_formats(client):
    made = client.chat("demo", HI, format=CITIES, options={"num_predict": 60})
    assert json.loads(made.message.content)["city"] in ("Oslo", "Rome", "Lima")
    made = client.generate("demo", "Say hi to Anna.", format="json", options={"num_predict": 300})
    assert isinstance(json.loads(made.response), dict)


def test_PR16_vectors(client):
    made = client.embed("demo", ["a house", "a small house"])
    assert len(made.embeddings) == 2 and list(client.embeddings("demo", "a house").embedding) == list(
        made.embeddings[0]
    )


def test_PR16_errors_are_responses(client):
    with pytest.raises(ollama.ResponseError, match=r"model 'llama3\.2' not found") as caught:
        client.chat("llama3.2", HI)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat("demo", HI, think=True)
    with pytest.raises(ollama.ResponseError, match=str(CONTEXT)):
        list(client.chat("demo", [{"role": "user", "content": TOO_LONG}], stream=True))
    with pytest.raises(ollama.ResponseError, match="images"):
        client.generate("demo", "What is this?", images=["aGVsbG8="])
