"""`anthropic`, as installed with the other programs; tests/server/test_clients.py asks it for much more."""

from __future__ import annotations

import pytest

from tests.clients.conftest import CITIES, TOO_LONG

anthropic = pytest.importorskip("anthropic", reason="needs anthropic (the extra clients)")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("default")]
HI = [{"role": "user", "content": "Say hi to Anna."}]
TOOLS = [{"name": "get_time", "description": "The time in a city.", "input_schema": CITIES}]


@pytest.fixture
def client(address):
    with anthropic.Anthropic(base_url=address, api_key="none", max_retries=0) as made:
        yield made


def test_PR11_messages_whole_and_streamed(client):
    whole = client.messages.create(model="default", messages=HI, max_tokens=20)
    with client.messages.stream(model="default", messages=HI, max_tokens=20) as stream:
        assert stream.get_final_text() == whole.content[0].text


def test_PR11_tools(client):
    made = client.messages.create(model="default", messages=HI, max_tokens=80, tools=TOOLS, tool_choice={"type": "any"})
    assert {block.name for block in made.content if block.type == "tool_use"} == {"get_time"}


def test_PR11_overflow_in_the_words_that_programs_look_for(client):
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
        client.messages.create(model="default", messages=[{"role": "user", "content": TOO_LONG}], max_tokens=8)
    with pytest.raises(anthropic.BadRequestError, match=r"exceed context limit: \d+ \+ 8000 > \d+"):
        client.messages.create(model="default", messages=HI, max_tokens=8000)
