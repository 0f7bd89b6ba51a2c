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
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.imports import arrows, circles, circles_inside, imported, imports, sources, tree

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "phi4mini"

TEXT = ("tokenizer", "chat")
HANDED_OUT = (  # the waist, and the types that it hands out
    "errors",
    "files",
    "model.config",
    *TEXT,
    "grammar",
    "engine.sample.params",
    "engine.sample.sampling",
    "engine.request",
    "llm",
)


@dataclass(frozen=True)
class Room:
    """A part of the package, what it does, and what of ours it may import besides itself: rooms, or parts of one.

    `tokens`: how much code it may have, without comments and docstrings; packing lines does not pay.
    """

    level: int
    name: str
    does: str
    may: tuple[str, ...]
    tokens: int


ROOMS = (
    Room(0, "errors", "errors of one line", (), 200),
    Room(0, "files", "files that are whole or absent, locks, the cache folder", ("errors",), 900),
    Room(0, "identity", "what everything we keep on disk depends on, in one table", ("errors", "files"), 1_600),
    Room(1, "formats", "how a matrix is stored", ("errors",), 6_500),
    Room(1, "tokenizer", "text to ids and back", ("errors", "files"), 8_400),
    Room(2, "model", "what the model is: numbers, arrays, and the whole of it in NumPy", ("errors", "formats"), 6_200),
    Room(
        2,
        "kernels",
        "one numeric operation a file, compiled for the CPU at hand; knows nothing of Phi",
        ("errors", "files", "identity", "formats"),
        30_800,
    ),
    Room(3, "chat", "conversations to ids and back; alone spells control tokens", ("errors", "tokenizer"), 14_200),
    Room(
        3,
        "engine",
        "ids to ids: schedule, compute, verify, hand out; knows no text",
        ("errors", "files", "identity", "formats", "model", "kernels"),
        22_500,
    ),
    Room(4, "grammar", "schemas, patterns and tools to which id may come next", ("errors", *TEXT), 11_900),
    Room(
        4,
        "weights",
        "files to arrays: sources, checkpoints, our packed store",
        # chat.templates is a table of names that a store records; weights never render or parse
        ("errors", "files", "identity", "formats", "model", "kernels", "tokenizer", "chat.templates"),
        30_800,
    ),
    Room(
        5,
        "llm",
        "the waist: it calls, it never decides",
        ("errors", "files", "formats", "model", "kernels", *TEXT, "engine", "grammar", "weights"),
        8_300,
    ),
    Room(6, "transformers_api", "the model card's sample, and code like it", HANDED_OUT, 16_200),
    Room(7, "server", "programs and people to llm: HTTP, dialects, page", HANDED_OUT, 48_600),
)
ALLOWED = {room.name: set(room.may) for room in ROOMS}
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


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree(path)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


# --- direction ------------------------------------------------------------------------------------------------------


def test_every_room_has_a_row_in_the_table():
    rooms = {room_of(path) for path in sources()}
    assert rooms - set(ALLOWED) - LAZY == set()


def test_the_table_points_one_way():
    """A room imports only rooms that stand above it in the table, so none can, by any path, import itself."""
    above: list[str] = []
    for room in ROOMS:
        assert [one for one in room.may if one.partition(".")[0] not in above] == [], room.name
        above.append(room.name)
    assert [room.level for room in ROOMS] == sorted(room.level for room in ROOMS)
    assert circles({room.name: {one.partition(".")[0] for one in room.may} for room in ROOMS}) == []


def table() -> str:
    """The rooms as CONTRIBUTING prints them: `python -m tests.test_house` writes it there."""
    lines = ["| level | room | what it does | may import |", "|---|---|---|---|"]
    for room in ROOMS:
        may = "the standard library" if not room.may else ", ".join(f"`{one}`" for one in room.may)
        lines.append(f"| {room.level} | `{room.name}` | {room.does} | {may} |")
    lines.append("| 9 | `cli` | commands; each imports its room when called | everything, inside functions |")
    return "\n".join(lines)


def test_contributing_prints_the_table():
    assert table() in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "run python -m tests.test_house"


def test_there_is_no_circle_at_any_level():
    assert circles(arrows(sources(), ROOT)) == []
    found = circles_inside(sources(), ROOT)
    found.pop("phi4mini", None)  # its __init__ hands names of rooms out; the rooms themselves are the table's
    assert found == {}


STATEMENTS = ["import p.b.c", "from p.b import c", "from p.b.c import x", "def f():\n    import p.b.c"]


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("typing", [False, True])
def test_a_circle_that_is_put_in_is_found(tmp_path: Path, statement: str, typing: bool):
    for name, text in (("__init__", ""), ("a", statement), ("b/__init__", ""), ("b/c", "x = 1"), ("b/d", "")):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / f"{name}.py").write_text(text)
    if typing:
        inner = statement.replace("\n", "\n    ")
        (tmp_path / "p" / "a.py").write_text(f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {inner}\n")
    files = sources(tmp_path / "p")
    assert circles(arrows(files, tmp_path)) == [] and circles_inside(files, tmp_path) == {}
    (tmp_path / "p" / "b" / "d.py").write_text("from p import a")
    tree.cache_clear()
    assert circles(arrows(files, tmp_path)) == [], "files go one way still"
    assert circles_inside(files, tmp_path) == {"p": ["a", "b"]}, "and their rooms do not"
    (tmp_path / "p" / "b" / "c.py").write_text("from p.b import d")
    tree.cache_clear()
    assert circles(arrows(files, tmp_path)) == ["p.a", "p.b.c", "p.b.d"]


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


def code_tokens(path: Path) -> int:
    """Tokens of code: names, numbers, operators, strings that are no docstrings. Comments and line ends are free."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(tree(path)) if isinstance(n, documented)]
    prose = {(n.body[0].lineno, n.body[0].col_offset) for n in nodes if ast.get_docstring(n, clean=False)}
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return sum(t.type not in skipped and t.start not in prose for t in tokens)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_keeps_its_budget(room: Room):
    """A room that outgrows it is built again, or the number is raised by whoever can say why."""
    assert sum(code_tokens(path) for path in sources() if room_of(path) == room.name) <= room.tokens


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


def write_table() -> None:
    """Print the table of rooms into CONTRIBUTING.md."""
    page = ROOT / "CONTRIBUTING.md"
    text = page.read_text(encoding="utf-8")
    lines = text.splitlines()
    first = lines.index("| level | room | what it does | may import |")
    last = max(i for i, line in enumerate(lines) if line.startswith("| ") and i < first + 40)
    page.write_text("\n".join([*lines[:first], table(), *lines[last + 1 :]]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_table()
