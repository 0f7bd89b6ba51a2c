"""bench on the demo model: the JSON's names, and the bytes and shares it computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi4mini.weights.store.store import open_store
from tests.cli.conftest import refused


def test_the_json_ends_with_one_object(phi4mini, demo_store):
    weights = open_store(demo_store("q4")).weights
    done = phi4mini("bench", "-m", "demo", "-p", "32", "-n", "4", "-d", "16", "-r", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["pp_tok_s"] > 0 and found["tg_tok_s"] > 0 and len(found["pp_tok_s_all"]) == 2
    matrices = sum(m.nbytes for w in weights.layers for m in (w.qkv, w.o, w.gate_up, w.down)) + weights.head.nbytes
    assert found["bytes_per_token"] == matrices + 50 * weights.config.kv_bytes_per_token("int8")
    assert found["read_gb_s"] == pytest.approx(found["bytes_per_token"] * found["tg_tok_s"] / 1e9)
    assert found["read_share"] == pytest.approx(found["read_gb_s"] / found["read_ceiling_gb_s"])
    assert found["dot_share"] == pytest.approx(found["dot_gops"] / found["dot_ceiling_gops"])
    assert 0 < found["dot_share"] < 1
    assert 98e6 < found["resident_bytes"] < 1e9


def test_people_get_a_table(phi4mini, demo_store):
    demo_store("q4")
    done = phi4mini("bench", "-m", "demo", "-p", "8", "-n", "2", "-r", "1")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["pp", "tg", "peak"]
    assert "tok/s" in done.stdout and "1/1" in done.stderr


def test_what_does_not_fit_is_refused(phi4mini, demo_store):
    demo_store("q4")
    done = phi4mini("bench", "-m", "demo", "-c", "64", "-p", "512")
    assert done.returncode == 2 and "514" in done.stderr.splitlines()[-1] and done.stdout == ""
    refused(phi4mini("bench", "-m", "demo", "-p", "0"), "0")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_is_this_process_own_and_not_its_parents(phi4mini, demo_store):
    demo_store("q4")
    held = bytearray(b"x" * 1_200_000_000)  # of this process, from which the command is started
    found = json.loads(phi4mini("bench", "-m", "demo", "-p", "8", "-n", "2", "-r", "1", "--json").stdout)
    assert found["resident_bytes"] < 1e9 < len(held)
