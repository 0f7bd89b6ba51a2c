"""Tools as coding agents and SDKs offer them: odd schemas, hosted tools, a response format beside them; three dialects.

A real server; the grammar makes a call of any model, so what is not held of a schema shows in the header alone.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.process import CHAT, serving

DRAFT = "https://json-schema.org/draft/2020-12/schema"
OLD = "http://json-schema.org/draft-07/schema#"
TEXT = {"type": "string", "maxLength": 8}


def parameters(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "$schema": more.pop("uri", DRAFT),
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
        **more,
    }


NAMES = "Bash Read Edit Write Glob Grep WebFetch WebSearch TodoWrite NotebookEdit KillShell BashOutput Skill Task"
PLAIN = parameters({"path": TEXT, "limit": {"type": "integer", "maximum": 9007199254740991}})
AGENT: dict[str, dict[str, Any]] = {  # a coding agent's tools, as their SDKs write them
    **dict.fromkeys(NAMES.split(), PLAIN),
    "AskUserQuestion": parameters(
        {
            "question": TEXT,
            "answers": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": TEXT},
            "options": {"type": "array", "items": TEXT, "uniqueItems": True, "maxItems": 2},
        }
    ),
    "Env": parameters({"vars": {"type": "object", "propertyNames": {"pattern": "^[A-Z]+$"}, "maxProperties": 1}}),
    "Mail": parameters({"to": {"type": "string", "format": "email", "pattern": r"^(?!\.)[a-z.]+@[a-z.]+$"}}),
    "Maybe": parameters({"x": {"anyOf": [{"not": {}}, TEXT]}}, uri="https://json-schema.org/draft-07/schema#"),
    "Link": parameters({"to": {"type": "string", "format": "uri-reference", "maxLength": 5}}, uri=OLD),
    "Shape": parameters(
        {
            "shape": {
                "discriminator": {"propertyName": "kind"},
                "oneOf": [{"$ref": "#/definitions/disc"}, {"$ref": "#/definitions/box"}],
            }
        },
        definitions={
            "disc": {"type": "object", "properties": {"kind": {"const": "disc", "default": "disc"}}},
            "box": {"type": "object", "properties": {"kind": {"const": "box", "default": "box"}}},
        },
        uri=OLD,
    ),
    "Rule": parameters({"a": TEXT, "b": TEXT}, ["a"], dependentRequired={"b": ["a"]}),
    "Free": {"type": "object", "properties": {"x": {"$ref": "https://example.com/other.json"}}},
}
LEFT_OUT = {"tools.AskUserQuestion.properties.options.uniqueItems", "tools.Mail.properties.to.pattern"}


def chat_tools(**strict: Any) -> list[dict[str, Any]]:
    functions = [{"name": name, "description": name, "parameters": schema} for name, schema in AGENT.items()]
    return [{"type": "function", "function": {**function, **strict}} for function in functions]


def asked(dialect: str, tools: list[dict[str, Any]], choice: Any = None, **more: Any) -> tuple[str, dict[str, Any]]:
    """A request with these functions, given in the chat API's form, in a dialect's own; others stay as they are."""
    flat = [{**tool["function"], "type": "function"} if "function" in tool else tool for tool in tools]
    if dialect == "messages":
        named = [
            {"name": t["name"], "input_schema": t["parameters"], **{k: t[k] for k in ("strict",) if k in t}}
            if t.get("type") == "function"
            else t
            for t in flat
        ]
        body = {"model": "default", "max_tokens": 200, "messages": [{"role": "user", "content": "Go"}], "tools": named}
        chosen = {"required": {"type": "any"}, None: None}.get(choice, {"type": "tool", "name": choice})
        return "/v1/messages", {**body, **({"tool_choice": chosen} if chosen else {}), **more}
    if dialect == "responses":
        chosen = choice if choice in ("required", None) else {"type": "function", "name": choice}
        return "/v1/responses", {"input": "Go", "max_output_tokens": 200, "tools": flat, "tool_choice": chosen, **more}
    chosen = choice if choice in ("required", None) else {"type": "function", "function": {"name": choice}}
    body = {"messages": [{"role": "user", "content": "Go"}], "max_tokens": 200, "tools": tools, "tool_choice": chosen}
    return CHAT, {**body, **more}


def first_call(dialect: str, answer: Any) -> tuple[str, dict[str, Any]]:
    assert answer.status == 200, answer.body
    if dialect == "messages":
        block = next(block for block in answer.json["content"] if block["type"] == "tool_use")
        return block["name"], block["input"]
    if dialect == "responses":
        item = next(item for item in answer.json["output"] if item["type"] == "function_call")
        return item["name"], json.loads(item["arguments"])
    function = answer.json["choices"][0]["message"]["tool_calls"][0]["function"]
    return function["name"], json.loads(function["arguments"])


def ignored(answer: Any) -> set[str]:
    return set(filter(None, answer.headers.get("x-ignored-fields", "").split(", ")))


DIALECTS = ["chat", "responses", "messages"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_SC2_a_coding_agents_tools_are_taken(phi, dialect):
    path, body = asked(dialect, chat_tools())
    limit = "max_output_tokens" if dialect == "responses" else "max_tokens"
    answer = phi.ask(path, {**body, limit: 4})
    assert answer.status == 200, answer.body
    assert ignored(answer) >= LEFT_OUT and not any("propertyNames" in n and "Ask" in n for n in ignored(answer))


@pytest.mark.parametrize("name", ["Maybe", "Shape", "Rule"])
def test_SC2_what_can_be_followed_of_an_odd_schema_is_held(phi, name):
    found, arguments = first_call("messages", phi.ask(*asked("messages", chat_tools(), name, seed=1)))
    properties = AGENT[name]["properties"]
    assert found == name and set(arguments) <= set(properties)
    assert set(AGENT[name]["required"]) - {"x"} <= set(arguments)
    if name == "Shape":
        assert arguments["shape"]["kind"] in ("disc", "box")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_SC2_strict_names_the_function_and_the_place(phi, dialect):
    for name, place in [
        ("AskUserQuestion", "properties.options.uniqueItems"),
        ("Mail", "properties.to.pattern"),
        ("Link", "properties.to.format"),
        ("Rule", "dependentRequired"),
        ("Free", "properties.x"),
    ]:
        tools = [tool for tool in chat_tools() if tool["function"]["name"] != name]
        odd = {"type": "function", "function": {"name": name, "parameters": AGENT[name], "strict": True}}
        answer = phi.ask(*asked(dialect, [*tools, odd]))
        message = answer.json["error"]["message"]
        assert answer.status == 400 and repr(name) in message and place in message, message


def test_SC2_what_is_no_schema_is_still_refused(phi):
    for odd in ({"type": "array"}, {"properties": []}, {"properties": {"a": {"type": "str"}}}, {"$ref": "#"}):
        tool = {"type": "function", "function": {"name": "odd", "parameters": odd}}
        answer = phi.ask(*asked("chat", [*chat_tools(), tool]))
        assert answer.status == 400 and "'odd'" in answer.json["error"]["message"]
        assert answer.json["error"]["param"] == "tools"


def test_SC2_a_response_format_that_is_not_strict_is_held_as_far_as_it_can_be(phi):
    schema = parameters({"tags": {"type": "array", "items": {"const": "a"}, "maxItems": 2, "uniqueItems": True}})
    for strict in (None, False, True):
        form = {"type": "json_schema", "json_schema": {"name": "t", "schema": schema, "strict": strict}}
        answer = phi.chat("Go", 60, response_format=form)
        if strict:
            assert answer.status == 400 and "properties.tags.uniqueItems" in answer.json["error"]["message"]
            continue
        assert set(json.loads(answer.text)["tags"]) <= {"a"}
        assert ignored(answer) == {"response_format.properties.tags.uniqueItems"}


def test_SC2_a_strict_server_refuses_what_it_would_leave_out(tmp_path):
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    with serving(tmp_path, "--strict", "-c", "8192", model="synthetic:1") as running:
        answer = running.ask(*asked("chat", chat_tools()))
        assert answer.status == 400 and answer.code == "unknown_field"
        plain = [tool for tool in chat_tools() if tool["function"]["name"] in ("Bash", "Shape", "Maybe")]
        path, body = asked("chat", plain)
        assert running.ask(path, {**body, "max_tokens": 2}).status == 200


# ---- SC3: a format beside tools, hosted tools beside functions

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": parameters({"city": {"enum": ["Oslo", "Rome"]}})},
}
ANSWER = parameters({"sky": {"enum": ["blue", "grey"]}})
JSON_SCHEMA = {"name": "answer", "schema": ANSWER, "strict": True}


def with_format(dialect: str) -> dict[str, Any]:
    if dialect == "messages":
        return {"output_config": {"format": {"type": "json_schema", "schema": ANSWER}}}
    if dialect == "responses":
        return {"text": {"format": {"type": "json_schema", **JSON_SCHEMA}}}
    return {"response_format": {"type": "json_schema", "json_schema": JSON_SCHEMA}}


def said(dialect: str, answer: Any) -> tuple[str, list[Any]]:
    """Text and calls."""
    assert answer.status == 200, answer.body
    if dialect == "messages":
        blocks = answer.json["content"]
        return "".join(b.get("text", "") for b in blocks), [b for b in blocks if b["type"] == "tool_use"]
    if dialect == "responses":
        items = answer.json["output"]
        texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
        return "".join(texts), [item for item in items if item["type"] == "function_call"]
    message = answer.json["choices"][0]["message"]
    return message["content"] or "", message.get("tool_calls") or []


@pytest.mark.parametrize("server", ["demo", "phi"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_SC3_with_tools_and_a_format_the_answer_is_a_call_or_the_format(request, server, dialect):
    running = request.getfixturevalue(server)
    seen = set()
    for seed in range(4):
        path, body = asked(dialect, [WEATHER], **with_format(dialect), temperature=1.0, seed=seed)
        text, calls = said(dialect, running.ask(path, body))
        assert bool(text) != bool(calls)
        seen.add(bool(calls))
        if text:
            assert json.loads(text)["sky"] in ("blue", "grey")
    path, body = asked(dialect, [WEATHER], "required", **with_format(dialect))
    text, calls = said(dialect, running.ask(path, body))
    assert calls and not text, "a call that is required comes, format or not"


def test_SC3_a_format_that_is_wrong_is_blamed_itself(phi):
    wrong = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"not": {"type": "null"}}}}
    answer = phi.ask(*asked("chat", [WEATHER], response_format=wrong))
    assert answer.status == 400 and answer.json["error"]["param"] == "response_format", answer.body
    for form in ({"type": "regex", "regex": "(?=a)"}, {"type": "grammar", "grammar": "start: nothing"}):
        assert phi.ask(*asked("chat", [WEATHER], response_format=form)).json["error"]["param"] == "response_format"


HOSTED = {
    "chat": [
        {"type": "web_search"},
        {"type": "custom", "custom": {"name": "apply_patch"}},
        {"type": "web_search_preview"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
    ],
    "responses": [
        {"type": "web_search"},
        {"type": "web_search_preview"},
        {"type": "file_search", "vector_store_ids": ["v"]},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "computer_use_preview", "display_width": 1},
        {"type": "mcp", "server_label": "m", "server_url": "https://example.com"},
        {"type": "custom", "name": "apply_patch", "format": {"type": "text"}},
        {"type": "local_shell"},
        {"type": "image_generation"},
        {"type": "namespace", "name": "m"},
    ],
    "messages": [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
        {"type": "computer_20250124", "name": "computer", "display_width_px": 1},
        {"type": "code_execution_20250825", "name": "code_execution"},
    ],
}


@pytest.mark.parametrize(("dialect", "hosted"), [(d, tool) for d, tools in HOSTED.items() for tool in tools])
def test_SC3_hosted_tools_beside_functions_are_named_as_ignored(phi, dialect, hosted):
    for tools in ([WEATHER, hosted], [hosted, WEATHER]):
        answer = phi.ask(*asked(dialect, tools, "required"))
        assert first_call(dialect, answer)[0] == "weather"
        assert ignored(answer) == {f"tools.{hosted['type']}"}


@pytest.mark.parametrize(("dialect", "hosted"), [(d, tools[0]) for d, tools in HOSTED.items()])
def test_SC3_hosted_tools_alone_are_refused(phi, dialect, hosted):
    for choice in ("required", None):
        answer = phi.ask(*asked(dialect, [hosted], choice))
        assert answer.status == 400 and hosted["type"] in answer.json["error"]["message"], answer.body


@pytest.mark.parametrize("dialect", DIALECTS)
def test_SC3_an_error_about_a_function_names_the_index_that_was_sent(phi, dialect):
    """Also behind hosted tools, which are left out."""
    nameless = {"type": "function", "function": {"name": "", "parameters": PLAIN}}
    answer = phi.ask(*asked(dialect, [HOSTED[dialect][0], WEATHER, nameless]))
    assert answer.status == 400 and answer.json["error"]["param"].startswith("tools[2]."), answer.body
    assert answer.json["error"]["message"].startswith("tools[2].")


def test_SC3_so_does_an_error_about_a_schema_that_is_missing(phi):
    answer = phi.ask(*asked("messages", [*HOSTED["messages"][:2], WEATHER, {"name": "bare"}]))
    assert answer.status == 400 and answer.json["error"]["param"] == "tools[3].input_schema", answer.body


def test_SC3_a_hosted_tool_cannot_be_demanded(phi):
    path, body = asked("responses", [WEATHER, {"type": "web_search"}])
    assert phi.ask(path, {**body, "tool_choice": {"type": "web_search"}}).status == 400
    path, body = asked("messages", [WEATHER, HOSTED["messages"][0]], "web_search")
    assert phi.ask(path, body).status == 400
