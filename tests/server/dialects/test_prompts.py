"""From a body to the engine's parameters, in every dialect; prompts, limits, and the key of the prefix cache."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import phi4mini
from phi4mini.errors import TooLong
from phi4mini.llm.run import Run
from phi4mini.server.dialects.anthropic.messages import MessagesBody
from phi4mini.server.dialects.conversation import Conversation
from phi4mini.server.dialects.ollama.bodies import OllamaChatBody
from phi4mini.server.dialects.openai.chat import ChatBody
from phi4mini.server.dialects.openai.completions import CompletionBody
from phi4mini.server.dialects.openai.responses_body import InputBody
from phi4mini.server.dialects.prompts import clip, prompt_ids, run_for
from phi4mini.server.http.call import Call
from phi4mini.server.http.errors import ApiError
from phi4mini.server.http.parse_body import body_as
from phi4mini.server.service import Service, ServiceCall
from phi4mini.server.settings import Settings

CTX = 512


@pytest.fixture(scope="module")
def service(demo_store):
    demo_store()
    made = Service(Settings(), lambda: phi4mini.load("demo", ctx=CTX))
    made.start()
    yield made
    made.close()


def call(service: Service, owner: str | None = None) -> ServiceCall:
    return Call(service, id="one", owner=owner)


def typed(kind: Any, body: bytes) -> Any:
    def refuse(names: Any) -> None:
        assert not list(names)

    return body_as(kind, body, refuse)


HI = b'[{"role": "user", "content": "hi"}]'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatBody, b'{"messages": %s, "min_p": 0.05}' % HI),
        (CompletionBody, b'{"prompt": "hi", "min_p": 0.05}'),
        (InputBody, b'{"input": "hi", "min_p": 0.05}'),
        (MessagesBody, b'{"model": "default", "max_tokens": 5, "messages": %s, "min_p": 0.05}' % HI),
        (OllamaChatBody, b'{"model": "default", "messages": %s, "options": {"min_p": 0.05}}' % HI),
    ],
)
def test_min_p_goes_from_every_body_to_the_engine(service, kind, body):
    read = typed(kind, body)
    sampling = read.sampling(5, None) if kind in (ChatBody, CompletionBody, InputBody) else read.sampling()
    run = run_for(call(service), [1, 2, 3], sampling)
    assert run.request.params.min_p == 0.05


def test_each_choice_of_a_conversation_is_a_run_with_its_own_seed(service):
    body = typed(ChatBody, b'{"messages": %s, "n": 3, "seed": 7, "max_tokens": 4}' % HI)
    asked = call(service)
    runs: list[Run] = asyncio.run(body.to_conversation(asked).runs(asked, body.samplings()))
    assert [run.request.seed for run in runs] == [7, 8, 9]
    prompt = service.text.render([{"role": "user", "content": "hi"}]).ids
    assert all(list(run.request.ids) == list(prompt) for run in runs)
    assert all(run.request.params.max_new_tokens == 4 for run in runs)


def test_cached_pages_are_shared_within_a_key_and_a_salt_only(service):
    runs = [
        run_for(call(service, owner), [1, 2, 3], {}, salt=salt)
        for owner, salt in ((None, None), ("a", None), ("b", None), ("a", "s"), ("b", "s"), (None, "s"))
    ]
    assert len({run.request.salt for run in runs}) == len(runs)
    assert run_for(call(service, "a"), [4], {}, salt="s").request.salt == runs[3].request.salt


def test_what_does_not_fit_the_context_is_refused(service):
    run_for(call(service), [1] * (CTX - 1), {})
    run_for(call(service), [1] * 100, {"max_new_tokens": CTX - 100})
    for ids, sampling in (([1] * CTX, {}), ([1] * 100, {"max_new_tokens": CTX - 99})):
        with pytest.raises(TooLong):
            run_for(call(service), ids, sampling)


def test_a_clipped_limit_goes_to_the_end_of_the_context(service):
    sampling = {"max_new_tokens": 10_000}
    clip(sampling, CTX)
    assert sampling == {}
    conversation = Conversation([{"role": "user", "content": "hi"}], clip=True)
    asked = call(service)
    (run,) = asyncio.run(conversation.runs(asked, [{"max_new_tokens": 10_000}]))
    assert run.request.params.max_new_tokens is None


def test_prompts_are_texts_or_ids(service):
    text = service.text
    assert prompt_ids(text, "a cat", "prompt", 4) == [text.tokenizer.encode("a cat")]
    assert prompt_ids(text, [5, 6], "prompt", 4) == [[5, 6]]
    assert prompt_ids(text, ["a", [7]], "prompt", 4) == [text.tokenizer.encode("a"), [7]]
    for wrong in ("", [], ["a", ""], [[1.5]], [text.config.vocab_size], ["a"] * 5, [{}]):
        with pytest.raises(ApiError) as refused:
            prompt_ids(text, wrong, "prompt", 4)
        assert refused.value.status == 400 and refused.value.param == "prompt"
