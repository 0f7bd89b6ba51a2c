"""The same comparisons as tests/model/test_reference.py, with the Transformers installed here and with fresh seeds.

`make test-live` runs this; without torch and transformers every test is skipped with that reason.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4mini.model import reference
from tests.golden import twins

torch = pytest.importorskip("torch", reason="needs torch==2.13.0, which `make test-live` installs")
transformers = pytest.importorskip("transformers", reason="needs transformers, which `make test-live` installs")

from tests.golden import make_golden  # noqa: E402  (it imports torch)

F32, F64 = 2e-4, 2e-5  # as in tests/model/test_reference.py, where they are derived
CLEAR = 0.005  # a margin between the best two logits that rounding cannot overturn
LENGTHS = (1, 2, 25, *make_golden.LENGTHS)


@functools.cache
def fresh(name: str) -> tuple[Any, list[int], dict[str, dict]]:
    """A twin nobody has seen: the first seed from 1000 on whose greedy answers are all clear."""
    for seed in range(1000, 1100):
        model, ids = make_golden.build(name, seed), make_golden.sequence(seed)
        answers = make_golden.answers(model, ids)
        if all(a["smallest_margin"] > CLEAR for a in answers.values()):
            return model, ids, answers
    raise AssertionError(f"no clear seed for {name}: did `generate` leave the rule of a fresh pass?")


def as_weights(model: Any, name: str) -> Any:
    tensors = {key: value.detach().numpy() for key, value in model.state_dict().items()}
    return twins.fuse(tensors, twins.config_of(twins.HERE / name))


@functools.cache
def saved(name: str, folder: Path) -> Path:
    model, _, _ = fresh(name)
    make_golden.save(model, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where fresh twins are saved; the packed stores made from them go beside, not into the user's cache."""
    where = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI4MINI_HOME", str(where / "home"))
        yield where


@pytest.mark.parametrize("name", twins.NAMES)
def test_the_golden_files_are_what_transformers_says_today(name: str) -> None:
    golden = twins.golden(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(twins.HERE / name, dtype=torch.float32).eval()
    for length in golden["lengths"]:
        rows = make_golden.logits(model, golden["ids"][:length])[[0, length // 2, length - 1]]
        assert np.abs(rows - golden["logits"][f"f32_{length}"]).max() < F32
    for answer in golden["answers"].values():
        assert make_golden.greedy(model, answer["prompt"]) == answer["greedy"]


@pytest.mark.parametrize("name", twins.NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_definition_logits_on_a_fresh_twin(name: str, dtype: Any) -> None:
    model, ids, _ = fresh(name)
    weights, wide = as_weights(model, name), make_golden.double(model)
    for length in LENGTHS:
        got = reference.forward(weights, ids[:length], dtype=dtype)
        assert np.abs(got - make_golden.logits(wide, ids[:length])).max() < (F32 if dtype is np.float32 else F64)
        assert np.abs(got - make_golden.logits(model, ids[:length])).max() < F32


@pytest.mark.parametrize("name", twins.NAMES)
def test_definition_is_exact_but_for_the_last_place_of_the_rotary_tables(name: str) -> None:
    """With our tables put into transformers, float64 agrees to float64's own rounding: nothing else differs."""
    model, ids, _ = fresh(name)
    weights, wide = as_weights(model, name), make_golden.double(model)

    def tables(x: Any, position_ids: Any) -> tuple[Any, Any]:
        where = position_ids[0].numpy()
        pair = weights.config.rope_table(where, weights.config.rope_set(len(where)))
        cos, sin = (torch.from_numpy(np.concatenate([t, t], axis=1))[None].to(x.dtype) for t in pair)
        return cos, sin

    wide.model.rotary_emb.forward = tables
    for length in LENGTHS:
        got = reference.forward(weights, ids[:length], dtype=np.float64)
        assert np.abs(got - make_golden.logits(wide, ids[:length])).max() < 1e-11


@pytest.mark.parametrize("name", twins.NAMES)
def test_definition_greedy_on_a_fresh_twin(name: str) -> None:
    model, _, answers = fresh(name)
    weights = as_weights(model, name)
    for answer in answers.values():
        ids = list(answer["prompt"])
        for token in answer["greedy"]:
            assert int(reference.forward(weights, ids)[-1].argmax()) == token
            ids.append(token)


@pytest.mark.parametrize("name", twins.NAMES)
def test_config_reads_what_transformers_saves(name: str, folder: Path) -> None:
    assert twins.config_of(saved(name, folder)) == twins.config_of(twins.HERE / name)


@pytest.mark.parametrize("name", twins.NAMES)
def test_engine_logits_on_a_fresh_twin(name: str, folder: Path) -> None:
    import phi4mini

    model, ids, _ = fresh(name)
    with phi4mini.load(str(saved(name, folder)), quant="f32", kv="f32") as ours:
        for length in LENGTHS:
            got = ours.logits(ids[:length])
            assert got.dtype == np.float32
            assert np.abs(got - make_golden.logits(model, ids[:length])).max() < F32


@pytest.mark.parametrize("name", twins.NAMES)
def test_engine_greedy_on_a_fresh_twin(name: str, folder: Path) -> None:
    import phi4mini

    _, _, answers = fresh(name)
    with phi4mini.load(str(saved(name, folder)), quant="f32", kv="f32") as ours:
        for place, answer in answers.items():
            got = ours.generate(answer["prompt"], max_new_tokens=make_golden.NEW_TOKENS, temperature=0.0)
            assert list(got.ids) == answer["greedy"], place
