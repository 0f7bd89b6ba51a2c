"""What a constraint promises: bits, ends, forced ids, and that its state depends on the accepted ids alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from phi4mini.errors import BadInput
from phi4mini.tokenizer.phi4 import END, ENDOFTEXT, FIRST_FREE, PLACEHOLDERS
from tests.grammar.following import PERSON, admits, allowed, allows, wander


def test_a_mask_has_a_bit_for_every_id(phi, grammars):
    mask = grammars.json_object().mask()
    assert mask.dtype == np.uint32 and mask.shape == ((phi.vocab_size + 31) // 32,)
    assert all(phi.token_bytes(id).startswith(b"{") for id in allowed(grammars.json_object()))


def test_random_answers_fit_the_schema(phi, grammars):
    for seed in range(20):
        person = json.loads(phi.decode(wander(grammars.json_schema(PERSON), seed)))
        assert list(person) == ["name", "age", "tags"]
        assert len(person["name"]) <= 12 and 0 <= person["age"] <= 150
        assert len(person["tags"]) <= 3 and set(person["tags"]) <= {"new", "old", "größer"}


def test_json_is_spaced_in_one_way(phi, grammars):
    person = {"name": "Ada", "age": 36, "tags": ["new", "old"]}
    assert admits(grammars.json_schema(PERSON), phi, json.dumps(person))
    for text in (json.dumps(person, separators=(",", ":")), json.dumps(person, indent=1), f" {json.dumps(person)}"):
        assert not admits(grammars.json_schema(PERSON), phi, text)


def test_after_the_end_only_the_end_ids(grammars):
    constraint = grammars.regex("[a-z]{3}")
    wander(constraint, 0)
    assert constraint.done and constraint.forced() == [] and allowed(constraint) == [ENDOFTEXT, END]
    with pytest.raises(BadInput, match="id 64 may not come next"):
        constraint.accept(64)
    constraint.accept(END)
    assert constraint.done and allowed(constraint) == [ENDOFTEXT, END]


def test_an_answer_that_may_end_is_not_done(phi, grammars):
    constraint = grammars.regex("ab?")
    constraint.accept(phi.encode("a")[0])
    assert not constraint.done
    assert {ENDOFTEXT, END, *phi.encode("b")} == set(allowed(constraint))


def test_what_may_not_come_next_is_an_error_not_a_silence(phi, grammars):
    constraint = grammars.json_object()
    with pytest.raises(BadInput, match=r"the schema.*after 0 tokens"):
        constraint.accept(phi.encode("x")[0])


def test_free_text_has_no_control_tokens_placeholders_or_free_rows(phi, grammars):
    constraint = grammars.regex("(?s:.+)")
    never = set(phi.control_ids) | set(PLACEHOLDERS.values()) | set(range(FIRST_FREE, phi.vocab_size))
    assert never.isdisjoint(allowed(constraint))
    assert len(allowed(constraint)) > 150_000


def test_forced_ids_are_the_only_ones_and_change_nothing(grammars):
    constraint = grammars.json_schema(PERSON)
    forced = constraint.forced()
    assert forced and forced == constraint.forced()
    for id in forced:
        assert allowed(constraint) == [id]
        constraint.accept(id)


def test_forced_text_has_its_canonical_ids(phi, grammars):
    text = json.dumps({"a sentence": "The quick brown fox; 12345 times, größer als 🦊"}, ensure_ascii=False)
    constraint = grammars.json_schema({"const": json.loads(text)})
    ids = wander(constraint, 0)
    assert phi.decode(ids) == text
    assert ids == phi.encode(text)


@pytest.mark.parametrize("seed", range(6))
def test_the_state_depends_on_the_ids_alone(grammars, seed):
    """Asked for everything at each step, or replayed and hardly asked: the same masks and forced ids to the end."""
    ids = wander(grammars.json_schema(PERSON), seed)
    asked, replayed = grammars.json_schema(PERSON), grammars.json_schema(PERSON)
    for at, id in enumerate(ids):
        forced = asked.forced()
        assert forced == ids[at : at + len(forced)]
        assert allows(asked, id)
        asked.accept(id)
        replayed.accept(id)
        if at % 5 == seed % 5:
            assert (asked.mask() == replayed.mask()).all() and asked.forced() == replayed.forced()
    assert (asked.done, asked.mask().tolist()) == (replayed.done, replayed.mask().tolist())


@pytest.mark.parametrize("seed", range(6))
def test_taking_forced_ids_at_once_changes_no_answer(grammars, seed):
    """A model that likes some ids better than others, with forced ids and without."""

    def answer(use_forced: bool) -> list[int]:
        constraint, ids = grammars.json_schema(PERSON), []
        while not constraint.done:
            best = min(allowed(constraint), key=lambda id: id * 2_654_435_761 * (seed + len(ids) + 1) % 2**32)
            chosen = (constraint.forced() if use_forced else []) or [best]
            for id in chosen:
                constraint.accept(id)
            ids += chosen
        return ids

    assert answer(use_forced=True) == answer(use_forced=False)


def test_E3_what_fails_later_names_the_place(grammars):
    doubling = "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(60))
    constraint = grammars.lark(f'start: a0\n{doubling}\na60: "x"')
    with pytest.raises(BadInput, match=r"^the grammar failed after 0 tokens: a step is too complex$"):
        constraint.accept(constraint.forced()[0])
    with pytest.raises(BadInput, match="a step is too complex"):
        constraint.mask()
