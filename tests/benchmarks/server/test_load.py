"""The load client against a small real server: what is an answer, what a failure, and the figures of a loop."""

from __future__ import annotations

import asyncio
import re

import pytest

from benchmarks.server.load import Answer, Phase, ask, closed_loop, figures, first_texts
from benchmarks.server.wire import Target, WireError, fetch
from tests.benchmarks.tiny_server import tiny_server, url_of


@pytest.fixture(scope="module")
def server():
    with tiny_server() as running:
        yield running


@pytest.fixture
def target(server):
    return Target.parse(url_of(server))


def question(text: str) -> dict:
    return {"max_tokens": 8, "messages": [{"role": "user", "content": text}]}


def test_an_address_is_read_with_or_without_v1():
    assert Target.parse("http://127.0.0.1:8080/v1/") == Target("127.0.0.1", 8080)
    assert Target.parse("https://host/base/v1") == Target("host", 443, True, "/base")
    assert b"Host: [::1]:80\r\n" in Target.parse("http://[::1]:80").request("GET", "/", None)
    assert b"Authorization: Bearer k\r\n" in Target.parse("http://h", "k").request("GET", "/", None)
    with pytest.raises(ValueError, match="is not an address"):
        Target.parse("127.0.0.1:8080")


def test_an_answer_is_read_whole_and_timed(target):
    answer = asyncio.run(ask(target, question("one two three"), 5))
    assert (answer.error, answer.text, answer.prompt) == (None, " one two three answered", 5)
    assert (answer.prompt_tokens, answer.output_tokens, answer.finish_reason) == (10, 4, "stop")
    assert len(answer.stamps) == 4 and len(answer.itl) == 3
    assert 0.002 <= answer.ttft < answer.e2el
    assert answer.tpot == pytest.approx((answer.e2el - answer.ttft) / 3)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("fail", "status 500"),
        ("cut", "without .DONE."),
        ("hang up", "ended before the answer did"),
        ("error", "numerical_error"),
    ],
)
def test_an_answer_that_is_not_whole_has_failed(target, asked, reason):
    answer = asyncio.run(ask(target, question(asked)))
    assert answer.error and re.search(reason, answer.error) and "\n" not in answer.error


def test_a_server_that_is_not_there_is_named():
    answer = asyncio.run(ask(Target("127.0.0.1", 1), question("x")))
    assert answer.error and answer.error.startswith("127.0.0.1:1: ")
    with pytest.raises(WireError, match=r"127\.0\.0\.1:1: "):
        asyncio.run(fetch(Target("127.0.0.1", 1), "GET", "/"))


def test_patience_ends(target):
    assert asyncio.run(ask(target, question("one two"), patience=0.003)).error == "no whole answer within 0.003 s"


def test_users_share_the_questions_and_rounds_share_no_cache(server, target):
    bodies = [question("one"), question("two"), question("three")]
    phase = asyncio.run(closed_loop(target, bodies, users=2, requests=5, salt="s", patience=10))
    assert sorted(a.prompt for a in phase.answers) == [0, 0, 1, 1, 2]
    asked = [(b["messages"][-1]["content"], b["cache_salt"]) for b in server.bodies if "cache_salt" in b]
    assert sorted(asked) == [("one", "s-0"), ("one", "s-1"), ("three", "s-0"), ("two", "s-0"), ("two", "s-1")]
    assert phase.duration >= max(a.e2el for a in phase.answers)


def test_an_answer_that_company_changes_is_not_correct(target):
    bodies = [question("together"), question("apart")]
    alone = first_texts(asyncio.run(closed_loop(target, bodies, 1, 2, None, 10)).answers)
    phase = asyncio.run(closed_loop(target, bodies, 6, 12, None, 10))
    assert figures(phase, {}, {1: alone[1]})["correct"] == 1.0
    assert 0.5 <= figures(phase, {}, alone)["correct"] < 1.0


def test_figures_are_vllm_s():
    """By hand: two answers and a failure in two seconds."""
    quick = Answer(0, 10.0, [10.1, 10.2, 10.4], 10.5, "a", 7, 5)
    slow = Answer(1, 10.0, [10.8], 10.9, "b", 3, 1)
    broken = Answer(1, 10.0, error="status 500", end=11.0)
    found = figures(Phase(3, [quick, slow, broken], 2.0), {"ttft": 500}, {0: "a", 1: "x"})
    assert (found["completed"], found["failed"], found["correct"]) == (2, 1, 0.5)
    assert (found["request_throughput"], found["request_goodput"]) == (1.0, 0.5)
    assert (found["output_throughput"], found["total_token_throughput"]) == (3.0, 8.0)
    assert found["mean_ttft_ms"] == pytest.approx(450)
    assert found["mean_tpot_ms"] == pytest.approx(100)  # (0.5 - 0.1) / 4; the other has one token
    assert (found["median_itl_ms"], found["p99_itl_ms"]) == (pytest.approx(150), pytest.approx(199))
    assert found["p99_e2el_ms"] == pytest.approx(896)
    assert {f"{name}_{kind}_ms" for name in ("mean", "median", "p99") for kind in ("ttft", "tpot", "itl", "e2el")} <= {
        *found
    }


def test_nothing_done_is_no_figure():
    found = figures(Phase(1, [Answer(0, 0.0, error="no")], 1.0), {}, {0: "a"})
    assert (found["completed"], found["mean_ttft_ms"], found["correct"]) == (0, None, None)
