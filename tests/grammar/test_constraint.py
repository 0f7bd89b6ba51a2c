"""What a constraint promises: bits, ends, forced ids, and that nothing but its own ids decides."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from phi4mini.errors import BadInput
from phi4mini.grammar import Grammars
from phi4mini.tokenizer.phi4 import END, ENDOFTEXT, FIRST_FREE, PLACEHOLDERS
from tests.grammar.following import admits, allowed, allows, wander

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["new", "old", "größer"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def test_the_import_loads_neither_llguidance_nor_a_tokenizer():
    code = "import phi4mini.grammar, sys; print({'llguidance', 'tokenizers', 'llvmlite'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


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


def test_constraints_are_independent(phi, grammars):
    """What one request drives its lexer to must not reach the next with the same grammar."""
    pattern = "(.*a.{12}b){3}"
    first, second = grammars.regex(pattern), grammars.regex(pattern)
    before = second.mask().copy()
    wander(first, 1, most=60)
    again = grammars.regex(pattern)
    assert (again.mask() == before).all() and (second.mask() == before).all()
    assert wander(second, 2, most=40) == wander(again, 2, most=40)


def test_several_threads_may_ask_at_once(phi, grammars):
    made: list[str] = []

    def ask(seed: int) -> None:
        made.append(phi.decode(wander(fresh.json_schema(PERSON), seed)))

    fresh = Grammars.of(phi, phi.vocab_size, (END,))
    threads = [Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = [phi.decode(wander(grammars.json_schema(PERSON), seed)) for seed in range(4)]
    assert sorted(made) == sorted(alone)


def test_end_ids_are_checked(phi):
    with pytest.raises(BadInput, match="end ids from 0 to 9"):
        Grammars.of(phi, 10, (10,))
    with pytest.raises(BadInput, match="got none"):
        Grammars.of(phi, 10, ())


def test_a_model_with_more_rows_than_tokens(phi):
    wide = Grammars.of(phi, phi.vocab_size + 100, (END,)).json_object()
    assert wide.mask().shape == ((phi.vocab_size + 131) // 32,)
    assert max(allowed(wide)) < phi.vocab_size


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _many(grammars: Grammars, first: int, count: int) -> None:
    for i in range(first, first + count):
        schema = {"type": "object", "properties": {f"key_{i}": {"type": "string", "pattern": f"^v{i}[a-z]*$"}}}
        grammars.json_schema({**schema, "required": [f"key_{i}"]}).forced()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_E4_many_different_schemas_leave_memory_flat(phi, grammars, count):
    phi.encode("a long text has the tokenizer build its tables now " * 1000)
    _many(grammars, 0, 300)
    before = resident()
    _many(grammars, 300, count)
    assert resident() - before < 8 << 20


def test_E3_what_fails_at_the_first_mask_fails_in_the_call(grammars):
    start = time.perf_counter()
    with pytest.raises(BadInput, match=r"^the grammar cannot be used: a step is too complex$"):
        grammars.lark("start: " + '("a"?) ' * 2300)
    assert time.perf_counter() - start < 1


def test_E3_what_fails_later_names_the_place(grammars):
    doubling = "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(60))
    constraint = grammars.lark(f'start: a0\n{doubling}\na60: "x"')
    with pytest.raises(BadInput, match=r"^the grammar failed after 0 tokens: a step is too complex$"):
        constraint.accept(constraint.forced()[0])
    with pytest.raises(BadInput, match="a step is too complex"):
        constraint.mask()
