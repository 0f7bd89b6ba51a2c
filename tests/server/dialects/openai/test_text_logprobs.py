"""Log-probabilities of text completions: every alternative has a key, and offsets count characters."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.llm.results import TokenLogprob
from phi4mini.server.dialects.openai.text_logprobs import TextLogprobWriter, key_of
from phi4mini.tokenizer import Tokenizer, phi4_mini

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def phi() -> Tokenizer:
    return phi4_mini()


def entry(tokenizer: Tokenizer, id: int, others: list[int]) -> TokenLogprob:
    def one(id: int, at: int, top: tuple = ()) -> TokenLogprob:
        return TokenLogprob(id, tokenizer.token_text(id), -0.5 - at, top)

    return one(id, len(others), tuple(one(other, at) for at, other in enumerate(others)))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_RQ34_every_alternative_has_a_key_of_its_own(phi, data):
    """The least ids are bytes, most of which are no text."""
    ids = st.integers(0, 300) | st.integers(0, len(phi) - 1)
    top = data.draw(st.lists(ids, min_size=1, max_size=20, unique=True))
    chosen = data.draw(st.sampled_from(top) | ids)
    made = TextLogprobWriter(phi).write([entry(phi, chosen, top)])
    (alternatives,) = made.top_logprobs
    assert len(alternatives) == len({*top, chosen})
    assert made.tokens[0] in alternatives and max(alternatives.values()) == -0.5
    for id in top:
        assert "\ufffd" not in key_of(phi.token_bytes(id)) or "\ufffd" in phi.token_bytes(id).decode()


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30), cut=st.integers(0, 30))
def test_RQ34_places_are_those_of_the_text(phi, text, cut):
    """Also when the tokens come in two pieces, and a character is cut in two between them."""
    ids = [id for byte in text.encode() for id in range(256) if phi.token_bytes(id) == bytes([byte])]
    writer = TextLogprobWriter(phi)
    pieces = [writer.write([entry(phi, id, []) for id in part]) for part in (ids[:cut], ids[cut:])]
    expected = [at for at, letter in enumerate(text) for _ in letter.encode()]
    assert [offset for piece in pieces for offset in piece.text_offset] == expected


@pytest.mark.parametrize(
    ("spelled", "key"),
    [
        (b"hi", "hi"),
        (b" ", " "),
        (b"", ""),
        ("é".encode(), "é"),
        ("😀".encode(), "😀"),
        ("\ufffd".encode(), "\ufffd"),
        (b"\xf0", r"bytes:\xf0"),
        (b"\xf0\x9f", r"bytes:\xf0\x9f"),
        (b"\x98\x80", r"bytes:\x98\x80"),
        (b"\xff", r"bytes:\xff"),
        (b"a\xc3", r"bytes:\x61\xc3"),
        (b"\xa9b", r"bytes:\xa9\x62"),
    ],
)
def test_RQ34_tokens_that_are_no_text_are_keyed_by_their_bytes(spelled, key):
    assert key_of(spelled) == key


def test_RQ34_of_two_tokens_with_one_text_the_less_likely_has_its_id(phi):
    """A control token and its spelling are two tokens; so are a byte and its letter in some vocabularies."""

    class Alike:
        stream = phi.stream

        def token_bytes(self, id: int) -> bytes:
            return b"same"

    made = TextLogprobWriter(Alike()).write([TokenLogprob(7, "same", -2.0, (TokenLogprob(3, "same", -0.1),))])
    assert made.top_logprobs == [{"same": -0.1, "token_id:7": -2.0}] and made.tokens == ["token_id:7"]


def test_RQ34_lm_eval_reads_no_false_greedy(demo, tmp_path):
    """Three tokens that are parts of one character, scored as lm-eval does it, by its own reading."""
    ids = demo.ask("/tokenize", {"content": "😀"}).json["tokens"]
    assert len(ids) > 1
    asked = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
    answer = demo.ask(PATH, asked)
    by_id = answer.json["choices"][0]["prompt_logprobs"]
    best = all(by_id[at][str(ids[at])]["logprob"] == max(x["logprob"] for x in by_id[at].values()) for at in (1, 2))
    code = (
        "import json, sys\n"
        "from lm_eval.models.openai_completions import LocalCompletionsAPI\n"
        "print(LocalCompletionsAPI.parse_logprobs(json.loads(sys.argv[1]), tokens=[[0]], ctxlens=[1])[0][1])\n"
    )
    pytest.importorskip("lm_eval", reason="needs lm-eval (the extra dev)")
    said = subprocess.run([sys.executable, "-c", code, answer.body.decode()], capture_output=True, text=True)
    assert said.stdout.split()[-1] == str(best) == "False", said.stderr[-2000:]


@pytest.mark.parametrize("prompt", ["The end.", "Hello", "😀", "1 2 3"])
def test_RQ35_with_echo_every_token_has_an_entry_the_one_that_ended_it_too(demo, prompt):
    """Evaluations drop the last entry as the one token they asked for: were it left out, they would lose a real one."""
    asked = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1}
    ending = {id: 100 for id in demo.ask("/tokenize", {"content": "x"}).json["tokens"]}  # certain to be drawn
    for more in ({}, {"logit_bias": {str(id): 100 for id in ending}, "stop": ["x"]}, {"stop_token_ids": [*ending]}):
        body = demo.ask(PATH, asked | more).json
        noted = body["choices"][0]["logprobs"]
        assert len(noted["tokens"]) == len(noted["token_logprobs"]) == body["usage"]["total_tokens"]


def test_RQ35_in_a_stream_and_whole_they_are_the_same(demo):
    asked = {"prompt": "One, two, three, four,", "max_tokens": 24, "logprobs": 2, "stop": [" nine", "1"]}
    whole = demo.ask(PATH, asked).json["choices"][0]
    events = [e["choices"][0] for e in demo.ask(PATH, asked | {"stream": True}).events if e != "[DONE]"]
    assert "".join(event["text"] for event in events) == whole["text"]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [x for event in events if event["logprobs"] for x in event["logprobs"][name]] == whole["logprobs"][name]
    assert whole["text"].startswith("".join(whole["logprobs"]["tokens"])) and whole["logprobs"]["tokens"]
