"""The programs people use, unmodified: `openai`, `anthropic` and lm-eval against a running server."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from tests.server.process import KEY, serving

openai = pytest.importorskip("openai", reason="needs openai (the extra dev)")
anthropic = pytest.importorskip("anthropic", reason="needs anthropic (the extra dev)")
pydantic = pytest.importorskip("pydantic")

ASK = [{"role": "user", "content": "Say hi to Anna."}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 10}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "get_weather", "description": "The weather.", "parameters": PARAMETERS}
TOOLS: list[Any] = [{"type": "function", "function": FUNCTION}]
BLOCK_TOOLS: list[Any] = [{"name": "get_weather", "description": "The weather.", "input_schema": PARAMETERS}]
BOTH = ["demo", "phi"]


class Person(pydantic.BaseModel):  # type: ignore[name-defined]
    """What is asked for."""

    name: Literal["Anna", "Bert"]
    age: Literal[1, 2, 3]
    friends: list[Literal["Cleo"]] = pydantic.Field(max_length=2)


def address(server: Any) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def client(demo):
    with openai.OpenAI(base_url=f"{address(demo)}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def claude(demo):
    with anthropic.Anthropic(base_url=address(demo), api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(params=BOTH)
def either(request):
    """A client of each chat format."""
    server = request.getfixturevalue(request.param)
    with openai.OpenAI(base_url=f"{address(server)}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def keyed(demo_store, tmp_path_factory):
    """A server with a key and one place, without a queue."""
    demo_store()
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    options = ("--api-key-file", str(keys), "-np", "1", "--queue", "0", "--kv-tokens", "4096")
    with serving(tmp_path_factory.mktemp("keyed"), *options) as running:
        yield running


# ---- openai: chat


def test_models(client):
    (model,) = client.models.list().data
    assert model.id == "demo" and client.models.retrieve("demo").id == "demo"


def test_chat_whole_and_streamed(client):
    whole = client.chat.completions.create(model="demo", messages=ASK, max_tokens=20)
    text, usage = "", None
    stream = client.chat.completions.create(
        model="demo", messages=ASK, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content and text
    assert usage.completion_tokens == whole.usage.completion_tokens and usage.total_tokens == whole.usage.total_tokens


def test_several_choices_and_logprobs(client):
    made = client.chat.completions.create(
        model="demo", messages=ASK, max_tokens=6, n=3, temperature=1.5, seed=4, logprobs=True, top_logprobs=3
    )
    assert [choice.index for choice in made.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in made.choices}) > 1
    for choice in made.choices:
        tokens = choice.logprobs.content
        assert "".join(t.token for t in tokens).startswith(choice.message.content)
        assert all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in tokens)
        assert b"".join(bytes(t.bytes) for t in tokens).decode("utf-8", "replace").startswith(choice.message.content)
    again = client.chat.completions.create(model="demo", messages=ASK, max_tokens=6, temperature=1.5, seed=5)
    assert again.choices[0].message.content == made.choices[1].message.content, "choice i has the seed after i"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tools(either, choice):
    fields: dict[str, Any] = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False, "max_tokens": 100}
    whole = either.chat.completions.create(model="default", messages=ASK, **fields).choices[0]
    (call,) = whole.message.tool_calls
    assert whole.finish_reason == "tool_calls" and set(json.loads(call.function.arguments)) == {"city"}
    with either.chat.completions.stream(model="default", messages=ASK, **fields) as stream:
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed.function.name == call.function.name == "get_weather"
    assert streamed.function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    turns = [*ASK, whole.message.model_dump(exclude_none=True), result]
    assert either.chat.completions.create(model="default", messages=turns, tools=TOOLS, max_tokens=4).choices


def test_structured_output(either):
    fields: dict[str, Any] = {"messages": ASK, "response_format": Person, "max_tokens": 80}
    parsed = either.chat.completions.parse(model="default", **fields).choices[0].message.parsed
    assert isinstance(parsed, Person)
    with either.chat.completions.stream(model="default", **fields) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed


def test_text_completions(client):
    made = client.completions.create(model="demo", prompt="Once upon a time", max_tokens=8, echo=True, logprobs=2)
    choice = made.choices[0]
    assert choice.text.startswith("Once upon a time") and choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.tokens[0] == "Once" and len(choice.logprobs.tokens) == made.usage.total_tokens
    streamed = client.completions.create(model="demo", prompt="Once upon a time", max_tokens=8, stream=True)
    assert "Once upon a time" + "".join(chunk.choices[0].text for chunk in streamed) == choice.text


def test_embeddings(client):
    """The client asks for base64 by itself and decodes it."""
    made = client.embeddings.create(model="demo", input=["a cat", "a dog"])
    assert [row.index for row in made.data] == [0, 1] and abs(sum(x * x for x in made.data[0].embedding) - 1) < 1e-5
    plain = client.embeddings.create(model="demo", input="a cat", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(made.data[0].embedding, abs=1e-7)


# ---- openai: responses


def test_responses(client):
    fields: dict[str, Any] = {"model": "demo", "input": "Say hi to Anna.", "max_output_tokens": 200}
    whole = client.responses.create(**fields, instructions="Be brief.")
    assert whole.status == "completed" and whole.output_text and whole.usage.input_tokens > 0
    deltas = []
    with client.responses.stream(**fields, instructions="Be brief.") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == whole.output_text
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hi to Anna."}]
    said = client.chat.completions.create(model="demo", messages=chat, max_tokens=200).choices[0].message.content
    assert whole.output_text == said
    counted = client.responses.input_tokens.count(model="demo", input="Say hi to Anna.", instructions="Be brief.")
    assert counted.input_tokens == whole.usage.input_tokens


def test_responses_with_tools_and_formats(either):
    flat: list[Any] = [{"type": "function", **FUNCTION, "strict": True}]
    fields: dict[str, Any] = {"model": "default", "input": ASK, "max_output_tokens": 100}
    calling = fields | {"tools": flat, "tool_choice": "required", "parallel_tool_calls": False}
    whole = either.responses.create(**calling)
    (call,) = whole.output
    assert call.type == "function_call" and set(json.loads(call.arguments)) == {"city"}
    with either.responses.stream(**calling) as stream:
        (streamed,) = stream.get_final_response().output
    assert streamed.arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    following = fields | {"input": [*ASK, call, result], "tools": flat, "max_output_tokens": 4}
    assert either.responses.create(**following).usage.output_tokens
    parsed = either.responses.parse(**fields, text_format=Person)
    assert isinstance(parsed.output_parsed, Person)


# ---- openai: errors


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="demo", messages=ASK, temperature=101)
    assert refused.value.param == "temperature" and refused.value.request_id
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "word " * 9000}])
    assert long.value.code == "context_length_exceeded" and long.value.body["n_ctx"] == 2048
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=ASK)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="keeps no responses"):
        client.responses.create(model="demo", input="hi", previous_response_id="resp_1")


def test_keys_and_a_full_queue(keyed):
    base = f"{address(keyed)}/v1"
    with (
        openai.OpenAI(base_url=base, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()
    with (
        anthropic.Anthropic(base_url=address(keyed), api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model="demo", max_tokens=1, messages=ASK)
    with (
        openai.OpenAI(base_url=base, api_key=KEY, max_retries=0) as client,
        client.chat.completions.create(
            model="demo", messages=ASK, stream=True, max_tokens=1500, extra_body={"ignore_eos": True}
        ) as stream,
    ):
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as full:
            client.chat.completions.create(model="demo", messages=ASK)
        assert full.value.response.headers["retry-after"]
        with (
            anthropic.Anthropic(base_url=address(keyed), api_key=KEY, max_retries=0) as other,
            pytest.raises(anthropic.RateLimitError),
        ):
            other.messages.create(model="demo", max_tokens=1, messages=ASK)


# ---- anthropic


def test_messages(claude):
    fields: dict[str, Any] = {"model": "demo", "messages": ASK, "max_tokens": 60, "system": "Be brief."}
    whole = claude.messages.create(**fields)
    assert whole.stop_reason in ("end_turn", "max_tokens") and whole.content[0].text
    with claude.messages.stream(**fields) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text and final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    counted = claude.messages.count_tokens(model="demo", messages=ASK, system="Be brief.")
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


@pytest.mark.parametrize("server", BOTH)
def test_messages_with_tools(request, server):
    running = request.getfixturevalue(server)
    choice = {"type": "any", "disable_parallel_tool_use": True}
    fields: dict[str, Any] = {"model": "default", "max_tokens": 100, "tools": BLOCK_TOOLS, "tool_choice": choice}
    with anthropic.Anthropic(base_url=address(running), api_key="none", max_retries=0) as client:
        whole = client.messages.create(messages=ASK, **fields)
        (block,) = whole.content
        assert whole.stop_reason == "tool_use" and block.name == "get_weather" and set(block.input) == {"city"}
        with client.messages.stream(messages=ASK, **fields) as stream:
            (streamed,) = stream.get_final_message().content
        assert streamed.input == block.input
        result = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
        turns = [*ASK, {"role": "assistant", "content": whole.content}, {"role": "user", "content": [result]}]
        after = client.messages.create(model="default", max_tokens=4, messages=turns, tools=BLOCK_TOOLS)
        assert after.usage.output_tokens


def test_messages_errors_are_the_clients_own(claude):
    with pytest.raises(anthropic.BadRequestError) as refused:
        image = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}
        claude.messages.create(model="demo", max_tokens=1, messages=[{"role": "user", "content": [image]}])
    assert refused.value.body["error"]["type"] == "invalid_request_error" and "image" in str(refused.value)
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="claude-9", max_tokens=1, messages=ASK)


# ---- lm-eval

ROWS: list[Any] = [
    {"text": "The capital of France is", "choices": [" Paris", " Rome"], "gold": 0},
    {"text": "Two and two make", "choices": [" nine", " four"], "gold": 1},
    {"text": "Ice is very", "choices": [" cold", " hot and dry"], "gold": 0},
]


def test_lm_eval_scores_what_the_model_says(demo, demo_model, tmp_path, monkeypatch):
    """`local-completions` with the server's own tokenizer, on a task of local rows."""
    for name, folder in (("HF_HOME", "hf"), ("HF_DATASETS_CACHE", "sets")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("lm_eval", reason="needs lm-eval (the extra dev)")
    results = lm_eval_of(f"{address(demo)}/v1/completions", tmp_path)
    assert results["results"]["tiny"]["acc,none"] >= 2 / 3
    for row, sample in zip(ROWS, results["samples"]["tiny"], strict=True):
        encode = demo_model.tokenizer.encode
        for choice, ((logprob, _),) in zip(row["choices"], sample["resps"], strict=True):
            whole = encode(row["text"] + choice)
            expected = demo_model.logprobs(whole)[len(encode(row["text"])) - 1 :].sum()
            assert abs(logprob - expected) < 1e-4, (row, choice)


def lm_eval_of(url: str, folder: Any) -> dict[str, Any]:
    """What lm-eval reports on the rows above, in a process of its own: it warns, and keeps threads."""
    import subprocess
    import sys

    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    task = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "tiny.yaml").write_text(json.dumps(task))
    code = (
        "import json, sys, lm_eval\n"
        "from lm_eval.tasks import TaskManager\n"
        "manager = TaskManager(include_path=sys.argv[2], include_defaults=False)\n"
        "made = lm_eval.simple_evaluate(model='local-completions', tasks=['tiny'], task_manager=manager,\n"
        "    model_args={'model': 'demo', 'base_url': sys.argv[1], 'num_concurrent': 1, 'batch_size': 2},\n"
        "    bootstrap_iters=0, log_samples=True)\n"
        "kept = {key: made[key] for key in ('results', 'samples')}\n"
        "json.dump(kept, open(sys.argv[2] + '/out.json', 'w'), default=str)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, url, str(folder)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())
