"""A staged vector language on LLVM: Python functions that write LLVM IR while they run.

An operation is a function decorated with `@kernel("x:f32[] n:int ...")`. Calling it with staging parameters gives a
`Spec`; build.py runs the function once per spec, with a `Kernel` as first argument, and compiles what it wrote.
Inside, values are `V` (one scalar or one vector), Python's own `for` over `span(...)` writes a loop, and anything
that is ordinary Python happens at staging time: unrolling is a list comprehension.

The logical vector width is 16 on every CPU; LLVM splits it where registers are narrower. No fast-math: a fused
multiply-add is written as `fma`, sums are written in their order, so the same source gives the same bits on every
instruction set. The few operations whose best form depends on the CPU (`dot4`, `bits_of_bytes`) are in isa.py, exact
integers on all of them; values.py has `V` itself, arguments.py the declarations.

Why a language of our own: C needs a compiler on the user's machine, and Numba has no int8 dot product, no say over a
vector's width and no promise about the order of a sum (docs/decisions/llvmlite.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from phi4mini.kernels.lang.arguments import Dim, Fields, Type, resolve, split
from phi4mini.kernels.lang.isa import Dots
from phi4mini.kernels.lang.values import F16, F32, I8, I16, I32, I64, LANES, LINE, PTR, Ref, V, Var, size_of, vec

__all__ = [
    "F16",
    "F32",
    "I8",
    "I16",
    "I32",
    "I64",
    "LANES",
    "LINE",
    "PTR",
    "SIGNATURE",
    "Kernel",
    "Operation",
    "Ref",
    "Spec",
    "V",
    "Var",
    "kernel",
    "vec",
]

Names = Callable[[dict[str, Any]], dict[str, str | int | None]]  # staging parameters to element types and sizes
SIGNATURE = ir.FunctionType(ir.VoidType(), [PTR, I64, I64])  # of every kernel: argument block, thread, threads
_ELEMENTS = {"f32": F32, "f16": F16, "u8": I8, "i8": I8, "i32": I32, "i64": I64}


@dataclass(frozen=True)
class Spec:
    """One kernel to be had: which function, with which staging parameters. `fields`: (name, type) of its arguments."""

    emit: Callable[..., None]
    fields: Fields
    params: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """A readable symbol, unique among specs: norm_rmsnorm_format_q4_cols_3072."""
        module = self.emit.__module__.rsplit(".", 1)[-1]
        words = [module, self.emit.__name__] + [f"{k}_{v}" for k, v in self.params]
        return "_".join(words).replace(".", "_").replace("-", "m")


class Operation:
    """A function that writes kernels, with the declaration of their arguments; called with staging parameters it gives
    the `Spec` of one of them.
    """

    def __init__(self, emit: Callable[..., None], fields: str, names: Names | None) -> None:
        self.emit, self.__doc__, self.__name__ = emit, emit.__doc__, emit.__name__
        self._declared, self._names = split(fields), names
        self._specs: dict[tuple[tuple[str, Any], ...], Spec] = {}

    def __call__(self, **params: Any) -> Spec:
        """The spec of one kernel. Raises TypeError where the declaration uses a name that is none of the parameters."""
        key = tuple(params.items())
        if key not in self._specs:  # a program of 32 layers asks for each of its kernels 32 times
            known = params | (self._names(params) if self._names else {})
            self._specs[key] = Spec(self.emit, resolve(self._declared, known), key)
        return self._specs[key]


def kernel(fields: str, names: Names | None = None) -> Callable[[Callable[..., None]], Operation]:
    """Declare an operation and its run-time arguments `name:type`, in the order of its argument block.

    A type is `int` (i64), `float` (f32), `ptr` (an address that nothing is known about) or an array with its sizes,
    `f32[rows, cols]`: see arguments.py. Arguments are checked against it when a call is recorded (`Call` in pool.py).
    `names`: further element types and sizes, from the staging parameters; a size of None is any.
    """
    return lambda emit: Operation(emit, fields, names)


class Kernel(Dots):
    """The writer of one function `void name(ptr args, i64 tid, i64 threads)`; args is a block of 64-bit fields."""

    def __init__(self, module: ir.Module, name: str, fields: Fields, isa: str) -> None:
        self.module, self.isa = module, isa
        self.function = ir.Function(module, SIGNATURE, name)
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        body = self.function.append_basic_block("body")
        block, tid, threads = (V(self, a) for a in self.function.args)
        self.tid, self.threads = tid, threads
        self._fields: dict[str, V] = {}
        for i, (field, type) in enumerate(fields):
            as_type = PTR if type.array else {"ptr": PTR, "int": I64, "float": F32}[type.kind]
            self._fields[field] = self.load(block.at(8 * i), as_type, align=8)
        for field, type in fields:
            if type.array:
                self._fields[field] = Ref(self, self._fields[field].v, _ELEMENTS[type.kind], self._strides(type))
        self._entry_end = self.b.branch(body)
        self.b.position_at_end(body)

    def __getattr__(self, name: str) -> V:
        try:
            return self.__dict__["_fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    def _strides(self, type: Type) -> tuple[V | int | None, ...]:
        """Bytes from one to the next along each dimension of an array; None where only its caller knows."""
        apart: int | None = type.itemsize  # by the declared sizes
        strides: list[V | int | None] = []
        for dim in reversed(type.dims or (Dim("_"),)):
            strides.insert(0, apart if dim.stride is None else self._fields[dim.stride])
            known = dim.size is not None and dim.times is None and dim.stride is None
            apart = apart * dim.size if known and apart is not None and dim.size is not None else None
        return tuple(strides)

    def finish(self) -> None:
        self.b.ret_void()

    def var(self, type: ir.Type, value: Any = None) -> Var:
        var = Var(self, type)
        if value is not None:
            var.set(value)
        return var

    # memory ----------------------------------------------------------------------------------------------------------

    def load(self, p: V, type: ir.Type | None = None, align: int | None = None) -> V:
        """Read a value, of an array one of its elements unless a type is given; alignment defaults to one element, so
        any address that fits the element is safe.
        """
        if type is None:
            if not isinstance(p, Ref):
                raise TypeError("load needs a type: this address is not of a declared array")
            type = p.of
        element = type.element if isinstance(type, ir.VectorType) else type
        return V(self, self.b.load(p.v, align=align or size_of(element), typ=type))

    def store(self, p: V, value: V, align: int | None = None) -> None:
        self.b.store(value.v, p.v, align=align or size_of(value.element))

    def load_float(self, p: V, lanes: int = LANES) -> V:
        return self.load(p, vec(F32, lanes))

    def load_half(self, p: V) -> V:
        """16 f16 as f32."""
        return V(self, self.b.fpext(self.load(p, vec(F16)).v, vec(F32)))

    def load_bfloat(self, p: V) -> V:
        """16 bfloat16 as f32: the upper half of the bits."""
        wide = self.b.zext(self.load(p, vec(I16)).v, vec(I32))
        return (V(self, wide) << 16).bits(vec(F32))

    def spread(self, p: V, type: ir.Type, lanes: int = LANES) -> V:
        """One scalar from memory in all lanes."""
        return self.splat(self.load(p, type), lanes)

    def spread4(self, p: V) -> V:
        """Four bytes from memory in all 16 groups of four: the activations of one line."""
        return self.spread(p, I32).bits(vec(I8, 64))

    def prefetch(self, p: V, locality: int = 2) -> None:
        """Fetch a line ahead of use: locality 3 is into L1, 2 into L2. An address beyond an array is harmless."""
        f = self.declare("llvm.prefetch.p0", ir.VoidType(), [PTR, I32, I32, I32])
        self.b.call(f, [p.v, *(ir.Constant(I32, x) for x in (0, locality, 1))])

    # control ---------------------------------------------------------------------------------------------------------

    def span(self, start: Any, stop: Any, step: Any = 1) -> Iterator[V]:
        """`for i in k.span(a, b, step):` writes a loop over i64; the Python body runs once, to be written."""
        counter = self.var(I64, start)
        test, body, done = (self.function.append_basic_block(n) for n in ("test", "loop", "done"))
        self.b.branch(test)
        self.b.position_at_end(test)
        i = counter.get()
        self.b.cbranch((i < stop).v, body, done)
        self.b.position_at_end(body)
        yield i
        counter.set(i + step)
        self.b.branch(test)
        self.b.position_at_end(done)

    @contextmanager
    def when(self, condition: V) -> Iterator[None]:
        with self.b.if_then(condition.v):
            yield

    @contextmanager
    def until(self) -> Iterator[Callable[[V], None]]:
        """A loop that is left by `leave(condition)`."""
        body, done = (self.function.append_basic_block(n) for n in ("forever", "left"))
        self.b.branch(body)
        self.b.position_at_end(body)

        def leave(condition: V) -> None:
            after = self.function.append_basic_block("on")
            self.b.cbranch(condition.v, done, after)
            self.b.position_at_end(after)

        yield leave
        self.b.branch(body)
        self.b.position_at_end(done)

    def share(self, count: V) -> tuple[V, V]:
        """This thread's part of `count` items as (first, end): even, contiguous, in the order of threads."""
        return count * self.tid // self.threads, count * (self.tid + 1) // self.threads

    # arithmetic ------------------------------------------------------------------------------------------------------

    def intrinsic(self, name: str, *args: V) -> V:
        """A type-overloaded LLVM intrinsic whose arguments and result share one type."""
        t = args[0].type
        suffix = (f"v{t.count}" if isinstance(t, ir.VectorType) else "") + _short(args[0].element)
        f = self.declare(f"llvm.{name}.{suffix}", t, [a.type for a in args])
        return V(self, self.b.call(f, [a.v for a in args]))

    def fma(self, a: V, b: V, c: V) -> V:
        return self.intrinsic("fma", a, self.like(b, a), self.like(c, a))

    def minimum(self, a: V, b: Any) -> V:
        return self.intrinsic("minnum" if a.is_float else "smin", a, self.like(b, a))

    def maximum(self, a: V, b: Any) -> V:
        return self.intrinsic("maxnum" if a.is_float else "smax", a, self.like(b, a))

    def absolute(self, a: V) -> V:
        return self.intrinsic("fabs", a)

    def select(self, condition: V, a: V, b: Any) -> V:
        return V(self, self.b.select(condition.v, a.v, self.like(b, a).v))

    def to_float(self, a: V) -> V:
        """Signed integers to f32."""
        to = vec(F32, a.type.count) if isinstance(a.type, ir.VectorType) else F32
        return V(self, self.b.sitofp(a.v, to))

    def to_int(self, a: V) -> V:
        """f32 to i32, to nearest even; the value must fit."""
        to = vec(I32, a.type.count) if isinstance(a.type, ir.VectorType) else I32
        return V(self, self.b.fptosi(self.intrinsic("rint", a).v, to))

    def narrow(self, a: V, element: ir.Type) -> V:
        to = vec(element, a.type.count) if isinstance(a.type, ir.VectorType) else element
        return V(self, self.b.trunc(a.v, to))

    def widen(self, a: V, element: ir.Type, signed: bool = True) -> V:
        to = vec(element, a.type.count) if isinstance(a.type, ir.VectorType) else element
        return V(self, (self.b.sext if signed else self.b.zext)(a.v, to))

    def tree(self, a: V, join: Callable[[V, V], V]) -> V:
        """All lanes joined in a fixed tree: halves, quarters, ... (LLVM's own reduction is one lane after the other, or
        in an order of its choice.)
        """
        while a.type.count > 1:
            half = a.type.count // 2
            if half == 1:
                return join(a.lane(0), a.lane(1))
            a = join(a.lanes(list(range(half))), a.lanes(list(range(half, 2 * half))))
        return a.lane(0)

    def sum(self, a: V) -> V:
        return self.tree(a, lambda x, y: x + y)

    def peak(self, a: V) -> V:
        return self.tree(a, self.maximum)

    def magnitude(self, values: list[V]) -> V:
        """The largest |x| over all lanes of f32 vectors, NaN if one is NaN.

        Compared as integers: non-negative floats are ordered like their bits, and the bits of NaN are above those of
        every number, while a maximum of floats would drop it.
        """
        bits = [self.absolute(v).bits(vec(I32, v.type.count)) for v in values]
        largest = bits[0]
        for b in bits[1:]:
            largest = self.maximum(largest, b)
        return self.peak(largest).bits(F32)

    def exp(self, x: V) -> V:
        """e**x in f32 within 2 ulp; below -87 it is 0, beyond 88 it is e**88, NaN stays NaN.

        Cody-Waite reduction, then a degree-6 polynomial (Cephes expf).
        """
        low = x < -87.0
        x = self.select(low, self.like(-87.0, x), x)  # not maxnum, which drops NaN
        x = self.select(x > 88.0, self.like(88.0, x), x)
        n = self.intrinsic("rint", x * math.log2(math.e))
        r = self.fma(n, self.like(-0.693359375, x), x)
        r = self.fma(n, self.like(2.12194440e-4, x), r)
        p = self.like(1.9875691500e-4, x)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = self.fma(p, r, self.like(c, x))
        p = self.fma(p, r * r, r) + 1.0
        power = ((self.to_int(n) + 127) << 23).bits(x.type)
        return self.select(low, self.like(0.0, x), p * power)

    # threads ---------------------------------------------------------------------------------------------------------

    def fetch_add(self, p: V, amount: int, type: ir.Type = I64) -> V:
        return V(self, self.b.atomic_rmw("add", p.v, ir.Constant(type, amount), "acq_rel"))

    def publish(self, p: V, value: V) -> None:
        """A store that other threads see after everything before it. (llvmlite's store_atomic cannot take opaque
        pointers.)
        """
        self.b.atomic_rmw("xchg", p.v, value.v, "release")

    def observe(self, p: V, type: ir.Type = I64) -> V:
        return V(self, self.b.load_atomic(p.v, "acquire", size_of(type), typ=type))

    def pause(self) -> None:
        """Tell the core that this is a spin loop."""
        if self.isa == "neon":
            self.b.call(self.declare("llvm.aarch64.hint", ir.VoidType(), [I32]), [ir.Constant(I32, 1)])
        else:
            self.b.call(self.declare("llvm.x86.sse2.pause", ir.VoidType(), []), [])

    def yield_cpu(self) -> None:
        """Give the core away for a moment (POSIX sched_yield; the symbol resolves in the process)."""
        self.b.call(self.declare("sched_yield", I32, []), [])

    def library(self, name: str, *args: V) -> None:
        """Call a function of the C library that takes pointers; its int result is ignored. The linker of the JIT finds
        the symbol in the process.
        """
        self.b.call(self.declare(name, I32, [a.type for a in args]), [a.v for a in args])

    def call(self, address: V, block: V, tid: V, threads: V) -> None:
        """Call a kernel by its address."""
        self.b.call(self.b.inttoptr(address.v, SIGNATURE.as_pointer()), [block.v, tid.v, threads.v])

    def cycles_now(self) -> V:
        """The time-stamp counter."""
        return V(self, self.b.call(self.declare("llvm.readcyclecounter", I64, []), []))


def _short(type: ir.Type) -> str:
    return f"i{type.width}" if isinstance(type, ir.IntType) else {F16: "f16", F32: "f32"}[type]
