"""LiteLLM over three dialects: the same calls, and the context's end as it tells its own callers."""

from __future__ import annotations

import json

import pydantic
import pytest

from tests.clients.conftest import TOO_LONG, TOOL

litellm = pytest.importorskip("litellm", reason="needs litellm (the extra clients)")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]
HI = [{"role": "user", "content": "Say hi to Anna."}]
PROVIDERS = ["openai", "anthropic", "ollama_chat"]


class Answer(pydantic.BaseModel):
    fine: bool


@pytest.fixture
def ask(address, monkeypatch):
    """litellm.completion with one provider's settings."""
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    monkeypatch.setattr(litellm, "num_retries", 0)

    def completion(provider: str, messages=HI, **more):
        base = f"{address}/v1" if provider == "openai" else address
        given = {"max_tokens": 20} | more
        return litellm.completion(f"{provider}/default", messages, api_base=base, api_key="none", **given)

    return completion


@pytest.mark.parametrize("provider", PROVIDERS)
def test_PR12_chat_whole_and_streamed(ask, provider):
    whole = ask(provider)
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(provider, stream=True) if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content and whole.usage.completion_tokens > 1


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_PR12_tools(ask, provider):
    made = ask(provider, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=80)
    (call,) = made.choices[0].message.tool_calls
    assert call.function.name == "get_time" and set(json.loads(call.function.arguments)) == {"city"}
    turns = [*HI, made.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "noon"}]
    assert ask(provider, turns, tools=[TOOL], max_tokens=8).choices


@pytest.mark.parametrize("provider", ["openai", "ollama_chat"])
def test_PR12_structured_output(ask, provider):
    made = ask(provider, response_format=Answer, max_tokens=60)
    assert Answer.model_validate_json(made.choices[0].message.content)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
def test_PR12_overflow_is_recognised(ask, provider, stream):
    with pytest.raises(litellm.ContextWindowExceededError):
        list(ask(provider, [{"role": "user", "content": TOO_LONG}], stream=stream))


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_PR12_a_limit_that_is_too_large_is_recognised(ask, provider):
    with pytest.raises(litellm.ContextWindowExceededError):
        ask(provider, max_tokens=32000)


def test_PR12_another_error_is_not_taken_for_overflow(ask):
    with pytest.raises(litellm.BadRequestError) as caught:
        ask("openai", temperature=101.0)
    assert not isinstance(caught.value, litellm.ContextWindowExceededError)
