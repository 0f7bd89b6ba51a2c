"""Kernels on ARM without an ARM machine: cross-compiled, linked here, run by qemu's user mode. No C compiler, no
linker, no ARM libraries.

`run` stands in for harness.run. It builds one static program of a single segment: the objects that `Library` would
load, the arrays of the calls, and a few instructions that let `run_program` walk the calls as the only thread, write
the memory to standard output and end. What has changed in that memory goes back into the arrays.

It knows the relocations that LLVM has used for these kernels and has the two functions that they call; any other is
an error.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from phi4mini.kernels.lang.build import Target, compile_object
from phi4mini.kernels.lang.kernel import Spec
from phi4mini.kernels.threads.pool import Call, aligned, run_program

TARGET = Target.pinned("neon")
QEMU = shutil.which("qemu-aarch64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="no qemu-aarch64 to run ARM programs (Debian's package qemu-user)")

AARCH64 = 183  # EM_AARCH64
BASE = 0x400000
HEADERS = 64 + 56  # of an ELF file with one segment
_ALLOCATED, _EXECUTED = 2, 4  # flags of a section: SHF_ALLOC, SHF_EXECINSTR
_BITS, _SYMBOLS, _RELOCATIONS = 1, 2, 4  # kinds of section: SHT_PROGBITS, SHT_SYMTAB, SHT_RELA
_SHIFTS = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}  # ADD and LDST8 to LDST128: the low 12 bits, scaled
_SCHED_YIELD, _WRITE, _EXIT = 124, 64, 93  # system calls
_MEMSET = (0xAA0003E3, 0xB4000082, 0x38001461, 0xF1000442, 0x54FFFFC1, 0xD65F03C0)
# mov x3, x0; cbz x2, 2f; 1: strb w1, [x3], #1; subs x2, x2, #1; b.ne 1b; 2: ret


@cache
def compiled(spec: Spec) -> bytes:
    """The object of a kernel for ARM, exactly as it is loaded there."""
    return compile_object(spec, TARGET)


# objects -------------------------------------------------------------------------------------------------------------


class Object:
    """A relocatable object file of this machine: sections, symbols, relocations."""

    def __init__(self, code: bytes) -> None:
        if code[:6] != b"\x7fELF\x02\x01" or int.from_bytes(code[18:20], "little") != AARCH64:
            raise ValueError("not an object for 64-bit little-endian ARM")
        self.code = code
        (table,) = struct.unpack_from("<Q", code, 40)
        count, names = struct.unpack_from("<HH", code, 60)
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + 64 * i) for i in range(count)]
        self.names = self.sections[names]
        self.symbols = list(self._symbols())

    def instructions(self) -> list[int]:
        """The words of the sections that are executed."""
        code = [data for i, data, _ in self.loaded() if self.sections[i][2] & _EXECUTED]
        return [word for data in code for (word,) in struct.iter_unpack("<I", data)]

    def loaded(self) -> Iterator[tuple[int, bytes, int]]:
        """(section, bytes, alignment) of what a program needs in memory; nothing here unwinds."""
        for i, (name, kind, flags, _, offset, size, _, _, align, _) in enumerate(self.sections):
            if flags & _ALLOCATED and kind == _BITS and size and self._text(self.names, name) != ".eh_frame":
                yield i, self.code[offset : offset + size], align

    def relocations(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(section, offset, kind, symbol, addend)."""
        for _, kind, _, _, offset, size, _, section, _, _ in self.sections:
            if kind == _RELOCATIONS:
                for at in range(offset, offset + size, 24):
                    where, how, symbol, addend = struct.unpack_from("<QIIq", self.code, at)
                    yield section, where, how, symbol, addend

    def _symbols(self) -> Iterator[tuple[str, int, int]]:
        """(name, section, offset); section 0 for those that others define."""
        for _, kind, _, _, offset, size, link, _, _, _ in self.sections:
            if kind == _SYMBOLS:
                for at in range(offset, offset + size, 24):
                    name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", self.code, at)
                    yield self._text(self.sections[link], name), section, value

    def _text(self, strings: tuple[int, ...], offset: int) -> str:
        start = strings[4] + offset
        return self.code[start : self.code.index(b"\0", start)].decode()


def relocated(word: int, kind: int, place: int, target: int) -> int:
    """An instruction with an address put in (ELF for the Arm 64-bit Architecture, section 5.7)."""
    if kind == 275:  # ADR_PREL_PG_HI21: which page, seen from here
        pages = (target >> 12) - (place >> 12)
        return word | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    if kind in (282, 283):  # JUMP26, CALL26
        return word | (target - place >> 2) & 0x3FFFFFF
    if kind in _SHIFTS:
        return word | (target & 0xFFF) >> _SHIFTS[kind] << 10
    raise ValueError(f"a relocation of kind {kind}, which is not known here")


# the program ---------------------------------------------------------------------------------------------------------


class Image:
    """The memory of a program from BASE on, while it is put together."""

    def __init__(self) -> None:
        self.bytes = bytearray(HEADERS)
        self.addresses = {
            "sched_yield": self.place(_call_system(_SCHED_YIELD) + _words(0xD65F03C0)),
            "memset": self.place(_words(*_MEMSET)),
        }

    def place(self, data: bytes, align: int = 64, remainder: int = 0) -> int:
        """Put bytes where the address leaves `remainder` when divided by `align`; that address."""
        self.bytes += bytes((remainder - BASE - len(self.bytes)) % align)
        address = BASE + len(self.bytes)
        self.bytes += data
        return address

    def link(self, specs: Sequence[Spec]) -> None:
        """Place the kernels and put their addresses in; `addresses` by name."""
        for spec in dict.fromkeys(specs):
            o = Object(compiled(spec))
            at = {i: self.place(data, align) for i, data, align in o.loaded()}
            self.addresses |= {name: at[i] + value for name, i, value in o.symbols if name and i in at}
            for section, offset, kind, symbol, addend in o.relocations():
                if section in at:
                    name, home, value = o.symbols[symbol]
                    if not home and name not in self.addresses:
                        raise ValueError(f"{spec.name} calls {name}, which is not known here")
                    target = at[home] + value if home else self.addresses[name]
                    self._patch(at[section] + offset, kind, target + addend)

    def _patch(self, place: int, kind: int, target: int) -> None:
        (word,) = struct.unpack_from("<I", self.bytes, place - BASE)
        struct.pack_into("<I", self.bytes, place - BASE, relocated(word, kind, place, target))

    def executable(self, entry: int) -> bytes:
        """The program as an ELF file: one segment, readable, writable, executable."""
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        header = ident + struct.pack("<HHIQQQIHHHHHH", 2, AARCH64, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        size = len(self.bytes)
        segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, size, 0x10000)
        return header + segment + bytes(self.bytes[HEADERS:])


def _words(*instructions: int) -> bytes:
    return struct.pack(f"<{len(instructions)}I", *instructions)


def _set(register: int, value: int) -> bytes:
    """movz, then movk for each further 16 bits."""
    parts = [0xD2800000 if i == 0 else 0xF2800000 for i in range(4)]
    return _words(*(op | i << 21 | (value >> 16 * i & 0xFFFF) << 5 | register for i, op in enumerate(parts)))


def _call_system(number: int) -> bytes:
    return _set(8, number) + _words(0xD4000001)  # svc 0


def _start(program: int, block: int, first: int, size: int) -> bytes:
    """program(block, 0, 1), then write(1, first, size), then exit(0)."""
    walk = _set(0, block) + _set(1, 0) + _set(2, 1) + _set(9, program) + _words(0xD63F0120)  # blr x9
    write = _set(0, 1) + _set(1, first) + _set(2, size) + _call_system(_WRITE)
    return walk + write + _set(0, 0) + _call_system(_EXIT)


# running -------------------------------------------------------------------------------------------------------------


class _Memory:
    """The arrays of this process in the program's memory, with every address among them changed accordingly."""

    def __init__(self, image: Image, arrays: Sequence[np.ndarray]) -> None:
        self.image, self.regions = image, list(_regions(arrays))
        self.places = [image.place(ctypes.string_at(a, b - a), 64, a % 64) for a, b in self.regions]
        for array in arrays:
            if array.dtype == np.int64:
                self._translate(array)
        self.end = BASE + len(image.bytes)

    def there(self, here: int) -> int:
        """The program's address of a byte of an array here; 0 for what is no such byte."""
        found = (to + here - a for (a, b), to in zip(self.regions, self.places, strict=True) if a <= here < b)
        return next(found, 0)

    def _translate(self, array: np.ndarray) -> None:
        for i, word in enumerate(array.ravel().tolist()):
            if there := self.there(word):
                struct.pack_into("<q", self.image.bytes, self.there(array.ctypes.data + 8 * i) - BASE, there)

    def bring_back(self, after: bytes) -> None:
        """Take over what the program changed; addresses are not among it."""
        first = self.places[0]
        before = np.frombuffer(self.image.bytes, np.uint8, len(after), first - BASE)
        now = np.frombuffer(after, np.uint8)
        for (a, b), to in zip(self.regions, self.places, strict=True):
            here = np.ctypeslib.as_array((ctypes.c_uint8 * (b - a)).from_address(a))
            part = slice(to - first, to - first + b - a)
            changed = now[part] != before[part]
            here[changed] = now[part][changed]


def _regions(arrays: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """(start, end) of the memory of some arrays; views of the same array are one region."""
    starts = sorted((first, max(end, first + 1)) for first, end in map(np.lib.array_utils.byte_bounds, arrays))
    start, end = starts[0]
    for a, b in starts[1:]:
        if a >= end:
            yield start, end
            start = a
        end = max(end, b)
    yield start, end


def run(*calls: Call, threads: int = 1, also: Sequence[np.ndarray] = ()) -> None:
    """Run calls in their order on ARM. `also`: arrays that the calls reach through addresses inside others."""
    if threads != 1:
        raise ValueError("a program here has one thread")
    image = Image()
    walker = run_program(profile=False)
    image.link([walker, *(c.spec for c in calls)])
    barrier, cycles = aligned(256, np.uint8), aligned(1, np.int64)
    table = np.array([w for c in calls for w in (image.addresses[c.spec.name], c.block.ctypes.data)], np.int64)
    walk = Call(walker, table=table, count=len(calls), barrier=barrier, cycles=cycles)
    kept = [a for c in (walk, *calls) for a in (c.block, *c.keep.values())]
    memory = _Memory(image, [*kept, *also])
    first, size = memory.places[0], memory.end - memory.places[0]
    entry = image.place(_start(image.addresses[walker.name], memory.there(walk.block.ctypes.data), first, size))
    memory.bring_back(_simulate(image.executable(entry), size))


def _simulate(program: bytes, expected: int) -> bytes:
    """What a program writes: exactly `expected` bytes."""
    if QEMU is None:
        raise RuntimeError("no qemu-aarch64")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program"
        file.write_bytes(program)
        file.chmod(0o700)
        done = subprocess.run([QEMU, file], capture_output=True, timeout=120)
    if done.returncode or len(done.stdout) != expected:
        raise AssertionError(f"ARM program: exit {done.returncode}, {len(done.stdout)} bytes, {done.stderr[-500:]!r}")
    return done.stdout
