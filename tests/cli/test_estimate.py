"""estimate: the sizes of Phi-4-mini by hand, and agreement with what the engine really allocates."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phi4mini.cli.doctor import tiny_weights
from phi4mini.engine.compute.buffers import Buffers
from phi4mini.formats.format_table import FORMATS
from phi4mini.llm.estimate import compute_bytes, estimate, recipe_formats, weight_bytes
from phi4mini.model.config import Config
from phi4mini.weights.store.store import open_store
from tests.cli.conftest import as_hf, refused

PHI = Config.phi4_mini()
MATRICES = PHI.num_parameters - (2 * PHI.num_layers + 1) * PHI.hidden_size  # norms are kept as f32


def test_phi_4_mini_by_hand(phi4mini):
    done = phi4mini("estimate", "-c", "1000", "--json")
    found = json.loads(done.stdout)
    assert found["weights"] == MATRICES * 4.5 / 8 + 65 * 3072 * 4
    assert found["kv_per_token"] == 32 * 8 * (2 * 128 + 2 * 4) and found["kv"] == 1000 * found["kv_per_token"]
    assert found["total"] == found["weights"] + found["kv"] + found["compute"]
    assert found["longest"] == 131072 and found["largest_ctx"] <= 131072


def test_people_get_the_four_lines(phi4mini):
    lines = phi4mini("estimate").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["weights", "KV", "compute", "total", "largest"]
    assert "2.16 GB" in lines[0] and "4096 tokens" in lines[1]


@pytest.mark.parametrize("room", [0, 1, 12345, 10**9])
def test_the_largest_context_is_the_largest(room):
    def fits(ctx, available):
        return estimate(PHI, 2_000_000_000, "int8", ctx, available).fits

    available = 2_000_000_000 + compute_bytes(PHI) + room
    largest = estimate(PHI, 2_000_000_000, "int8", 1, available).largest_ctx
    assert fits(largest, available)
    assert not fits(largest + 1, available)


def test_weights_are_to_the_byte_those_of_the_store(demo_store):
    opened = open_store(demo_store("q4"))
    formats = {name: FORMATS[entry.format] for name, entry in opened.entries.items() if len(entry.shape) == 2}
    assert weight_bytes(opened.config, formats) == sum(e.nbytes for e in opened.entries.values() if e.shape)
    assert recipe_formats(PHI, "q8")["embed"].name == "q8"


def test_compute_is_what_the_engine_allocates(demo_store):
    weights = open_store(demo_store("f32")).weights
    buffers = Buffers(weights.config, weights, 2)
    for layer in weights.layers:
        for role, matrix in (("hidden", layer.qkv), ("attention", layer.o), ("feed_forward", layer.down)):
            buffers.sink(role, matrix)
    allocated = sum(a.nbytes for a in vars(buffers).values() if isinstance(a, np.ndarray))
    allocated += sum(sink.q.nbytes for sink in buffers._sinks.values())
    assert compute_bytes(weights.config) == pytest.approx(allocated, rel=0.1)


def test_a_folder_with_its_config_is_enough(phi4mini, tmp_path):
    refused(phi4mini("estimate", "-m", str(tmp_path)), "config.json")
    config = tiny_weights().config
    (tmp_path / "config.json").write_text(json.dumps(as_hf(config)))
    found = json.loads(phi4mini("estimate", "-m", str(tmp_path), "-q", "f32", "--json").stdout)
    assert found["weights"] == config.num_parameters * 4 and found["ctx"] == 64


def test_what_cannot_be_estimated_is_refused(phi4mini, tmp_path):
    refused(phi4mini("estimate", "-c", "999999"), "999999", "131072")
    refused(phi4mini("estimate", "-m", "some/model", HF_HOME=str(tmp_path)), "some/model", "config.json")
    refused(phi4mini("estimate", "-q", "q3"), "q3")
