"""The same source on ARM: NEON code with sdot can always be made and linked, and gives the host's bits when it is run.

Start values of activations are the one thing that may differ: a factor is folded in where the upper bits of bytes stay
in place (kernels/unpack.py), so each side quantises for itself and everything after that is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from phi4mini.formats.format_table import FORMATS
from phi4mini.kernels import (
    activations,
    attention,
    attention_merge,
    matmul,
    norm,
    refine_logits,
    rope,
    round_weights,
    swiglu,
)
from phi4mini.kernels.lang import build
from phi4mini.kernels.lang.kernel import Kernel, Spec, kernel
from phi4mini.kernels.threads.pool import Call, run_program
from tests.kernels import arm, attentions, harness, isa_sample, matmuls, test_norm, test_rope, test_swiglu
from tests.kernels.harness import fitted, same

HEADS = {"heads": 6, "kv_heads": 2, "head_dim": 128}  # Phi-4-mini's, a quarter of them
WITH_INTEGERS = [
    *(matmul.rows_few(format=f, rows=n, cols=256, residual=True) for f in ("q4", "q4m", "q8") for n in (1, 4)),
    *(matmul.rows_many(format=f, wide=4, cols=256, residual=False) for f in ("q4", "q4m", "q8", "q6k")),
    *(attention.attend(kind="int8", **HEADS, tall=tall) for tall in (1, 4)),
    refine_logits.refine(format="q4", cols=256, fine=4),
]
WITHOUT = [
    attention_merge.merge(format="q4", heads=6, head_dim=128),
    activations.quantize(format="q4", cols=256),
    rope.rope_append(kind="int8", **HEADS, half=48),
    norm.rmsnorm(format="q8", cols=256, fine=4),
    refine_logits.floors(),
    swiglu.swiglu(format="q4", cols=256),
    run_program(profile=False),
]


@kernel("x:f32[] out:f32[] count:int")
def exponentials(k: Kernel) -> None:
    """out = e**x for `count` f32, a multiple of 16."""
    for at in k.span(0, k.count * 4, 64):
        k.store(k.out.at(at), k.exp(k.load_float(k.x.at(at))))


def both(module: ModuleType, made: Callable[[], Any], also: Sequence[np.ndarray] = ()) -> tuple[Any, Any]:
    """What a function that runs kernels by `module.run` returns here, and what it returns when they run on ARM."""
    here = made()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run", partial(arm.run, also=also))
        return here, made()


def same_sink(here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> bool:
    return all(same(here[name], there[name]) for name in here if name != "start")


# always ------------------------------------------------------------------------------------------------------------


def count_sdot(spec: Spec) -> int:
    """sdot Vd.4s, Vn.16b, Vm.16b in a kernel's code."""
    return sum(word & 0xFFE0FC00 == 0x4E809400 for word in arm.Object(arm.compiled(spec)).instructions())


@pytest.mark.parametrize("spec", WITH_INTEGERS, ids=lambda spec: spec.name)
def test_integer_products_are_sdot(spec: Spec) -> None:
    """16 vectors of 64 products a step and row; four sdot a vector, three times that for full-range u8."""
    found, params = count_sdot(spec), dict(spec.params)
    if spec.name.startswith("matmul_rows_few"):
        assert found == params["rows"] * 16 * 4 * (3 if params["format"] == "q8" else 1)
    assert found >= 64
    assert "\tsdot\t" in build.assembly(WITH_INTEGERS[0], arm.TARGET)


@pytest.mark.parametrize("spec", WITH_INTEGERS + WITHOUT, ids=lambda spec: spec.name)
def test_objects_link_into_a_program(spec: Spec) -> None:
    """All relocations are known and all functions found, so the code can be loaded next to its constants."""
    image = arm.Image()
    image.link([spec])
    address = image.addresses[spec.name]
    assert address % 4 == 0 and arm.BASE < address < arm.BASE + len(image.bytes)


def test_what_cannot_be_linked_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 311"):
        arm.relocated(0x90000000, 311, arm.BASE, arm.BASE)
    image = arm.Image()
    del image.addresses["sched_yield"]
    with pytest.raises(ValueError, match="run_program_profile_False calls sched_yield"):
        image.link([run_program(profile=False)])
    with pytest.raises(ValueError, match="not an object"):
        arm.Object(build.compile_object(exponentials(), build.Target.pinned("avx2")))


# where ARM programs can be run ----------------------------------------------------------------------------------------


@arm.needs_qemu
@pytest.mark.parametrize("small", [True, False])
def test_dot4_is_exact(small: bool) -> None:
    """The corners of u8 x s8 and a sample, against NumPy."""
    spec, cases = isa_sample.dot(small=small), list(isa_sample.dot_cases(small))
    outs = [np.zeros(16, np.int32) for _ in cases]
    arm.run(*(Call(spec, acc=acc, u=u, s=s, out=out) for (acc, u, s), out in zip(cases, outs, strict=True)))
    for (acc, u, s), out in zip(cases, outs, strict=True):
        assert np.array_equal(out, (acc + (u.astype(np.int64) * s).reshape(16, 4).sum(1)).astype(np.int32))


@arm.needs_qemu
@pytest.mark.parametrize("format", FORMATS)
def test_products_have_the_same_bits(format: str) -> None:
    """Quantised on each side, then multiplied by the kernels for one row, four, eight, and many."""
    rows = 15

    def made() -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        case = matmuls.Case(format, 128, 512, rows)
        few = [case.product(n, first, residual=n != 4) for n, first in ((1, 3), (4, 2), (8, 0))]
        return case.sink, [*few, case.product(rows, residual=True), case.product(13)]

    (sink_here, here), (sink_there, there) = both(matmuls, made)
    assert same_sink(sink_here, sink_there)
    for a, b in zip(here, there, strict=True):
        assert same(a, b) and np.isfinite(a).all() and a.any()


@arm.needs_qemu
@pytest.mark.parametrize("format", ["q8", "q4", "q4m", "q6k"])
def test_start_values_are_those_of_their_factor(format: str) -> None:
    here, there = both(matmuls, lambda: matmuls.Case(format, 16, 256, 5))
    assert np.array_equal(here.sink["start"][:5], harness.starts(here.sink["q"][:5], format))
    sums = there.sink["q"][:5].reshape(5, -1, FORMATS[format].run).astype(np.int32).sum(2)
    assert np.array_equal(there.sink["start"][:5], -FORMATS[format].zero * sums)


@arm.needs_qemu
@pytest.mark.parametrize("shape", test_rope.SHAPES)
@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_rope_and_cache_have_the_same_bits(kind: str, shape: tuple[int, int, int, int]) -> None:
    here, there = both(test_rope, lambda: test_rope.Append(kind, shape))
    assert same(here.pool.bytes, there.pool.bytes) and same(here.q, there.q) and same(here.qkv, there.qkv)
    assert same(here.q_scale, there.q_scale) and same(here.q_start, there.q_start)


@arm.needs_qemu
@pytest.mark.parametrize("tall", [1, 4])
@pytest.mark.parametrize("kind", ["int8", "f32"])
def test_attention_has_the_same_bits(kind: str, tall: int) -> None:
    """Rows across the border of two chunks, with and without a window, into a q4 sink."""
    shape = attentions.SHAPES[3]
    pool, sequence = attentions.setting(kind, shape)
    for window in (attentions.FREE, 100):
        made = partial(attentions.attend, pool, shape[0], [(sequence, 1021, 5)], tall, window, format="q4")
        here, there = both(attentions, made, also=[sequence.table])
        assert same_sink(here, there) and here["q"].any()


@arm.needs_qemu
@pytest.mark.parametrize("format", ["f32", "q4"])
def test_norm_and_activation_have_the_same_bits(format: str) -> None:
    x, weight = test_norm.inputs(5, 352)
    x[3] = 0
    for fine in (False, True):
        assert same_sink(*both(test_norm, partial(test_norm.normed, x, weight, format, fine=fine)))
    assert same_sink(*both(test_swiglu, partial(test_swiglu.activated, test_swiglu.inputs(5, 352), format)))


@arm.needs_qemu
def test_exp_has_the_same_bits() -> None:
    x = np.concatenate([np.linspace(-90, 90, 1 << 14), [0, -0.0, -87, 88, 1e-40, -1e-40, np.inf, -np.inf] * 2])
    x, out, there = x.astype(np.float32), *np.zeros((2, len(x)), np.float32)
    harness.run(Call(exponentials(), x=x, out=out, count=len(x)))
    arm.run(Call(exponentials(), x=x, out=there, count=len(x)))
    assert same(out, there) and out.any()


@arm.needs_qemu
def test_weights_are_rounded_to_the_same_bits() -> None:
    x = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    x[5], x[6, 7], x[7] = 0, 50, 1e-9
    results = []
    for run in (harness.run, arm.run):
        q, scale = np.zeros((64, 32), np.uint8), np.zeros(64, np.float32)
        run(Call(round_weights.encode(), x=x, q=q, scale=scale, groups=64))
        results.append((q, scale))
    (q, scale), (other_q, other_scale) = results
    assert same(q, other_q) and same(scale, other_scale) and q.any()


@arm.needs_qemu
def test_addresses_stay_those_of_this_process() -> None:
    """A program has the arrays elsewhere; what comes back are its results, not its addresses."""
    x, out = fitted(np.arange(32, dtype=np.float32), 0), np.zeros(32, np.float32)
    call = Call(exponentials(), x=x, out=out, count=32)
    block = call.block.copy()
    arm.run(call)
    assert np.array_equal(call.block, block) and out[0] == 1 and np.array_equal(x, np.arange(32))
