"""Ids in every form people have them in, and tensors out."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.errors import BadInput
from phi4mini.transformers_api.ids import as_kind, filled, flat, is_batch, kind_of, masks_of, rows_of, tensor

ROWS = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=5), min_size=1, max_size=4)
HAS_TORCH = importlib.util.find_spec("torch") is not None


@settings(deadline=None)
@given(ROWS)
def test_TF8_rows_are_the_same_in_every_form(rows):
    assert rows_of(rows) == rows_of(tuple(map(tuple, rows))) == rows_of([np.array(row) for row in rows]) == rows
    square = filled(rows, 7, max(map(len, rows)))
    assert rows_of(np.array(square)) == rows_of(np.array(square, np.int32)) == square
    assert rows_of(rows[0]) == rows_of(np.array(rows[0])) == [rows[0]]
    assert tensor(square, "np").tolist() == square and tensor(square, "np").dtype == np.int64
    assert kind_of(square, np.array(square)) == "np" and as_kind(np.array(square), "np").tolist() == square


@pytest.mark.parametrize(
    ("ids", "batch"),
    [
        ([], False), ([1], False), ([[1]], True), ([[]], True), (np.array(1), False), (np.array([1]), False),
        (np.array([[1]]), True), ((), False), ([np.array([1])], True), (3, False), ([(1, 2)], True),
    ],
)  # fmt: skip
def test_what_a_batch_is(ids, batch):
    assert is_batch(ids) is batch


CUBE = np.zeros((1, 1, 1))


@pytest.mark.parametrize("bad", ["text", b"x", {"input_ids": [1]}, 3, None, [["a"]], [None], [[[1]]], CUBE])
def test_what_is_no_ids_is_said(bad):
    with pytest.raises(BadInput, match=r"ids"):
        rows_of(bad)


def test_one_id_is_a_row():
    assert flat(3) == flat(np.int64(3)) == flat(np.array(3)) == flat([3]) == [3]


def test_a_mask_has_the_shape_of_its_ids():
    assert masks_of([[1, 2]], np.array([[0, 1]])) == [[0, 1]]
    with pytest.raises(BadInput, match="attention_mask"):
        masks_of([[1, 2]], [[1]])


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed: tests/live holds what is then promised")
def test_TF8_without_torch_the_error_is_one_line(tok):
    for wanted in (lambda: tok("Hi", return_tensors="pt"), lambda: tensor([[1]], "pt")):
        with pytest.raises(BadInput, match="torch, which is not installed") as caught:
            wanted()
        assert "\n" not in str(caught.value)


def test_TF8_arrays_go_in_and_come_out(model, tok):
    rows = tok(["Hello", "Hello"], return_tensors="np")
    made = model.generate(**rows, max_new_tokens=2)
    assert isinstance(made, np.ndarray) and made.dtype == np.int64 and (made[0] == made[1]).all()
    for form in (rows.input_ids, rows.input_ids.tolist(), rows.input_ids.astype(np.int32)):
        assert (model.generate(form, max_new_tokens=2) == made).all()
    assert (model.generate(rows.input_ids[0], max_new_tokens=2) == made[:1]).all()


def test_texts_of_different_lengths_need_padding_to_be_a_tensor(tok):
    with pytest.raises(BadInput, match="padding=True"):
        tok(["Hi", "Hello you"], return_tensors="np")
