"""Declarations of arguments: what they mean, and what is no declaration. Values against them: test_pool.py."""

from __future__ import annotations

import re
from typing import Any

import pytest

from phi4mini.kernels import matmul, norm, rope
from phi4mini.kernels.lang.arguments import Dim, Fields, Type, resolve, split
from phi4mini.kernels.lang.build import Target, write_ir
from phi4mini.kernels.lang.kernel import Kernel, kernel


def types(fields: str, **names: object) -> dict[str, Type]:
    return dict(resolve(split(fields), names))


def test_a_declaration_is_names_types_and_sizes() -> None:
    got = types("x:f32[rows:stride, 2 * cols] stride:int  eps:float rows:i64[1] q:kind[_, n] p:ptr u:u8[]", cols=96,
                kind="i8", n=None)  # fmt: skip
    assert list(got) == ["x", "stride", "eps", "rows", "q", "p", "u"]
    assert got["x"] == Type("f32", True, (Dim("rows", None, None, "stride"), Dim("2 * cols", 192)))
    assert (got["stride"], got["eps"], got["p"]) == (Type("int"), Type("float"), Type("ptr"))
    assert got["rows"] == Type("i64", True, (Dim("1", 1),))
    assert got["q"] == Type("i8", True, (Dim("_"), Dim("n")))
    assert got["u"] == Type("u8", True, None)


def test_a_size_may_be_an_argument_times_what_is_known() -> None:
    size = types("w:u8[strips * bytes] strips:int", bytes=576)["w"].dims
    assert size == (Dim("strips * bytes", 576, "strips"),)
    assert size[0].least({"strips": 3}.__getitem__) == 1728


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ("x:f32[cols", "not a declaration name:type or name:type[sizes]: 'x:f32[cols'"),
        ("x", "not a declaration"),
        ("n:int x=f32[]", "not a declaration name:type or name:type[sizes]: 'x=f32[]'"),
        ("x:f64[]", "x: there is no type f64[]"),
        ("x:f32", "x: there is no type f32"),
        ("x:int[4]", "x: there is no type int[]"),
        ("x:f32[colls]", "colls: colls is no number, staging parameter, size or int argument"),
        ("x:f32[rows * cols] rows:i64[1]", "rows * cols: rows is no number"),
        ("x:f32[a * b] a:int b:int", "a * b: b is no number"),
        ("x:f32[rows:stride, cols] rows:i64[1]", "rows:stride: stride is not an int argument"),
    ],
)
def test_what_is_no_declaration_is_refused(fields: str, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        types(fields, cols=32)


def test_the_sizes_of_the_models_kernels_follow_from_their_staging_parameters() -> None:
    def sizes(fields: Fields, name: str) -> list[int | None]:
        return [dim.size for dim in dict(fields)[name].dims or ()]

    few = matmul.rows_few(format="q6k", rows=2, cols=256, residual=True).fields
    assert sizes(few, "q") == [2, 256] and sizes(few, "scale") == [2, 16] and sizes(few, "out") == [2, 16]
    dense = norm.rmsnorm(format="bf16", cols=96).fields
    assert dict(dense)["q"].kind == "f32" and sizes(dense, "q") == [None, 96] and sizes(dense, "scale") == [None, None]
    turned = rope.rope_append(kind="int8", heads=4, kv_heads=2, head_dim=32, half=12).fields
    assert sizes(turned, "qkv") == [None, 256] and sizes(turned, "cos") == [None, 12]


def test_a_kernel_is_staged_once() -> None:
    assert norm.rmsnorm(format="q4", cols=96) is norm.rmsnorm(format="q4", cols=96)
    assert norm.rmsnorm(format="q4", cols=96) is not norm.rmsnorm(format="q4", cols=128)


@kernel("x:f32[rows:stride, cols] stride:int rows:i64[1] n:i32[4, width] flat:u8[] out:f32[]")
def indexed(k: Kernel, cols: int, width: int, by_index: bool) -> None:
    """The same places by index and by bytes."""
    row = k.load(k.rows) if by_index else k.load(k.rows, k.rows.of)
    col = row + 3
    a = k.x[row, col] if by_index else k.x.at(row * k.stride + col * 4)
    k.store(k.out, k.load_float(a))
    b = k.n[row][2] if by_index else k.n.at(row * (width * 4)).at(2 * 4)
    k.store(k.flat[row] if by_index else k.flat.at(row), k.load(b, k.n.of))


def test_an_index_is_the_offset_by_bytes() -> None:
    texts = []
    for by_index in (True, False):
        spec = indexed(cols=64, width=24, by_index=by_index)
        texts.append(write_ir(spec, "avx2", Target.pinned("avx2").triple).replace(spec.name, "kernel"))
    assert texts[0] == texts[1]


def test_an_index_that_the_declaration_does_not_know_is_refused() -> None:
    @kernel("x:f32[_, _] n:int p:ptr")
    def wrong(k: Kernel, how: str) -> None:
        tries: dict[str, Any] = {
            "rows": lambda: k.x[1],
            "three": lambda: k.x[0, 0, 0],
            "number": lambda: k.n[0],
            "ptr": lambda: k.p[0],
        }
        tries["type"] = lambda: k.load(k.p)
        tries[how]()

    for how, error in (
        ("rows", "does not say how far apart"),
        ("three", "3 indices into an array of 2 dimensions"),
        ("number", "only a declared array has elements"),
        ("ptr", "only a declared array has elements"),
        ("type", "load needs a type"),
    ):
        with pytest.raises(TypeError, match=error):
            write_ir(wrong(how=how), "avx2", Target.pinned("avx2").triple)
