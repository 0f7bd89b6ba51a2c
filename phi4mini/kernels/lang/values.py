"""The values of the kernel language: `V`, one scalar or vector of LLVM IR with Python's operators, `Var`, a mutable
one, and `Writer`, which has what an operator needs to write its instruction.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
F16, F32 = ir.HalfType(), ir.FloatType()
PTR = ir.PointerType()
LANES = 16
LINE = 64


def vec(element: ir.Type, lanes: int = LANES) -> ir.VectorType:
    """The type of a vector, 16 lanes unless said otherwise."""
    return ir.VectorType(element, lanes)


def size_of(type: ir.Type) -> int:
    """Bytes of a scalar type."""
    if isinstance(type, ir.IntType):
        return max(1, type.width // 8)
    return {F16: 2, F32: 4}.get(type, 8)


class Writer:
    """Writes instructions at a place in a module: constants, and values of one shape. `Kernel` is one."""

    b: ir.IRBuilder
    module: ir.Module

    def const(self, type: ir.Type, value: Any) -> V:
        """A number, or a list of them one a lane, as a constant of an IR type."""
        if isinstance(type, ir.VectorType):
            values = value if isinstance(value, list | tuple) else [value] * type.count
            return V(self, ir.Constant(type, [ir.Constant(type.element, x) for x in values]))
        return V(self, ir.Constant(type, value))

    def like(self, value: Any, model: V | ir.Type) -> V:
        """A Python number as a constant of the model's type; a scalar V spread over the model's lanes."""
        type = model.type if isinstance(model, V) else model
        if not isinstance(value, V):
            element = type.element if isinstance(type, ir.VectorType) else type
            exact = float(value) if isinstance(element, ir.FloatType | ir.HalfType) else int(value)
            return self.const(type, exact)
        if isinstance(type, ir.VectorType) and not isinstance(value.type, ir.VectorType):
            return self.splat(value, type.count)
        return value

    def splat(self, scalar: V, lanes: int = LANES) -> V:
        """A scalar in all lanes."""
        undefined = ir.Constant(vec(scalar.type, lanes), ir.Undefined)
        first = self.b.insert_element(undefined, scalar.v, ir.Constant(I32, 0))
        return V(self, first).lanes([0] * lanes)

    def join(self, parts: list[V]) -> V:
        """Vectors of equal length, end to end."""
        while len(parts) > 1:
            n = parts[0].type.count
            mask = ir.Constant(vec(I32, 2 * n), list(range(2 * n)))
            parts = [
                V(self, self.b.shuffle_vector(a.v, b.v, mask)) for a, b in zip(parts[::2], parts[1::2], strict=True)
            ]
        return parts[0]

    def declare(self, name: str, result: ir.Type, args: list[ir.Type]) -> ir.Function:
        """An external function, declared once a module."""
        found = self.module.globals.get(name)
        return found or ir.Function(self.module, ir.FunctionType(result, args), name)


class V:
    """A value in the IR: arithmetic writes instructions. Python numbers take the other operand's type."""

    __slots__ = ("k", "v")

    def __init__(self, k: Writer, v: ir.Value) -> None:
        self.k, self.v = k, v

    @property
    def type(self) -> ir.Type:
        return self.v.type

    @property
    def element(self) -> ir.Type:
        return self.type.element if isinstance(self.type, ir.VectorType) else self.type

    @property
    def is_float(self) -> bool:
        return isinstance(self.element, ir.FloatType | ir.HalfType)

    def _op(self, integer: str, floating: str | None, other: Any, swap: bool = False) -> V:
        a, b = self, self.k.like(other, self)
        name = floating if self.is_float else integer
        if name is None:
            raise TypeError(f"no such operation on {self.type}")
        return V(self.k, getattr(self.k.b, name)(*((b.v, a.v) if swap else (a.v, b.v))))

    def __add__(self, o: Any) -> V:
        return self._op("add", "fadd", o)

    def __radd__(self, o: Any) -> V:
        return self._op("add", "fadd", o, swap=True)

    def __sub__(self, o: Any) -> V:
        return self._op("sub", "fsub", o)

    def __rsub__(self, o: Any) -> V:
        return self._op("sub", "fsub", o, swap=True)

    def __mul__(self, o: Any) -> V:
        return self._op("mul", "fmul", o)

    def __rmul__(self, o: Any) -> V:
        return self._op("mul", "fmul", o, swap=True)

    def __truediv__(self, o: Any) -> V:
        return self._op("sdiv", "fdiv", o)

    def __rtruediv__(self, o: Any) -> V:
        return self._op("sdiv", "fdiv", o, swap=True)

    def __floordiv__(self, o: Any) -> V:
        return self._op("udiv", None, o)

    def __mod__(self, o: Any) -> V:
        return self._op("urem", None, o)

    def __and__(self, o: Any) -> V:
        return self._op("and_", None, o)

    def __or__(self, o: Any) -> V:
        return self._op("or_", None, o)

    def __xor__(self, o: Any) -> V:
        return self._op("xor", None, o)

    def __lshift__(self, o: Any) -> V:
        return self._op("shl", None, o)

    def __rshift__(self, o: Any) -> V:
        return self._op("lshr", None, o)

    def _compare(self, how: str, o: Any) -> V:
        b = self.k.like(o, self)
        f = self.k.b.fcmp_ordered if self.is_float else self.k.b.icmp_signed
        return V(self.k, f(how, self.v, b.v))

    def __lt__(self, o: Any) -> V:
        return self._compare("<", o)

    def __le__(self, o: Any) -> V:
        return self._compare("<=", o)

    def __gt__(self, o: Any) -> V:
        return self._compare(">", o)

    def __ge__(self, o: Any) -> V:
        return self._compare(">=", o)

    def equals(self, o: Any) -> V:
        return self._compare("==", o)

    def at(self, offset: Any) -> V:
        """This pointer moved by a number of bytes."""
        return V(self.k, self.k.b.gep(self.v, [self.k.like(offset, I64).v], source_etype=I8))

    def __getitem__(self, index: Any) -> Ref:
        """A row or an element of a declared array (`Ref`). Raises TypeError for any other value."""
        raise TypeError("only a declared array has elements; move an address with at(bytes)")

    def bits(self, type: ir.Type) -> V:
        return V(self.k, self.k.b.bitcast(self.v, type))

    def lanes(self, order: list[int]) -> V:
        """A vector of the given lanes of this one."""
        mask = ir.Constant(vec(I32, len(order)), order)
        return V(self.k, self.k.b.shuffle_vector(self.v, ir.Constant(self.type, ir.Undefined), mask))

    def lane(self, i: int) -> V:
        return V(self.k, self.k.b.extract_element(self.v, ir.Constant(I32, i)))


class Ref(V):
    """A declared array, or a part of it: an address that knows the type of its elements and how far apart they lie.

    `x[row]` is a row, `x[row, col]` an element's place; an index is an i64 value or a Python number. Nothing is read:
    `k.load(x[row, col])` reads one element, `k.load_float(x[row, col])` sixteen from there on.
    """

    __slots__ = ("of", "strides")

    def __init__(self, k: Writer, v: ir.Value, of: ir.Type, strides: tuple[V | int | None, ...]) -> None:
        super().__init__(k, v)
        self.of, self.strides = of, strides

    def __getitem__(self, index: Any) -> Ref:
        """The part at one index, or at several. Raises TypeError for more indices than dimensions, or where the
        distance between rows is not declared.
        """
        indices = index if isinstance(index, tuple) else (index,)
        if len(indices) > len(self.strides):
            raise TypeError(f"{len(indices)} indices into an array of {len(self.strides)} dimensions")
        offset: V | int = 0
        for i, apart in zip(indices, self.strides, strict=False):
            if apart is None:
                raise TypeError("the declaration does not say how far apart the rows of this array lie")
            step = i if isinstance(apart, int) and apart == 1 else i * apart
            offset = step if isinstance(offset, int) and offset == 0 else offset + step
        return Ref(self.k, self.at(offset).v, self.of, self.strides[len(indices) :])


class Var:
    """A mutable value. Lives in a register after LLVM has seen it."""

    def __init__(self, k: Writer, type: ir.Type) -> None:
        self.k, self.type = k, type
        with k.b.goto_entry_block():
            self.slot = k.b.alloca(type)

    def get(self) -> V:
        return V(self.k, self.k.b.load(self.slot, typ=self.type))

    def set(self, value: Any) -> None:
        self.k.b.store(self.k.like(value, self.type).v, self.slot)
