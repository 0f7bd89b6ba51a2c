"""bench --profile on the demo model: the parts add up, and the bytes are the store's."""

from __future__ import annotations

import json

import pytest

from phi4mini.engine.profile import OUTSIDE, Part, Split, quicker, typical
from phi4mini.weights.store.store import open_store
from tests.cli.conftest import refused

LAYER = ["qkv", "rope+append", "attend", "merge", "o", "gate_up", "swiglu", "down"]
OPERATIONS = ["norm", *LAYER, "head rows", "head", "second look"]
NEW, PROMPT, DEPTH = 24, 48, 100


@pytest.fixture(scope="module")
def found(phi4mini, demo_store):
    demo_store("q4")
    size = ("-p", str(PROMPT), "-n", str(NEW), "-d", str(DEPTH), "-r", "4")
    done = phi4mini("bench", "-m", "demo", *size, "--profile", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def weights(demo_store):
    return open_store(demo_store("q4")).weights


def parts(found, kind):
    return {part["name"]: part for part in found[kind]["parts"]}


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_the_parts_add_up_to_the_wall_time(found, kind):
    split, named = found[kind], parts(found, kind)
    assert sorted(named) == sorted([*OPERATIONS, *OUTSIDE])
    assert sum(p["us"] for p in named.values()) == pytest.approx(split["us"])
    assert sum(p["share"] for p in named.values()) == pytest.approx(1)
    assert split["kernels_us"] == pytest.approx(split["us"] - sum(named[name]["us"] for name in OUTSIDE))
    assert all(p["us"] > 0 for p in named.values())


@pytest.mark.parametrize(("kind", "limit"), [("prefill", 1.5), ("decode", 1.15)])
def test_profiling_costs_little(found, kind, limit):
    """Against the same work without the profile, timed in between; a prompt's few samples carry the machine's noise."""
    assert found[kind]["us"] < limit * found[kind]["plain_us"]
    assert 0.5 < found[kind]["kernels_us"] / found[kind]["us"] < 1


def test_a_token_reads_every_weight_once_and_what_it_sees(found, weights):
    named, config = parts(found, "decode"), weights.config
    matrices = [w for w in named if w in ("qkv", "o", "gate_up", "down", "head")]
    assert sum(named[name]["bytes"] for name in matrices) == weights.nbytes
    tokens = named["attend"]["bytes"] / config.kv_bytes_per_token("int8")
    assert DEPTH + PROMPT < tokens <= DEPTH + PROMPT + NEW
    assert [p["name"] for p in named.values() if p["bytes"] is None] == [
        name for name in named if name not in (*matrices, "attend")
    ]
    assert named["head"]["gb_s"] == pytest.approx(named["head"]["bytes"] / named["head"]["us"] / 1e3)


def test_a_prompt_computes_what_its_shapes_need(found, weights):
    named, c = parts(found, "prefill"), weights.config
    layer = sum(rows * cols for rows, cols in c.layer_shapes.values())
    body = sum(named[name]["operations"] for name in ("qkv", "o", "gate_up", "down"))
    assert body == 2 * PROMPT * c.num_layers * layer
    assert named["head"]["operations"] == 2 * c.vocab_size * c.hidden_size  # asked for once, behind the last token
    seen = sum(DEPTH + at + 1 for at in range(PROMPT))
    assert named["attend"]["operations"] == 4 * c.num_layers * c.q_rows * seen
    assert (named["norm"]["calls"], named["qkv"]["calls"], named["head"]["calls"]) == (2 * c.num_layers + 1, 30, 1)


def test_people_get_two_tables(phi4mini, demo_store):
    demo_store("q4")
    done = phi4mini("bench", "-m", "demo", "-p", "500", "-n", "1", "-r", "1", "--profile")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "a prompt of 500 tokens from the start, 2 passes"
    assert "a token after 500 to 501 others" in lines
    heads = [line.split() for line in lines if line.startswith("operation")]
    assert heads == [
        ["operation", "calls", "us", "share", "operations", "GOPS"],
        ["operation", "calls", "us", "share", "bytes", "GB/s"],
    ]
    assert sum(line.startswith("gate_up ") for line in lines) == 2
    assert "counter ticks every" in lines[-1]


def test_what_does_not_fit_is_refused(phi4mini, demo_store):
    demo_store("q4")
    done = phi4mini("bench", "-m", "demo", "-c", "64", "-p", "512", "--profile")
    assert done.returncode == 2 and "514" in done.stderr.splitlines()[-1] and done.stdout == ""
    refused(phi4mini("bench", "-m", "demo", "-n", "0", "--profile"), "0")


def test_a_pass_that_was_disturbed_is_left_out():
    assert quicker([3.0, 1.0, 9.0]) == [1.0, 3.0]
    splits = [Split(s, {"norm": Part(2, s / 2, bytes=b)}) for s, b in ((1.0, 10), (3.0, 20), (50.0, 30))]
    made = typical(splits)
    assert made.seconds == 2.0
    assert made.parts["norm"] == Part(2, 1.0, bytes=15)
