"""Read what a kernel becomes: its arguments, its LLVM IR, its assembly.

    python -m phi4mini.kernels.lang.show                                     all operations and their parameters
    python -m phi4mini.kernels.lang.show norm rmsnorm format=q4 cols=3072            assembly for this machine
    python -m phi4mini.kernels.lang.show                                             operations and parameters
    ... --optimized       the IR after LLVM's passes        ... --arguments       arguments with their types and sizes
    ... --isa avx2        for another instruction set (avx512vnni, avxvnni, avx2, neon)

Nothing is run and nothing is cached, so any target can be looked at on any machine.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator

import phi4mini.kernels
from phi4mini.errors import BadInput, Phi4MiniError
from phi4mini.kernels.cpu import ISAS
from phi4mini.kernels.lang.arguments import Type
from phi4mini.kernels.lang.build import Target, assembly, optimize, write_ir
from phi4mini.kernels.lang.kernel import Operation, Spec


def operations() -> Iterator[tuple[str, Operation]]:
    """Every operation of the room with the name of its file, in the order of files."""
    for found in pkgutil.walk_packages(phi4mini.kernels.__path__, "phi4mini.kernels."):
        if found.ispkg or found.name == __name__:
            continue
        module = importlib.import_module(found.name)
        for thing in vars(module).values():
            if isinstance(thing, Operation) and thing.emit.__module__ == found.name:
                yield found.name.rpartition(".")[2], thing


def spec_of(file: str, name: str, assignments: list[str]) -> Spec:
    """The spec that a command line means: file, operation, staging parameters `name=value`. Raises BadInput."""
    found = {(where, op.__name__): op for where, op in operations()}
    if (file, name) not in found:
        near = ", ".join(op for where, op in found if where == file)
        raise BadInput(f"there is no kernel {file} {name}" + (f"; {file} has {near}" if near else ""))
    operation = found[file, name]
    known = dict(list(inspect.signature(operation.emit).parameters.items())[1:])
    given = dict(assignment.partition("=")[::2] for assignment in assignments)
    missing = [p for p, about in known.items() if about.default is inspect.Parameter.empty and p not in given]
    if set(given) - set(known) or missing:
        takes = " ".join(f"{p}=" for p in known)
        raise BadInput(f"{file} {name} takes {takes}, got {' '.join(assignments) or 'nothing'}")
    values = {p: _value(f"{file} {name}", p, known[p].annotation, given[p]) for p in known if p in given}
    try:
        return operation(**values)
    except KeyError as error:  # a format or kind that no table has
        raise BadInput(f"{file} {name}: there is no {error}") from error


def _value(operation: str, name: str, kind: str, text: str) -> int | bool | str:
    """A parameter's value by its annotation."""
    if kind == "bool" and text in ("True", "False"):
        return text == "True"
    if kind == "int" and text.isdigit():
        return int(text)
    if kind == "str":
        return text
    raise BadInput(f"{operation}: {name} is {kind}, not {text!r}")


def arguments(spec: Spec) -> str:
    """A line for each argument: its place in the block, its name, its type with the sizes that are known."""
    return "\n".join(f"{8 * i:4} {name}: {_told(type)}" for i, (name, type) in enumerate(spec.fields))


def _told(type: Type) -> str:
    if not type.array:
        return type.kind
    sizes = []
    for dim in type.dims or ():
        size = dim.name if dim.size is None else f"{dim.size}" if dim.times is None else f"{dim.size} * {dim.times}"
        sizes.append(size if dim.stride is None else f"{size}, {dim.stride} bytes apart")
    return f"{type.kind} [{'; '.join(sizes)}]"


def text_of(spec: Spec, what: str, target: Target) -> str:
    """`what`: "asm", "ir", "optimized" or "arguments"."""
    if what == "arguments":
        return arguments(spec)
    if what == "asm":
        return assembly(spec, target)
    ir = write_ir(spec, target.isa, target.triple)
    return ir if what == "ir" else str(optimize(ir, target.machine()))


def main(words: list[str] | None = None) -> int:
    """The command line above; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m phi4mini.kernels.lang.show", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="file operation name=value ...")
    form = parser.add_mutually_exclusive_group()
    for what in ("asm", "ir", "optimized", "arguments"):
        form.add_argument(f"--{what}", dest="what", action="store_const", const=what, default="asm")
    parser.add_argument("--isa", choices=sorted(ISAS))
    given = parser.parse_intermixed_args(words)
    try:
        if len(given.words) < 2:
            for file, operation in operations():
                named = list(inspect.signature(operation.emit).parameters)[1:]
                if not given.words or file == given.words[0]:
                    print(file, operation.__name__, *(f"{name}=" for name in named))
            return 0
        target = Target.pinned(given.isa) if given.isa else Target.host()
        print(text_of(spec_of(given.words[0], given.words[1], given.words[2:]), given.what, target))
        return 0
    except Phi4MiniError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
