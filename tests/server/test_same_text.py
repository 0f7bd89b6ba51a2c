"""The same request has the same text, over HTTP too (rows D1, D8, D10-D12, D14, D15): whatever runs beside it, whatever
is cached, after a restart, on other kernels, with whoever is broken next to it.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import phi4mini
from tests.server.process import CHAT, Answer, Server, asking, serving

pytest.importorskip("uvicorn", reason="needs the extra serve")
ZEBRA, SICK = " zebra", 29106  # a word of one token, whose embedding the faulty server has damaged
QUESTIONS = [
    "Name the four seasons, and one thing people do in each.",
    "Write a short poem about a lighthouse.",
    "The harbour lay still and the boats did not move. " * 12 + "What is the capital of France?",  # pages to reuse
    "Explain to a child why the sky is blue.",
    "List five animals that live in the sea.",
    "Repeat this five times: the cat sat on the mat.",
    "Write the numbers from one to twenty in words.",
    "What would you pack for a week in the mountains?",
]
GREEDY = [asking(text, 48) for text in QUESTIONS]
DRAWN = [asking(text, 48, temperature=1.0, top_p=0.9, seed=n) for n, text in enumerate(QUESTIONS)]
BODIES = GREEDY + DRAWN


def text_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body[:300]
    return answer.text


def one_by_one(server: Server, bodies=BODIES) -> list[str]:
    return [text_of(server.ask(CHAT, body)) for body in bodies]


def together(server: Server, bodies=BODIES) -> list[str]:
    with ThreadPoolExecutor(len(bodies)) as threads:
        return [text_of(answer) for answer in threads.map(lambda body: server.ask(CHAT, body, timeout=200), bodies)]


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """Each by itself in this process: nothing reused, nothing guessed."""
    from phi4mini.engine.engine import Engine
    from phi4mini.llm.model import Model
    from phi4mini.weights.load import load

    opened = load("demo")
    texts = []
    with Model(opened, Engine(opened.weights, ctx=2048, speculate=False), "demo") as model:
        for body in BODIES:
            sampling = {name: body[name] for name in ("temperature", "top_p", "seed") if name in body}
            texts.append(model.chat(body["messages"], max_new_tokens=body["max_tokens"], **sampling).content)
    return texts


@pytest.fixture(scope="module")
def home(demo_store, tmp_path_factory):
    demo_store()
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home):
    with serving(home, "--kv-tokens", "8192") as running:
        yield running


# ---- the same everywhere


def test_D10_alone_and_in_a_batch_of_8_cold_and_warm(server, alone):
    assert one_by_one(server) == alone, "cold"
    assert one_by_one(server) == alone, "warm"
    assert together(server) == alone, "side by side"
    assert server.metric("cached_prompt_tokens_total") > 0


def test_D10_streamed_is_the_same(server, alone):
    for body, text in zip(BODIES[4:12], alone[4:12], strict=True):
        assert server.ask(CHAT, body | {"stream": True}).streamed == text


def test_D10_after_a_restart_from_what_is_on_disk(home, tmp_path):
    """The second process begins with the prompts of the first."""
    long = asking("Summarise this. " + "The harbour was quiet and the boats lay still. " * 40, 24)
    with serving(tmp_path, "--kv-tokens", "8192") as first:
        text = text_of(first.ask(CHAT, long))
    with serving(tmp_path, "--kv-tokens", "8192") as second:
        answer = second.ask(CHAT, long)
        assert text_of(answer) == text
        assert answer.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_D12_and_D10_when_pages_are_short(home):
    """Eight long ones in a cache that holds two: they step back and are computed again, and all finish."""
    bodies = [asking(text + " " + "Be thorough and go into every detail. " * 30, 250) for text in QUESTIONS]
    bodies = [body | {"ignore_eos": True} for body in bodies]
    with serving(home, "--kv-tokens", "2048", "--no-prefix-cache") as small:
        want = one_by_one(small, bodies[:3])
        got = together(small, bodies)
        assert got[:3] == want and len(got) == 8
        assert small.metric("preemptions_total") > 0
        small.rest()
        assert small.status("VmHWM") < small.status("VmRSS") + (200 << 20)


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (("-t", "1"), {}),
        (("-t", "2"), {"PHI4MINI_ISA": "avx2"}),
        (("-np", "2", "--queue", "20", "--no-prefix-cache"), {}),
    ],
    ids=["one thread", "lesser kernels", "two places and no cache"],
)
def test_D15_and_D14_other_threads_kernels_and_places(home, alone, options, environment):
    """Text by optimisation: each off in turn. Without speculation and reuse is what `alone` is."""
    with serving(home, "--kv-tokens", "8192", *options, **environment) as other:
        assert together(other) == alone


# ---- texts cut into tokens

HARD = "日本語のテキスト 😀👩‍🚀🎉 Ünïcödé ∮ E⋅da = Q ไทย עברית 🏳️‍🌈𝔘𝔫𝔦 ﷽ 한국어"


def test_D8_no_character_is_cut_in_a_stream(server):
    """A grammar leaves one answer, whose characters are of two to four tokens each."""
    body = asking("Say it.", 400, response_format={"type": "regex", "regex": re.escape(HARD)})
    whole, parts = server.ask(CHAT, body), server.ask(CHAT, body | {"stream": True})
    assert whole.text == HARD == parts.streamed
    assert whole.json["usage"]["completion_tokens"] > len(HARD)
    for event in parts.events[:-1]:
        for choice in event["choices"]:
            assert "\ufffd" not in (choice["delta"].get("content") or "")


@pytest.mark.parametrize("seed", range(6))
def test_D8_bytes_that_are_no_text_are_marked_alike(server, seed):
    """So hot that some bytes drawn are no UTF-8: the stream, joined, is the whole answer, and valid."""
    body = asking("Say exactly this: " + HARD, 60, temperature=1.5, seed=seed, ignore_eos=True)
    whole, parts = server.ask(CHAT, body), server.ask(CHAT, body | {"stream": True})
    assert parts.streamed == whole.text
    assert parts.body.decode("utf-8").endswith("data: [DONE]\n\n")


def test_D8_an_answer_that_ends_within_a_character(server):
    """Forced by a bias to the first of two tokens of an emoji, and ended there."""
    body = asking("hi", 1, logit_bias={"10813": 100})
    whole, parts = server.ask(CHAT, body), server.ask(CHAT, body | {"stream": True})
    assert whole.json["choices"][0]["finish_reason"] == "length"
    assert parts.streamed == whole.text and whole.body.decode("utf-8")


# ---- long ones


def test_D11_around_the_length_where_the_factors_change(tmp_path):
    """Phi's boundary is at 4,096 tokens: prompts of 4,095, 4,096 and 4,097, and an answer that crosses it, are what the
    engine computes alone. A layer of random weights has the boundary as the whole model has it; that the engine is
    right about it is for tests/engine/test_longrope.py.
    """
    words = [200, 350, 1000, 77, 4242]
    prompts = [[words[n % 5] + n % 97 for n in range(count)] for count in (4090, 4095, 4096, 4097)]
    with phi4mini.load("synthetic:1", ctx=4160, speculate=False) as model:
        want = [model.generate(ids, max_new_tokens=12, ignore_eos=True).ids for ids in prompts]
    assert len({tuple(ids) for ids in want}) == 4
    with serving(tmp_path, "-c", "4160", "--kv-tokens", "8320", model="synthetic:1") as server:
        bodies = [{"prompt": ids, "max_tokens": 12, "temperature": 0, "ignore_eos": True} for ids in prompts]

        def ids_of(body):
            answer = server.ask("/v1/completions", body | {"return_token_ids": True}, timeout=200)
            assert answer.status == 200, answer.body[:300]
            return answer.json["choices"][0]["text"]

        with phi4mini.load("synthetic:1", ctx=64) as tokens:
            texts = [tokens.tokenizer.decode(ids) for ids in want]
        assert [ids_of(body) for body in bodies] == texts
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(ids_of, bodies)) == texts


# ---- NaN


@pytest.fixture(scope="module")
def sick(home):
    with serving(home, "--kv-tokens", "8192", module="tests.server.faulty", FAULT_TOKEN=str(SICK)) as running:
        yield running


def test_D1_nan_of_one_request_is_its_own(sick, alone):
    before = one_by_one(sick, GREEDY[:6])
    assert before == alone[:6]
    bodies = [*GREEDY[:6], asking("Tell me of the" + ZEBRA, 32), asking("Where does a" + ZEBRA + " live?", 32)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda body: sick.ask(CHAT, body), bodies))
    assert [text_of(answer) for answer in answers[:6]] == before
    for answer in answers[6:]:
        assert (answer.status, answer.code) == (500, "numerical_error")
    sick.rest()
    assert one_by_one(sick, GREEDY[:6]) == before


def test_D1_in_a_stream_it_is_the_last_event(sick):
    answer = sick.ask(CHAT, asking("Tell me of the" + ZEBRA, 32, stream=True))
    if answer.status == 200:
        assert answer.events[-1]["error"]["code"] == "numerical_error"
    else:
        assert (answer.status, answer.code) == (500, "numerical_error")
    assert b"[DONE]" not in answer.body


def test_D1_what_it_computed_is_not_kept(sick):
    """A later prompt with the same beginning does not reuse the pages that hold NaN."""
    long = "The plains are wide. " * 40
    began = time.monotonic()
    for _ in range(2):
        assert sick.ask(CHAT, asking(long + ZEBRA, 8)).status == 500
        answer = sick.ask(CHAT, asking(long, 8))
        assert answer.status == 200 and answer.text
    sick.rest()
    assert time.monotonic() - began < 60
