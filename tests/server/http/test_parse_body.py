"""Bodies (rows B4-B10, D2-D7): each fault is a 400 that names the field, and each valid body is answered."""

from __future__ import annotations

import json

import pytest

from tests.server.process import CHAT, asking, serving

HI = [{"role": "user", "content": "hi"}]
ROUTES = {
    CHAT: {"messages": HI, "max_tokens": 1},
    "/v1/completions": {"prompt": "hi", "max_tokens": 1},
    "/v1/responses": {"input": "hi", "max_output_tokens": 1},
    "/v1/messages": {"model": "demo", "messages": HI, "max_tokens": 1},
}


def raw(body: dict, **fields: str) -> bytes:
    """A body with fields written as given, which need not be JSON."""
    text = json.dumps(body)[:-1]
    return (text + "".join(f', "{name}": {value}' for name, value in fields.items()) + "}").encode()


# ---- B: values


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-1", '"0.5"', "true", "[1]"])
def test_B4_numbers_that_are_none(demo, path, value):
    answer = demo.ask(path, raw(ROUTES[path], temperature=value))
    assert answer.status == 400, answer.body
    error = answer.json["error"]
    named = error.get("param", "temperature") == "temperature" and "temperature" in error["message"]
    assert named or "is not JSON" in error["message"]  # NaN and what no float holds end the reading of the body


@pytest.mark.parametrize("field", ["max_tokens", "seed", "n", "top_k", "min_tokens", "top_logprobs", "prompt_logprobs"])
@pytest.mark.parametrize("value", ["1.5", "true", '"5"', "-2", "9" * 30, "[]", "{}"])
def test_B4_integers_that_are_none(demo, field, value):
    value = "-9223372036854775809" if (field, value) == ("seed", "-2") else value  # seeds are signed
    answer = demo.ask(
        CHAT, raw({"messages": HI, "max_tokens": 1} if field != "max_tokens" else {"messages": HI}, **{field: value})
    )
    assert answer.status == 400 and answer.json["error"]["param"] == field, answer.body


@pytest.mark.parametrize("path", ROUTES)
def test_B5_of_two_equal_keys_the_last_one_wins(demo, path):
    assert demo.ask(path, raw(ROUTES[path] | {"temperature": 900}, temperature="0")).status == 200
    assert demo.ask(path, raw(ROUTES[path] | {"temperature": 0}, temperature="900")).status == 400


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("text", [b"\\ud800", b"\\udfff\\ud800", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80"])
def test_B6_what_is_not_unicode(demo, path, text):
    body = json.dumps(ROUTES[path]).encode().replace(b'"hi"', b'"hi' + text + b'"')
    answer = demo.ask(path, body)
    assert answer.status == 400 and "is not JSON" in answer.json["error"]["message"]


def test_B6_a_byte_that_is_no_utf8_is_found_by_its_place_in_the_body(demo):
    body = b'{"messages": [{"role": "user", "content": "Gr\xfc\xdfe"}]}'
    message = demo.ask(CHAT, body).json["error"]["message"]
    assert message == f"the body is not JSON: byte 0xfc at offset {body.index(0xFC)} is not UTF-8"


@pytest.mark.parametrize("path", ROUTES)
def test_B6_nul_is_text_and_the_answer_is_utf8(demo, path):
    body = json.dumps(ROUTES[path]).encode().replace(b'"hi"', b'"a\\u0000b \\ud83d\\ude00"')
    answer = demo.ask(path, body)
    assert answer.status == 200
    answer.body.decode("utf-8")


@pytest.mark.parametrize("path", ROUTES)
def test_B7_unknown_fields_are_named_in_a_header(demo, path):
    answer = demo.ask(path, ROUTES[path] | {"zürich": 1, "frequency_penality": 2, "a\r\nSet-Cookie: b": 3})
    assert answer.status == 200 and "set-cookie" not in answer.headers
    assert answer.headers["x-ignored-fields"] == "'a\\r\\nSet-Cookie: b', frequency_penality, 'z\\xfcrich'"
    assert "x-ignored-fields" not in demo.ask(path, ROUTES[path]).headers


def test_B7_a_strict_server_refuses_unknown_fields(demo_store, tmp_path):
    demo_store()
    with serving(tmp_path, "--strict", "--kv-tokens", "4096") as strict:
        for path, body in ROUTES.items():
            assert strict.ask(path, body).status == 200
            answer = strict.ask(path, body | {"frequency_penality": 2})
            assert answer.status == 400 and "frequency_penality" in answer.json["error"]["message"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", ["gpt-4", "../../etc/passwd", "", "demo\x00", "x" * 1_000_000])
def test_B8_unknown_models(demo, path, name):
    answer = demo.ask(path, ROUTES[path] | {"model": name})
    assert answer.status == 404 and len(answer.body) < 500
    error = answer.json["error"]
    assert error.get("code", error["type"]) in ("model_not_found", "not_found_error")


def test_B8_the_names_it_has(demo):
    for name in ("demo", "default"):
        assert demo.ask(CHAT, asking("hi", 1, model=name)).json["model"] == "demo"
        assert demo.ask(f"/v1/models/{name}").json["id"] == "demo"
    unknown = demo.ask("/v1/models/gpt-4")
    assert unknown.code == "model_not_found"
    assert unknown.json == demo.ask(CHAT, asking("hi", 1, model="gpt-4")).json, "it says what is served"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/chat", 404),
        ("POST", "/v1/chat/completion", 404),
        ("GET", CHAT, 405),
        ("DELETE", CHAT, 405),
        ("POST", "/health", 405),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/chat/completions/", 404),
    ],
)
def test_B9_wrong_routes_and_methods(demo, method, path, status):
    answer = demo.ask(path, method=method)
    assert answer.status == status and answer.headers["content-type"] == "application/json"
    assert answer.code == {404: "unknown_route", 405: "method_not_allowed"}[status]
    assert status == 404 or answer.headers["allow"]


def test_B9_head_and_options(demo):
    answer = demo.ask("/health", method="HEAD")
    assert answer.status == 200 and answer.body == b""
    answer = demo.ask(CHAT, method="OPTIONS")
    assert answer.status == 204 and "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "messages"),
        ([{"role": "robot", "content": "hi"}], "messages[0].role"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]"),
        ([*HI, {"role": "tool", "content": "42"}], "messages[1].tool_call_id"),
        ([*HI, {"role": "tool", "content": "42", "tool_call_id": "c9"}], "messages[1].tool_call_id"),
        ([*HI, {"role": "assistant", "content": "Well"}], "continue_final_message"),
        (["hi"], "messages[0]"),
        ("hi", "messages"),
    ],
)
def test_B10_conversations_that_are_none(demo, messages, named):
    answer = demo.ask(CHAT, {"messages": messages, "max_tokens": 1})
    assert answer.status == 400 and named in answer.json["error"]["message"], answer.body
    assert answer.json["error"]["param"].startswith("messages")


def test_B10_the_assistants_last_message_is_continued(demo):
    """The same ids as if the model had said it, so the same answer."""
    whole = demo.ask(CHAT, asking("Count: one, two,", 12)).text
    pieces = demo.ask("/tokenize", {"content": whole, "with_pieces": True}).json["tokens"]
    said = "".join(piece["piece"] for piece in pieces[:4])  # what the model had said after four tokens
    rest = whole[len(said) :]
    body = asking("Count: one, two,", 12)
    body["messages"].append({"role": "assistant", "content": said})
    answer = demo.ask(CHAT, body | {"continue_final_message": True})
    assert answer.status == 200 and answer.text.startswith(rest), (whole, answer.text)


# ---- D: sizes and ranges


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize("n", [9, 10**6, 2**31, 0, -1])
def test_D2_many_choices(demo, path, n):
    answer = demo.ask(path, ROUTES[path] | {"n": n, "max_tokens": 1_000_000})
    assert answer.status == 400 and answer.json["error"]["param"] == "n" and answer.seconds < 2


@pytest.mark.parametrize("limit", [0, 2**31, -1])
def test_D3_limits_out_of_range(demo, limit):
    answer = demo.ask(CHAT, asking("hi", limit))
    assert answer.status == 400 and answer.json["error"]["param"] == "max_tokens"


def ids_of_length(demo, count: int) -> list[int]:
    ids = demo.ask("/tokenize", {"content": "one two three four five six " * 400}).json["tokens"]
    return ids[:count]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("prompt", "new"), [(2048, 1), (2047, 2), (2049, 1), (2048, None), (10, 2**31 - 1)])
def test_D3_what_does_not_fit_is_refused_with_both_counts(demo, prompt, new, stream):
    ids = ids_of_length(demo, prompt)
    answer = demo.ask("/v1/completions", {"prompt": ids, "max_tokens": new, "stream": stream})
    assert answer.status == 400 and answer.code == "context_length_exceeded"
    assert answer.json["error"]["n_prompt_tokens"] == len(ids) and answer.json["error"]["n_ctx"] == 2048
    assert str(len(ids)) in answer.json["error"]["message"] and "2048" in answer.json["error"]["message"]


def test_D3_what_just_fits_is_answered(demo):
    answer = demo.ask("/v1/completions", {"prompt": ids_of_length(demo, 2047), "max_tokens": 1})
    assert answer.json["usage"] == {
        "prompt_tokens": 2047,
        "completion_tokens": 1,
        "total_tokens": 2048,
        "prompt_tokens_details": answer.json["usage"]["prompt_tokens_details"],
    }
    open_end = demo.ask(
        "/v1/completions", {"prompt": ids_of_length(demo, 2044), "max_tokens": None, "ignore_eos": True}
    )
    assert open_end.json["usage"]["total_tokens"] == 2048 and open_end.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "bias",
    [
        {str(i): 1 for i in range(200_000)},
        {"999999": 1},
        {"-1": 1},
        {"a": 1},
        {"": 1},
        {"5": 101},
        {"5": -101},
        {"5": "1"},
        {"5": None},
        [5],
    ],
    ids=lambda bias: str(bias)[:20],
)
def test_D4_biases_that_are_none(demo, bias):
    answer = demo.ask(CHAT, asking("hi", 1, logit_bias=bias))
    assert answer.status == 400 and "logit_bias" in answer.json["error"]["message"], answer.body
    assert answer.json["error"]["param"].startswith("logit_bias")


def test_D4_bias_of_minus_100_bans(demo):
    first = demo.ask(CHAT, asking("Say hi", 1, logprobs=True)).json["choices"][0]
    id = demo.ask("/tokenize", {"content": first["message"]["content"]}).json["tokens"][0]
    other = demo.ask(CHAT, asking("Say hi", 1, logit_bias={str(id): -100})).text
    assert other != first["message"]["content"]
    assert demo.ask(CHAT, asking("Say hi", 1, logit_bias={str(id): 100})).text == first["message"]["content"]


@pytest.mark.parametrize("stop", ["", [""], ["a"] * 17, ["a"] * 10_000, "x" * 257, "x" * 1_000_000, [1], {"a": 1}])
def test_D5_stops_that_are_none(demo, stop):
    answer = demo.ask(CHAT, asking("hi", 1, stop=stop))
    assert answer.status == 400 and answer.json["error"]["param"].startswith("stop")


def test_D5_the_cut_is_exact_across_tokens(demo):
    whole = demo.ask(CHAT, asking(max_tokens=40)).text
    for at in range(0, 30, 5):
        stop = whole[at : at + 7]
        kept = whole[: whole.index(stop)]
        answer = demo.ask(CHAT, asking(max_tokens=40, stop=[stop, "never said"]))
        assert answer.text == kept and answer.json["choices"][0]["finish_reason"] == "stop"
        assert demo.ask(CHAT, asking(max_tokens=40, stop=stop, stream=True)).streamed == kept


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (CHAT, "top_logprobs", 21),
        (CHAT, "top_logprobs", -1),
        ("/v1/completions", "logprobs", 21),
        (CHAT, "prompt_logprobs", 21),
    ],
)
def test_D6_too_many_alternatives(demo, path, field, value):
    answer = demo.ask(path, ROUTES[path] | {"logprobs": True} | {field: value})
    assert answer.status == 400 and answer.json["error"]["param"] == field


def test_D6_alternatives_need_logprobs(demo):
    assert demo.ask(CHAT, asking("hi", 1, top_logprobs=5)).json["error"]["param"] == "top_logprobs"


def test_D6_echo_of_a_long_prompt_is_computed_in_parts(demo, demo_model):
    """2,047 tokens of logits at once would be 400 MB."""
    import numpy as np

    ids = ids_of_length(demo, 2040)
    demo.ask("/v1/completions", {"prompt": ids[:200], "max_tokens": 1, "echo": True, "logprobs": 0})
    before = demo.status("VmHWM")
    answer = demo.ask("/v1/completions", {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0})
    assert answer.status == 200 and demo.status("VmHWM") - before < 100 << 20
    values = answer.json["choices"][0]["logprobs"]["token_logprobs"]
    assert values[0] is None and len(values) == 2040
    assert np.abs(np.array(values[1:]) - demo_model.logprobs(ids)).max() < 1e-4


@pytest.mark.parametrize("stream", [False, True])
def test_D6_a_prompt_that_is_only_scored_has_no_new_token(demo, stream):
    """In the answer, in its usage and timings, and in the metrics."""
    counted = demo.metric("generation_tokens_total")
    body = {"prompt": "The sea is", "max_tokens": 0, "echo": True, "logprobs": 1}
    if stream:
        events = demo.ask("/v1/completions", body | {"stream": True, "stream_options": {"include_usage": True}}).events
        usage, timings, choice = events[-2]["usage"], events[-2]["timings"], events[-3]["choices"][0]
    else:
        answer = demo.ask("/v1/completions", body).json
        usage, timings, choice = answer["usage"], answer["timings"], answer["choices"][0]
        assert choice["text"] == "The sea is" and len(choice["logprobs"]["tokens"]) == usage["prompt_tokens"]
    assert choice["finish_reason"] == "length"
    assert usage["completion_tokens"] == 0 and usage["total_tokens"] == usage["prompt_tokens"] > 0
    assert timings["predicted_n"] == 0
    assert demo.metric("generation_tokens_total") == counted


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 1e-9},
        {"temperature": 2},
        {"temperature": 100},
        {"temperature": 1, "top_p": 0},
        {"temperature": 1, "top_p": 1, "min_p": 0},
        {"temperature": 1, "top_k": 0},
        {"temperature": 1, "top_k": 2**31 - 1},
        {"temperature": 1, "top_k": -1},
        {"temperature": 1, "frequency_penalty": 2, "presence_penalty": 2},
        {"temperature": 1, "frequency_penalty": -2, "presence_penalty": -2},
        {"temperature": 2, "min_p": 1},
    ],
    ids=str,
)
def test_D7_the_edges_of_sampling_are_defined(demo, fields):
    answers = [demo.ask(CHAT, asking(max_tokens=8, logprobs=True, top_logprobs=2, seed=7, **fields)) for _ in range(2)]
    assert answers[0].status == 200, answers[0].body
    assert answers[0].text == answers[1].text, "the seed is the same"
    assert b"NaN" not in answers[0].body and b"Infinity" not in answers[0].body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", 100.1),
        ("top_p", -0.1),
        ("top_p", 1.1),
        ("top_k", -2),
        ("top_k", 2**31),
        ("min_p", 2),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("repetition_penalty", 0),
        ("seed", 1 << 63),
        ("seed", -(1 << 63) - 1),
    ],
)
def test_D7_beyond_the_edges_is_refused(demo, field, value):
    answer = demo.ask(CHAT, asking(max_tokens=1) | {field: value})
    assert answer.status == 400 and answer.json["error"]["param"] == field


def test_D7_nearly_cold_is_cold(demo):
    cold = demo.ask(CHAT, asking(max_tokens=16)).text
    for fields in ({"temperature": 1e-9}, {"temperature": 1, "top_p": 0}, {"temperature": 1, "top_k": 1}):
        assert demo.ask(CHAT, asking(max_tokens=16) | fields | {"seed": 3}).text == cold
