"""The driver's own logic: what is chosen, what a failing row does, what the picture shows, what a result keeps."""

from __future__ import annotations

import json
import platform
import re

import pytest

from benchmarks import machine, run
from benchmarks.model import plot
from benchmarks.model.bench import Bench
from benchmarks.peers import Absent, prepared, python_of
from benchmarks.prepare import hf_config
from benchmarks.report import Line
from benchmarks.workers.driver import WorkerFailed


def test_rows_are_chosen_by_number():
    assert run._parse(["--rows", "1,7"]).rows == {1, 7}
    with pytest.raises(SystemExit):
        run._parse(["--rows", "9"])


def test_every_row_is_planned_once():
    assert sorted(row for rows, _ in run.PLAN for row in rows) == sorted(run.ALL)


def test_a_row_that_fails_says_so_and_the_others_go_on(monkeypatch, capsys, tmp_path):
    def broken(bench: Bench, rows: set[int]) -> list[Line]:
        raise WorkerFailed("it died")

    monkeypatch.setattr(run, "PLAN", [({1, 2}, broken), ({7}, lambda bench, rows: [Line(7, "demo", "1 tok/s")])])
    assert run.main(["--rows", "1,7", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "failed: it died" in out and "1 tok/s" in out
    assert json.loads(out.splitlines()[-1])["lines"][0]["met"] is False
    assert sorted(p.suffix for p in tmp_path.iterdir())[:2] == [".json", ".md"]


def test_an_absent_peer_is_named_with_what_brings_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PHI4MINI_BENCH_LLAMA", str(tmp_path / "python"))
    with pytest.raises(Absent, match="llama is not installed: make bench-peers"):
        python_of("llama")
    with pytest.raises(Absent, match=r"model\.gguf is not prepared: make bench-peers"):
        prepared(tmp_path / "model.gguf")


def test_points_are_what_was_measured():
    some, none = {"median": 15.0}, {"median": None}
    single = {"ours": {"decode_tok_s": some, "prefill_tok_s": none}}
    data = {"single": single, "streams": {"ours": {"4": {"median": 50.0}}, "llama": {"4": none}}}
    assert plot.points(data) == {"ours": [(1.0, 15.0), (4.0, 50.0)]}


def test_roofs_are_those_of_the_page():
    passes, tokens = plot.roofs(32, 33.0, 927.0)
    assert (round(passes, 1), round(tokens, 1)) == (15.3, 143.9)


def test_a_machine_is_described_without_its_name():
    described = machine.describe(2)
    name = re.escape(platform.node())
    assert name in ("", "localhost") or not re.search(rf"\b{name}\b", json.dumps(described))
    assert set(machine.file_name(described)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_the_export_has_phi_s_numbers():
    numbers = hf_config(3)
    assert (numbers["num_hidden_layers"], numbers["partial_rotary_factor"]) == (3, 0.75)
    assert len(numbers["rope_scaling"]["short_factor"]) == 48
