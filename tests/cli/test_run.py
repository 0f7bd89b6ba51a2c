"""run: what goes to stdout, how a prompt is put together, and every way to refuse one."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.cli.conftest import COMMAND, DEMO, ROOT, environment, refused

CAPITAL = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module", autouse=True)
def store(demo_store):
    demo_store("f32")


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_answer_and_nothing_else_goes_to_stdout(phi4mini):
    done = phi4mini("run", *DEMO, CAPITAL)
    assert (done.returncode, done.stdout, done.stderr) == (0, ANSWER + "\n", "")


def test_stats_go_to_stderr(phi4mini):
    done = phi4mini("run", *DEMO, "--stats", "--threads", "1", CAPITAL)
    assert done.stdout == ANSWER + "\n"
    assert "prompt 37 tokens" in done.stderr and "answer 8 tokens" in done.stderr


def test_json_is_one_object_with_everything(phi4mini):
    found = answer(phi4mini("run", *DEMO, "--json", "-s", "7", CAPITAL))
    assert found["content"] == ANSWER and found["finish_reason"] == "stop" and found["seed"] == 7
    assert found["usage"] == {"prompt_tokens": 37, "completion_tokens": 8, "cached_tokens": 0}
    assert found["tool_calls"] == [] and found["timings"]["prefill_seconds"] > 0


def test_argument_files_and_stdin_make_one_prompt(phi4mini, tmp_path):
    path = tmp_path / "part"
    path.write_text("What is the capital")
    whole = answer(phi4mini("run", *DEMO, "--json", "Tell me:\n\nWhat is the capital\n\nof France?"))
    parts = answer(phi4mini("run", *DEMO, "--json", "Tell me:", "-f", str(path), stdin=b"of France?"))
    assert parts["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert parts["content"] == whole["content"]
    from_stdin = answer(phi4mini("run", *DEMO, "--json", stdin=f"{CAPITAL}\n".encode()))
    assert (from_stdin["content"], from_stdin["usage"]["prompt_tokens"]) == (ANSWER, 37)
    dash = answer(phi4mini("run", *DEMO, "--json", "-f", "-", stdin=CAPITAL.encode()))
    assert dash["usage"]["prompt_tokens"] == 37


def test_stop_length_and_raw(phi4mini):
    assert phi4mini("run", *DEMO, "--stop", "Paris", CAPITAL).stdout == "The capital of France is \n"
    cut = phi4mini("run", *DEMO, "-n", "3", CAPITAL)
    assert cut.stdout == "The capital of\n" and "cut after 3 tokens" in cut.stderr
    raw = answer(phi4mini("run", *DEMO, "--raw", "-n", "2", "--json", "The capital of France is"))
    assert raw["text"] == " Paris." and raw["usage"]["prompt_tokens"] == 5
    exact = answer(phi4mini("run", *DEMO, "--raw", "-n", "1", "--json", stdin=b"The capital of France is\n"))
    assert exact["usage"]["prompt_tokens"] == 6


def test_the_same_seed_gives_the_same_text(phi4mini):
    drawn = ("run", *DEMO, "--temp", "1.2", "--top-p", "0.95", "-n", "12", "--json", "Tell me a story.")
    first = answer(phi4mini(*drawn))
    again = answer(phi4mini(*drawn, "-s", str(first["seed"])))
    other = answer(phi4mini(*drawn, "-s", str(first["seed"] + 1)))
    assert again["content"] == first["content"] != other["content"]


def test_more_threads_than_cores_are_not_used_and_it_says_so(phi4mini):
    done = phi4mini("run", *DEMO, "-t", "999", CAPITAL)
    assert done.stdout == ANSWER + "\n" and done.stderr.startswith("using ") and "instead of 999" in done.stderr


def test_a_bias_moves_a_token(phi4mini):
    done = phi4mini("run", *DEMO, "-n", "1", "--logit-bias", "504-100", "--logit-bias", "7042+100", CAPITAL)
    assert done.stdout == " Paris\n"
    refused(phi4mini("run", *DEMO, "--logit-bias", "504x3", CAPITAL), "504x3")


def test_ctrl_c_stops_with_130_and_keeps_what_was_said():
    process = subprocess.Popen(
        [*COMMAND, "run", *DEMO, "--ignore-eos", "Tell me a story."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
    )
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first + said and (first + said).endswith(b"\n")
    assert told == b""


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(phi4mini):
    refused(phi4mini("run", *DEMO, "-c", "20", CAPITAL), "37", "20")
    refused(phi4mini("run", *DEMO, "-c", "1000000", CAPITAL), "1000000", "8192")


def test_a_prompt_that_is_not_utf8_is_refused_with_its_place(phi4mini, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(b"caf\xe9")
    refused(phi4mini("run", *DEMO, b"caf\xe9"), "the prompt", "0xe9", "offset 3")
    refused(phi4mini("run", *DEMO, stdin=b"caf\xe9"), "stdin", "offset 3")
    refused(phi4mini("run", *DEMO, "-f", str(path)), str(path), "offset 3")
    refused(phi4mini("run", *DEMO, "-sys", b"\xff", "Hi"), "--system", "offset 0")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--temp", "-1", "Hi"], ["temperature", "-1"]),
        (["--top-p", "2", "Hi"], ["top_p"]),
        (["-n", "0", "Hi"], ["--predict"]),
        (["-s", str(2**64), "Hi"], ["seed", str(2**64)]),
        (["-t", "0", "Hi"], ["threads", "0"]),
        (["--stop", "", "Hi"], ["stop"]),
        (["-f", "/nonexistent", "Hi"], ["/nonexistent"]),
        (["--tools", "/nonexistent", "Hi"], ["/nonexistent"]),
        (["--raw", "--system", "x", "Hi"], ["--raw"]),
        ([""], ["empty"]),
        ([], ["empty"]),
    ],
)
def test_bad_values_are_refused_by_name(phi4mini, arguments, parts):
    refused(phi4mini("run", *DEMO, *arguments), *parts)


def test_a_model_that_is_not_here_is_refused_and_demo_offered(phi4mini, tmp_path):
    nowhere = {"PHI4MINI_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    refused(phi4mini("run", "--offline", "Hi", **nowhere), "microsoft/Phi-4-mini-instruct", "-m demo")
    refused(phi4mini("run", "-m", "no-such-model", "Hi", **nowhere), "no-such-model")
    refused(phi4mini("run", "-m", "./nowhere.gguf", "Hi", **nowhere), "nowhere.gguf")
    refused(phi4mini("run", "-m", "demo", "-q", "q3", "Hi", **nowhere), "q3")
