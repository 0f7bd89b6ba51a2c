"""The house rules, from the syntax tree: who may import whom, how long things are, what is typed and documented."""

from __future__ import annotations

import ast
import io
import re
import statistics
import subprocess
import sys
import time
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "phi4mini"

TEXT = {"chat", "tokenizer"}
HANDED_OUT = {  # what the waist hands to those above it, and the types it hands out
    "errors",
    "files",
    "grammar",
    "llm",
    *TEXT,
    "model.config",
    "engine.sample.params",
    "engine.sample.sampling",
    "engine.request",
}
ALLOWED: dict[str, set[str]] = {  # a room, and what it may import besides itself; a dotted name is a part of a room
    "errors": set(),
    "files": {"errors"},
    "identity": {"errors", "files"},
    "formats": {"errors"},
    "tokenizer": {"errors", "files"},
    "model": {"errors", "formats"},
    "kernels": {"errors", "files", "identity", "formats"},
    "chat": {"errors", "tokenizer"},
    "engine": {"errors", "files", "identity", "formats", "model", "kernels"},
    "grammar": TEXT | {"errors"},
    # chat.templates is a table of names that a packed store records; weights never render or parse
    "weights": {"errors", "files", "identity", "formats", "model", "kernels", "tokenizer", "chat.templates"},
    "llm": TEXT | {"errors", "files", "formats", "model", "kernels", "engine", "weights", "grammar"},
    "tuning": TEXT | {"errors", "files", "formats", "model", "weights", "kernels.linear"},
    "transformers_api": HANDED_OUT,
    "evaluation": HANDED_OUT,
    "server": HANDED_OUT,
    "distributed": HANDED_OUT | {"server", "evaluation", "tuning"},
}
LAZY = {"__init__", "__main__", "cli"}  # anything, but inside functions
FENCED = {  # a heavy library, and the only rooms that may name it
    "llvmlite": {"kernels"},
    "tokenizers": {"tokenizer"},
    "huggingface_hub": {"weights", "cli"},
    "torch": {"tuning", "transformers_api"},
    "transformers": {"tuning"},
    "trl": {"tuning"},
    "peft": {"tuning"},
    "accelerate": {"tuning"},
    "llguidance": {"grammar"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "prompt_toolkit": {"cli"},
    "rich": {"cli"},
    "click": {"cli"},
    "lm_eval": {"evaluation"},
    "ray": {"distributed"},
}
ON_DEMAND = {"torch": "transformers_api"}  # a room that works without it; only a user's own tensors ask for it
MAX_FILE, MAX_FUNCTION, MEDIAN_FILE, MEDIAN_FUNCTION = 400, 80, 150, 10
PLAIN_MEMBER = 6


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def sources(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(node: ast.AST) -> list[str]:
    """Full names that an import statement brings in; our own are absolute, so that a reader can search for them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports within the package are absolute"
        if node.module == "phi4mini":
            return [f"phi4mini.{alias.name}" for alias in node.names]
        return [str(node.module)]
    return []


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of every import in a file, lazy ones and those for type checkers included."""
    for node in ast.walk(tree(path)):
        for name in imported(node):
            yield getattr(node, "lineno", 0), name


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree(path)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


# --- direction ------------------------------------------------------------------------------------------------------


def test_every_room_has_a_row_in_the_table():
    rooms = {room_of(path) for path in sources()}
    assert rooms - set(ALLOWED) - LAZY == set()


def test_the_table_points_one_way():
    """No room may, by any path of the table, import itself."""
    reach = {room: {name.partition(".")[0] for name in names} for room, names in ALLOWED.items()}
    for _ in reach:
        reach = {room: names.union(*(reach.get(name, set()) for name in names)) for room, names in reach.items()}
    assert [room for room, names in reach.items() if room in names] == []


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_rooms_import_only_what_lies_below(path):
    room, wrong = room_of(path), []
    for line, name in imports(path):
        top, _, ours = name.partition(".")
        if top == "phi4mini" and room not in LAZY:
            permitted = ALLOWED[room] | {room, "__version__"}
            if not any(f"{ours}.".startswith(f"{one}.") for one in permitted):
                wrong.append(f"line {line}: {room} imports {name}")
        elif room not in FENCED.get(top, {room}):
            wrong.append(f"line {line}: {top} belongs to {', '.join(sorted(FENCED[top]))}")
    assert wrong == []


def test_what_a_room_can_do_without_is_imported_inside_functions():
    for library, room in ON_DEMAND.items():
        paths = [path for path in sources() if room_of(path) == room]
        eager = [(name_of(p), n) for p in paths for node in tree(p).body for n in imported(node)]
        assert [place for place, name in eager if name.partition(".")[0] == library] == []
        assert library in {name.partition(".")[0] for path in paths for _, name in imports(path)}


@pytest.mark.parametrize("path", [p for p in sources() if room_of(p) in LAZY], ids=name_of)
def test_the_doors_import_rooms_inside_functions(path):
    eager = [n for node in tree(path).body for n in imported(node) if n.startswith("phi4mini.")]
    assert [n for n in eager if n.split(".")[1] not in ("errors", "cli", "__version__")] == []


# --- size -----------------------------------------------------------------------------------------------------------

PYTHON_FOLDERS = [ROOT / name for name in ("phi4mini", "tests", "scripts", "benchmarks")]


@pytest.mark.parametrize("path", [p for folder in PYTHON_FOLDERS for p in sources(folder)], ids=name_of)
def test_no_file_and_no_function_is_too_long(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE, f"{lines} lines: a file of more than {MAX_FILE} wants to be two"
    long = [f"{f.name} has {length(f)} lines" for f in functions(path) if length(f) > MAX_FUNCTION]
    assert long == []


def test_the_typical_file_and_function_are_short():
    files = [path.read_text(encoding="utf-8").count("\n") for path in sources()]
    lengths = [length(function) for path in sources() for function in functions(path)]
    assert statistics.median(files) <= MEDIAN_FILE
    assert statistics.median(lengths) <= MEDIAN_FUNCTION


def code_lines(path: Path) -> int:
    """Lines that carry a token which is neither a comment nor a docstring."""
    text = path.read_text(encoding="utf-8")
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(tree(path)) if isinstance(n, documented)]
    strings = [n.body[0] for n in nodes if ast.get_docstring(n, clean=False)]
    prose = {line for s in strings for line in range(s.lineno, (s.end_lineno or 0) + 1)}
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in skipped]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - prose)


def test_the_package_keeps_its_line_budget():
    stated = re.search(r"under ([\d,]+) lines of code", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert stated, "README states the package's budget"
    assert sum(map(code_lines, sources())) < int(stated[1].replace(",", ""))


# --- what is typed and documented -----------------------------------------------------------------------------------


def public_functions(path: Path) -> Iterator[tuple[bool, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(whether it must be explained, function) of a module and of its public classes, names with _ in front left out.

    A member of a class of a few lines may be explained by its name and type; anything else says what it does.
    """
    for node in tree(path).body:
        is_class = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for member in node.body if isinstance(node, ast.ClassDef) and is_class else [node]:
            if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)) and not member.name.startswith("_"):
                yield not is_class or length(member) > PLAIN_MEMBER, member


def unannotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    named += [a for a in (function.args.vararg, function.args.kwarg) if a]
    missing = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
    return missing + (["return"] if function.returns is None else [])


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_public_things_are_typed_and_documented(path):
    if path.stat().st_size == 0:
        return
    missing = [] if ast.get_docstring(tree(path)) else ["the file has no docstring"]
    for explained, function in public_functions(path):
        missing += [f"{function.name}: {argument} has no type" for argument in unannotated(function)]
        if explained and not ast.get_docstring(function):
            missing.append(f"{function.name} has no docstring")
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            missing.append(f"{node.name} has no docstring")
    assert missing == []


@pytest.mark.parametrize("path", sources(ROOT / "tests"), ids=name_of)
def test_no_test_file_is_without_a_purpose(path):
    assert path.stat().st_size == 0 or ast.get_docstring(tree(path))


# --- what the package weighs ----------------------------------------------------------------------------------------


def fresh_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    ).stdout


def test_import_phi4mini_pulls_in_nothing_heavy():
    loaded = set(fresh_python("import phi4mini, sys; print(*sys.modules)").split())
    assert {name for name in loaded if name.startswith("phi4mini.")} <= {"phi4mini.errors"}
    heavy = {"numpy", "msgspec", "pydantic", *FENCED}
    assert {name.partition(".")[0] for name in loaded} & heavy == set()


def test_import_phi4mini_costs_under_100_ms():
    def best(code: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            fresh_python(code)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("import phi4mini") - best("") < 0.1


def test_dependencies_are_declared_and_used():
    """The core's packages in pyproject.toml are those the rooms import, no more and no fewer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[><=~!\[ ]", line)[0].replace("-", "_") for line in project["dependencies"]}
    optional = {"server", "grammar", "tuning", "evaluation", "distributed"}
    core = [path for path in sources() if room_of(path) not in optional]
    used = {name.partition(".")[0] for path in core for _, name in imports(path)} - set(sys.stdlib_module_names)
    assert used - {"phi4mini", *ON_DEMAND} == declared


# --- what does not belong in files ----------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """Text files that git tracks or would; all but the ignored where this is not a git checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = listing.stdout.splitlines()
    if listing.returncode:
        names = [name_of(p) for p in ROOT.rglob("*") if not p.relative_to(ROOT).parts[0].startswith(".")]
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".json", ""}
    return [ROOT / name for name in names if (ROOT / name).is_file() and Path(name).suffix in suffixes]


def test_no_file_names_this_machine_or_a_package_host():
    places = {re.escape(f"{ROOT}/"), r"/home/\w+/", r"/root/", r"/Users/\w+/"}
    places |= {r"files\.pythonhosted\.org", r"pypi\.org/simple"}
    if len(ROOT.parts) > 2 and ROOT.parts[1] not in ("tmp", "home", "var", "usr", "opt"):
        places.add(re.escape(f"{ROOT.parent}/"))
    pattern = re.compile(r"(?<![\w.])(" + "|".join(sorted(places)) + ")")
    found = []
    for path in tracked():
        if path != Path(__file__):
            lines = enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
            found += [f"{name_of(path)}:{n}: {line.strip():.100}" for n, line in lines if pattern.search(line)]
    assert found == []
