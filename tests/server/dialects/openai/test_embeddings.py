"""POST /v1/embeddings: pooled hidden states, the same beside any other requests; the answer says how they are made."""

from __future__ import annotations

import base64
import threading

import numpy as np
import pytest

from tests.server.process import asking

PATH = "/v1/embeddings"
TEXTS = ["The cat sits on the mat.", "A cat is sitting on a mat.", "Interest rates rose by a quarter point."]
LONG = "one two three four five six " * 250


def vectors(demo, given, **more):
    answer = demo.ask(PATH, {"input": given, **more})
    assert answer.status == 200, answer.body
    return [row["embedding"] for row in answer.json["data"]]


def test_they_are_the_mean_of_hidden_states(demo, demo_model):
    ids = demo_model.tokenizer.encode(TEXTS[0])
    rows = np.concatenate([part for _, part in demo_model.engine.hidden(ids)]).astype(np.float64)
    expected = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
    (got,) = vectors(demo, TEXTS[0])
    assert np.abs(np.array(got) - expected).max() < 1e-6 and abs(np.linalg.norm(got) - 1) < 1e-6
    assert vectors(demo, ids) == [got] and vectors(demo, [ids, TEXTS[0]]) == [got, got]


def test_the_answer_is_marked_and_counted(demo):
    answer = demo.ask(PATH, {"input": TEXTS, "dimensions": 576}).json
    assert "not trained for embeddings" in answer["pooling"] and answer["object"] == "list"
    assert [row["index"] for row in answer["data"]] == [0, 1, 2]
    counted = sum(demo.ask("/tokenize", {"content": text}).json["count"] for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": counted, "total_tokens": counted}


def test_base64_is_the_same_numbers(demo):
    (number,), (text,) = vectors(demo, "hi"), vectors(demo, "hi", encoding_format="base64")
    assert np.frombuffer(base64.b64decode(text), "<f4").tolist() == number


def test_others_are_not_held_up_and_change_nothing(demo):
    """Slices are smaller while others draw: the bits are the same."""
    alone = vectors(demo, [LONG, TEXTS[0]])
    said = demo.chat(max_tokens=48).text
    answers: list[str] = []
    asker = threading.Thread(target=lambda: answers.append(demo.chat(max_tokens=48).text))
    asker.start()
    beside = vectors(demo, [LONG, TEXTS[0]])
    asker.join()
    assert beside == alone and answers == [said]


def test_a_clients_disconnect_ends_its_job(demo):
    import socket

    from tests.server.process import post

    raw = demo.connect()
    raw.sendall(post(PATH, {"input": [LONG] * 60}))
    assert raw.fileno() > 0
    raw.shutdown(socket.SHUT_RDWR)
    raw.close()
    demo.rest(20)
    assert demo.ask("/v1/chat/completions", asking("hi", 1)).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [[1], []]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [10**6]}, "input"),
        ({"input": ["a"] * 257}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": "a", "dimensions": 256}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
    ids=range(10),
)
def test_what_is_no_input_is_refused(demo, fields, param):
    answer = demo.ask(PATH, fields)
    assert answer.status == 400 and answer.json["error"]["param"] == param, answer.body


def test_what_does_not_fit_is_refused_with_both_counts(demo):
    answer = demo.ask(PATH, {"input": ["a", LONG * 2]})
    assert answer.status == 400 and answer.code == "context_length_exceeded"
    error = answer.json["error"]
    assert error["n_ctx"] == 2048 < error["n_prompt_tokens"] and "input[1]" in error["message"]
