"""The facts of an engine are true, and other rooms read them instead of looking inside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
INSIDE = (ROOT / "phi4mini" / "engine", ROOT / "tests" / "engine")  # the rooms that may read `engine.network`


@pytest.mark.parametrize("kv", ["int8", "f32"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_facts_are_those_of_the_network(kv: str, tied: bool) -> None:
    weights = tiny.weights(tiny.config(tie_word_embeddings=tied), "q4")
    made = tiny.engine(weights, kv, threads=3, pages=7)
    facts, cache = made.facts, made.network.cache
    assert (facts.kv, facts.threads, facts.kv_tokens) == (kv, 3, 7 * 64)
    assert facts.kv_tokens * facts.kv_token_bytes == cache.nbytes
    read = weights.head.nbytes + sum(m.nbytes for w in weights.layers for m in (w.qkv, w.o, w.gate_up, w.down))
    assert facts.pass_bytes == read
    made.close()


def network_readers(source: str) -> list[int]:
    """Lines on which a program reads an attribute `network`, by its name or by getattr."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "network":
            found.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            found += [node.lineno for arg in node.args if isinstance(arg, ast.Constant) and arg.value == "network"]
    return sorted(found)


def test_nobody_outside_the_engine_reads_its_network() -> None:
    folders = [ROOT / name for name in ("phi4mini", "tests", "benchmarks", "scripts", "examples")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    outside = [path for path in paths if not any(path.is_relative_to(room) for room in INSIDE)]
    found = {str(path.relative_to(ROOT)): network_readers(path.read_text("utf-8")) for path in outside}
    assert len(outside) > 200 and {path: lines for path, lines in found.items() if lines} == {}


def test_a_reader_of_the_network_would_be_found() -> None:
    assert network_readers("x = 1\ny = engine.network.cache\nz = getattr(engine, 'network')") == [2, 3]
    assert network_readers("from x import network_readers\nnetwork = 'network'") == []
    inside = [path for room in INSIDE for path in room.rglob("*.py") if network_readers(path.read_text("utf-8"))]
    assert ROOT / "phi4mini" / "engine" / "scoring.py" not in inside and len(inside) >= 4
