"""The synthetic model: Phi-4-mini's shapes, finite weights of an initialisation's size, the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mini.errors import BadInput
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.sources.synthetic import write_synthetic
from phi4mini.weights.store.store import open_store


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "m.phi4"
    write_synthetic(path, "q4", layers=1)
    return open_store(path, verify=True)


def test_it_has_phi4_minis_shapes_and_tokenizer(one_layer):
    assert {name: entry.shape for name, entry in one_layer.entries.items() if entry.shape} == tensor_names.arrays(
        one_layer.config
    )
    assert one_layer.config.hidden_size == Config.phi4_mini().hidden_size and one_layer.config.num_layers == 1
    assert one_layer.tokenizer.is_phi4 and one_layer.chat_format == "phi"
    assert one_layer.weights.head is one_layer.weights.embed


def test_weights_look_like_a_fresh_initialisation(one_layer):
    layer = one_layer.weights.layers[0]
    for matrix in (layer.qkv, layer.o, layer.gate_up, layer.down, one_layer.weights.embed):
        rows = matrix.rows_at(np.arange(0, matrix.rows, matrix.rows // 50))
        assert abs(rows.std() - 0.02) < 0.001 and abs(rows.mean()) < 0.001


def test_rows_do_not_repeat_at_once(one_layer):
    rows = one_layer.weights.embed.rows_at(np.arange(0, 40 * 2048, 2048))
    assert len(np.unique(rows[:, :64], axis=0)) == 40, "each turn of the pool is turned further"


def test_activations_stay_finite(one_layer):
    """What a layer adds to the residual stream is as large as what it was given, so 32 layers cannot overflow."""
    layer = one_layer.weights.layers[0]
    x = one_layer.weights.embed.rows_at(np.array([200021, 13225, 200020]))
    x /= np.sqrt((x**2).mean(axis=1, keepdims=True))  # what the norm does
    gate, up = np.split(layer.gate_up.dequantize() @ x.T, 2)
    added = layer.down.dequantize() @ (gate / (1 + np.exp(-gate)) * up)
    assert 0.1 < added.std() < 10


def test_the_same_arguments_give_the_same_bytes(one_layer, tmp_path):
    write_synthetic(tmp_path / "again.phi4", "q4", layers=1)
    assert open_store(tmp_path / "again.phi4").header == one_layer.header


@pytest.mark.parametrize("layers", [0, 33])
def test_layers_are_bounded(tmp_path, layers):
    with pytest.raises(BadInput, match="1 to 32 layers"):
        write_synthetic(tmp_path / "m.phi4", layers=layers)
