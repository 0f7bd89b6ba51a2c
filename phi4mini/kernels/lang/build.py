"""Kernels from specs to callable addresses: LLVM IR to object code for one CPU, kept on disk, loaded in a millisecond.

Why a cache: the kernels of a model take seconds to write and compile, and 3 to 40 ms to load. The key of an object is a
hash of everything that decides its bytes: the row "kernel" of identity.py (all sources of this room, the versions of
libraries), the spec and the target. So a cached kernel is found without writing its IR. A file is its sha256 and then
the object; a file that does not match is made again. Files appear by rename, so two processes that compile at once do
not meet. Objects of 90 days ago are deleted when new ones are made.

MCJIT is not safe to enter twice, and two engines would each free code that callers of the other run (17 of 25 runs
crashed): hence one `Library` a process, and a lock.

PHI4MINI_KEEP_IR names a folder for the IR and the assembly of every kernel that is loaded; show.py prints one.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm

from phi4mini.errors import Phi4MiniError
from phi4mini.files import atomic_write, cache_home
from phi4mini.identity import key_of
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.lang.kernel import Spec

_log = logging.getLogger(__name__)
SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_KEPT = 90 * 86400.0  # seconds
_PINNED_CPU = {"avx512vnni": "znver4", "avxvnni": "alderlake", "avx2": "haswell", "neon": "neoverse-n1"}


@dataclass(frozen=True)
class Target:
    """The machine that code is generated for, in LLVM's words; `isa` is a key of cpu.ISAS."""

    isa: str
    triple: str
    cpu: str
    features: str

    @staticmethod
    def host() -> Target:
        """This machine at its best, or the instruction set that PHI4MINI_ISA asks for."""
        here = cpu()
        if here.isa_forced:
            return Target.pinned(here.isa)
        return Target(here.isa, llvm.get_process_triple(), here.name, here.features)

    @staticmethod
    def pinned(isa: str) -> Target:
        """A typical CPU of an instruction set, on whatever machine: for tests and for reading, and for PHI4MINI_ISA."""
        triple = "aarch64-unknown-linux-gnu" if isa == "neon" else llvm.get_process_triple()
        return Target(isa, triple, _PINNED_CPU[isa], "+dotprod" if isa == "neon" else "")

    def machine(self) -> llvm.TargetMachine:
        _initialize(self.isa == "neon")
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, reloc="pic" if self.isa == "neon" else "default", jit=True
        )


class Library:
    """The kernels of one process for one target; `address(spec)` after `need(specs)`."""

    def __init__(self, target: Target | None = None, folder: Path | None = None) -> None:
        _initialize()
        self.target = target or Target.host()
        self.folder = folder or cache_home() / "kernels"
        self._engine: llvm.ExecutionEngine | None = None
        self._addresses: dict[Spec, int] = {}
        self._unkept: dict[Spec, bytes] = {}  # compiled, and the folder did not take them
        self._lock = threading.Lock()

    def need(self, specs: Iterable[Spec]) -> None:
        """Make kernels callable, compiling the ones that are not on disk. Threads may call it at the same time."""
        with self._lock:
            wanted = [s for s in dict.fromkeys(specs) if s not in self._addresses]
            objects = {s: self._unkept.get(s) or _read(self._file(s)) or self._compile(s) for s in wanted}
            if objects:
                start = time.perf_counter()
                self._load(objects)
                _log.debug("%d kernels loaded in %.1f ms", len(objects), 1e3 * (time.perf_counter() - start))
            if wanted and (folder := os.environ.get("PHI4MINI_KEEP_IR")):
                keep_text(wanted, self.target, Path(folder))

    def prepare(self, specs: Iterable[Spec]) -> None:
        """Compile the kernels that are not on disk yet and say so in one line, so that no later pass waits for them."""
        here = self._addresses.keys() | self._unkept.keys()
        missing = [s for s in dict.fromkeys(specs) if s not in here and not self._file(s).is_file()]
        if missing:
            _log.warning("compiling %d kernels for %s, this once", len(missing), self.target.cpu)
        for spec in missing:
            self._compile(spec)
        if missing:
            self._sweep()

    def _sweep(self) -> None:
        """Delete objects made long ago, mostly of other sources. One that is still needed is made again in 0.1 s."""
        for file in self.folder.glob("*.o"):
            with suppress(OSError):  # another process was faster, or the folder is not ours to change
                if time.time() - file.stat().st_mtime > _KEPT:
                    file.unlink()

    def _compile(self, spec: Spec) -> bytes:
        start = time.perf_counter()
        code = compile_object(spec, self.target)
        _log.debug("%s: %d bytes in %.0f ms", spec.name, len(code), 1e3 * (time.perf_counter() - start))
        try:
            _write(self._file(spec), code)
        except (OSError, Phi4MiniError) as error:
            if not self._unkept:
                _log.warning("compiled kernels cannot be kept: %s", error)
            self._unkept[spec] = code
        return code

    def _file(self, spec: Spec) -> Path:
        return self.folder / f"{self._key(spec)}.o"

    def address(self, spec: Spec) -> int:
        return self._addresses[spec]

    def function(self, spec: Spec) -> Callable[[int, int, int], None]:
        """The kernel as a Python callable (argument block, thread, threads); it runs without the GIL."""
        self.need([spec])
        return SIGNATURE(self.address(spec))

    def _load(self, objects: dict[Spec, bytes]) -> None:
        if self._engine is None:
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self.target.machine())
        for code in objects.values():
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        for spec in objects:
            self._addresses[spec] = self._engine.get_function_address(spec.name)

    def _key(self, spec: Spec) -> str:
        t = self.target
        return key_of("kernel", spec.name, t.isa, t.triple, t.cpu, t.features)[:32]


_once = threading.Lock()


def library() -> Library:
    """The library of this process. Two of them would each free code that the other's callers run, hence the lock."""
    with _once:
        return _library()


@cache
def _library() -> Library:
    return Library()


def write_ir(spec: Spec, isa: str, triple: str) -> str:
    """The kernel as LLVM IR text, before optimisation."""
    from llvmlite import ir

    from phi4mini.kernels.lang.kernel import Kernel

    module = ir.Module(name=spec.name)
    module.triple = triple
    k = Kernel(module, spec.name, spec.fields, isa)
    spec.emit(k, **dict(spec.params))
    k.finish()
    return str(module)


def optimize(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """-O3 without the vectorisers and the unroller: vectors and unrolling are what the source says."""
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def compile_object(spec: Spec, target: Target) -> bytes:
    """The kernel as a relocatable object file for a target."""
    machine = target.machine()
    return machine.emit_object(optimize(write_ir(spec, target.isa, target.triple), machine))


def assembly(spec: Spec, target: Target) -> str:
    """The machine code of a kernel as text, for tests and for reading."""
    machine = target.machine()
    return machine.emit_assembly(optimize(write_ir(spec, target.isa, target.triple), machine))


def keep_text(specs: Iterable[Spec], target: Target, folder: Path) -> None:
    """Write the IR (.ll) and the assembly (.s) of kernels, by their names, for a reader. A folder that cannot be
    written is said once and stops nothing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for spec in specs:
            (folder / f"{spec.name}.ll").write_text(write_ir(spec, target.isa, target.triple), "utf-8")
            (folder / f"{spec.name}.s").write_text(assembly(spec, target), "utf-8")
    except OSError as error:
        _log.warning("PHI4MINI_KEEP_IR: %s", error)


@cache
def _initialize(every_target: bool = False) -> None:
    if every_target:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _read(file: Path) -> bytes | None:
    try:
        data = file.read_bytes()
    except OSError:
        return None
    code = data[32:]
    return code if hashlib.sha256(code).digest() == data[:32] else None


def _write(file: Path, code: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as f:
        f.write(hashlib.sha256(code).digest() + code)
