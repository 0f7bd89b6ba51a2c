"""The serving benchmark from its command line: table, JSON, files, and a server it starts itself."""

from __future__ import annotations

import json
import sys
import urllib.request

import pytest

from benchmarks import serve
from benchmarks.server.prompts import SHIPPED, prompts, question_of
from benchmarks.server.served import Served
from benchmarks.workers.driver import WorkerFailed
from tests.benchmarks.tiny_server import tiny_server, url_of
from tests.shared import SHARED, needs_shared


@pytest.fixture
def url():
    with tiny_server() as server:
        yield url_of(server)


def test_a_run_prints_and_keeps_a_table_and_one_json_line(url, tmp_path, capsys):
    few = ["--prompts", "3", "--max-tokens", "4", "--slo", "ttft:5000"]
    assert serve.main(["--url", url, "--users", "1,3", *few, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert [p["users"] for p in found["phases"]] == [1, 3]
    assert [(p["completed"], p["failed"]) for p in found["phases"]] == [(4, 0), (12, 0)], "four questions a user"
    assert [p["correct"] for p in found["phases"]] == [None, 1.0]
    assert found["phases"][1]["request_goodput"] == found["phases"][1]["request_throughput"]
    table = [line for line in lines if line.startswith("| ")]
    assert table[0].split() == ["|", "users", "|", "1", "|", "3", "|"]
    assert [row.split()[1] for row in table[2:]] == list(serve._FIGURES)
    kept = sorted(tmp_path.iterdir())
    assert [p.suffix for p in kept] == [".json", ".md"] and all(p.name.startswith("serve-") for p in kept)
    assert json.loads(kept[0].read_text(encoding="utf-8")) == found
    assert "127.0.0.1" not in kept[0].read_text(encoding="utf-8")


def test_one_user_comes_first_though_nobody_asked(url, tmp_path, capsys):
    assert serve.main(["--url", url, "--users", "2", "--prompts", "2", "--out", str(tmp_path)]) == 0
    phases = json.loads(capsys.readouterr().out.splitlines()[-1])["phases"]
    assert [(p["users"], p["correct"]) for p in phases] == [(2, 1.0)]


def test_a_failure_is_the_exit_code_and_said(url, tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "well"}\n{"question": "fail"}\n', encoding="utf-8")
    asked = ["--users", "1", "--requests", "2", "--data", str(data)]
    assert serve.main(["--url", url, *asked, "--out", str(tmp_path)]) == 1
    streams = capsys.readouterr()
    assert json.loads(streams.out.splitlines()[-1])["phases"][0]["failed"] == 1
    assert "failed: status 500" in streams.err


def test_what_cannot_be_asked_is_one_line(capsys, tmp_path):
    assert serve.main(["--url", "http://127.0.0.1:1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("benchmarks.serve: 127.0.0.1:1: ")
    assert not list(tmp_path.iterdir())
    for wrong in ([], ["--url", "http://h", "--peer"], ["--url", "http://h", "--slo", "speed:3"]):
        with pytest.raises(SystemExit):
            serve.main(wrong)


def test_an_absent_peer_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PHI4MINI_BENCH_LLAMA", str(tmp_path / "python"))
    command = [sys.executable, "-m", "tests.benchmarks.tiny_server"]
    with Served("", command=command) as served:
        a = serve._parse(["--peer", "--layers", "2"])
        assert (a.serve, a.ignore_eos) == ("synthetic:2", True)
        found = serve.peer(serve.Load(serve.Target.parse(served.url), "tiny/model", a), served, 2, a)
        with urllib.request.urlopen(f"{served.url}/ready", timeout=5) as answer:
            assert answer.status == 200  # it was held, and goes on
    assert found == {"absent": "llama is not installed: make bench-peers"}


def test_a_server_is_started_awaited_and_ended():
    with Served("", command=[sys.executable, "-m", "tests.benchmarks.tiny_server"]) as served:
        assert b"tiny/model" in urllib.request.urlopen(f"{served.url}/v1/models", timeout=5).read()
    assert served._process.returncode is not None
    with pytest.raises(WorkerFailed, match="has ended: no such model"):
        Served("", command=[sys.executable, "-c", "import sys; sys.exit('no such model')"]).__enter__()


def test_rows_are_read_in_every_form_and_long_ones_passed_over(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"question": "x" * 5000},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}]},
        {"question": "d"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = prompts(path, 3)
    assert [[m["content"] for m in messages] for messages in found] == [["a"], ["s", "c"], ["d"]]
    assert [m[0]["content"] for m in prompts(None, 2)] == list(SHIPPED[:2])
    with pytest.raises(ValueError, match="row 3 has no question"):
        question_of({"answer": "e"}, "row 3")


@needs_shared
@pytest.mark.parametrize(
    "name", ["sft/mixed_messages_2000.jsonl", "gsm8k/test_0000-0699.jsonl", "ifeval/input_300.jsonl"]
)
def test_the_shared_data_is_readable(name):
    assert len(prompts(SHARED / "data" / name, 16)) == 16
