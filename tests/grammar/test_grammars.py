"""One model's grammars: nothing is loaded early, requests do not meet, memory stays flat, bad ids are refused."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from phi4mini.errors import BadInput
from phi4mini.grammar import Grammars
from phi4mini.tokenizer.phi4 import END
from tests.grammar.following import PERSON, allowed, wander


def test_the_import_loads_neither_llguidance_nor_a_tokenizer():
    code = "import phi4mini.grammar, sys; print({'llguidance', 'tokenizers', 'llvmlite'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


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
