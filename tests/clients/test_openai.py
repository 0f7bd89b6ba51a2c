"""`openai`, as installed with the other programs; tests/server/test_clients.py asks it for much more."""

from __future__ import annotations

import pydantic
import pytest

from tests.clients.conftest import CONTEXT, TOO_LONG, TOOL

openai = pytest.importorskip("openai", reason="needs openai (the extra clients)")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]
HI = [{"role": "user", "content": "Say hi to Anna."}]


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as made:
        yield made


class Answer(pydantic.BaseModel):
    fine: bool


def test_PR10_chat_whole_and_streamed(client):
    whole = client.chat.completions.create(model="default", messages=HI, max_tokens=20)
    stream = client.chat.completions.create(model="default", messages=HI, max_tokens=20, stream=True)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert len({chunk.created for chunk in chunks}) == 1


def test_PR10_the_model_tells_its_context(client):
    (listed,) = client.models.list().data
    assert client.models.retrieve(listed.id).model_extra["context_length"] == CONTEXT


def test_PR10_tools_and_structured_output(client):
    made = client.chat.completions.create(
        model="default", messages=HI, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=60
    )
    (call,) = made.choices[0].message.tool_calls
    assert call.function.name == "get_time" and "city" in call.function.arguments
    parsed = client.chat.completions.parse(model="default", messages=HI, response_format=Answer, max_tokens=60)
    assert isinstance(parsed.choices[0].message.parsed, Answer)


@pytest.mark.parametrize("stream", [False, True])
def test_PR10_overflow_has_its_code_in_message_and_body(client, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="default", messages=[{"role": "user", "content": TOO_LONG}], stream=stream)
    assert caught.value.code == "context_length_exceeded" in str(caught.value)
    assert "prompt is too long" in caught.value.message
