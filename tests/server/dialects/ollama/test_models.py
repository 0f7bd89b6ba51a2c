"""Ollama's API about the model: what desktop programs look for first."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from phi4mini.server.dialects.ollama.models import tagged


def test_PR1_the_list_and_what_the_model_is_like(demo):
    (model,) = demo.ask("/api/tags").json["models"]
    assert model["name"] == model["model"] == "demo:latest" and len(model["digest"]) == 64 and model["size"] > 1 << 20
    assert datetime.fromisoformat(model["modified_at"]).tzinfo and model["details"]["parameter_size"] == "134.52M"
    shown = demo.ask("/api/show", {"model": model["name"]}).json
    family = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{family}.context_length"] == 2048 == demo.ask("/props").json["n_ctx"]
    assert shown["capabilities"] == model["capabilities"] == ["completion", "tools"]
    (running,) = demo.ask("/api/ps").json["models"]
    assert running["name"] == model["name"] and running["context_length"] == 2048 and running["size"] == model["size"]
    assert datetime.fromisoformat(running["expires_at"]) > datetime.fromisoformat(model["modified_at"])


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_PR1_what_clients_probe_answers(demo, path):
    assert demo.ask(path).status == 200 and demo.ask(path, method="HEAD").status == 200
    major, minor, _ = demo.ask("/api/version").json["version"].split(".")
    assert (int(major), int(minor)) >= (0, 6)  # some clients refuse to talk to less


@pytest.mark.parametrize("path", ["/api/show", "/api/chat", "/api/generate", "/api/embed"])
@pytest.mark.parametrize("name", ["demo", "demo:latest", "default", "default:latest"])
def test_PR8_the_model_is_known_with_and_without_a_tag(demo, path, name):
    body = {"model": name, "messages": [], "prompt": "", "input": "hi", "stream": False}
    assert demo.ask(path, {key: body[key] for key in BODIES[path]}).status == 200


BODIES = {
    "/api/show": ["model"],
    "/api/chat": ["model", "messages", "stream"],
    "/api/generate": ["model", "prompt", "stream"],
    "/api/embed": ["model", "input"],
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", ["llama3.2", "demo:7b", "demo:latest:latest", "x/demo", "Demo", "library/demo"])
def test_PR8_another_model_is_not_found_in_ollamas_words(demo, path, name):
    answer = demo.ask(path, {"model": name} | ({"input": "hi"} if path == "/api/embed" else {}))
    assert answer.status == 404 and answer.json == {"error": f"model '{name}' not found"}


def test_PR8_every_error_has_ollamas_form(demo):
    wrong = [("/api/chat", {"model": "demo", "messages": 5}), ("/api/chat", b"{"), ("/api/nowhere", {})]
    wrong += [("/api/show", {}), ("/api/chat", {"model": "demo", "messages": [{"role": "robot", "content": "x"}]})]
    wrong += [("/api/generate", {"model": "demo", "prompt": "hi", "options": {"temperature": -1}})]
    for path, body in wrong:
        answer = demo.ask(path, body)
        assert answer.status in (400, 404) and list(answer.json) == ["error"] and answer.json["error"]
    assert "options.temperature" in answer.json["error"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("demo", "demo:latest"),
        ("microsoft/Phi-4-mini-instruct", "microsoft/Phi-4-mini-instruct:latest"),
        ("owner/Phi-GGUF:Q4_K_M", "owner/Phi-GGUF:Q4_K_M"),
        ("hf:8080/model", "hf:8080/model:latest"),
    ],
)
def test_PR1_a_name_has_a_tag(name, expected):
    assert tagged(name) == expected


def test_PR9_a_model_of_openais_list_tells_its_context(demo):
    (listed,), one = demo.ask("/v1/models").json["data"], demo.ask("/v1/models/demo").json
    assert listed == one and one["context_length"] == one["max_model_len"] == one["meta"]["n_ctx"] == 2048


def test_PR3_vectors_are_those_of_the_openai_route(demo):
    texts = ["a house", "a small house", "😀"]
    made = demo.ask("/api/embed", {"model": "demo", "input": texts}).json
    same = demo.ask("/v1/embeddings", {"input": texts}).json
    assert made["embeddings"] == [one["embedding"] for one in same["data"]]
    assert made["prompt_eval_count"] == same["usage"]["prompt_tokens"] and made["total_duration"] > 0
    old = demo.ask("/api/embeddings", {"model": "demo", "prompt": texts[0]}).json
    assert np.array_equal(old["embedding"], made["embeddings"][0])
