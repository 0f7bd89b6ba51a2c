"""README and docs tell the truth: commands, options, make targets, files and modules exist, links lead somewhere,
examples import. Files and modules that comments and docstrings name exist too.
"""

from __future__ import annotations

import ast
import importlib
import io
import re
import shlex
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from phi4mini.cli import cli

ROOT = Path(__file__).resolve().parents[1]
CODE = ("phi4mini", "tests", "benchmarks", "examples", "scripts")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("**/*.md"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def is_a_module(name: str) -> bool:
    """A module of ours, or something that a module of ours has."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
            break
    value: object = importlib.import_module(".".join(parts[:count])) if count < len(parts) else None
    for attribute in parts[count:]:
        if not hasattr(value, attribute):
            return False
        value = getattr(value, attribute)
    return True


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of a language; "" for those that name none."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> list[str]:
    """What a page tells its reader to type: fenced blocks without a language or of sh, and inline code."""
    fenced = "\n".join(blocks(text, "") + blocks(text, "sh") + blocks(text, "console"))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*fenced.splitlines(), *re.findall(r"`([^`\n]+)`", prose)]


def calls(text: str, program: str) -> list[list[str]]:
    """Arguments of every call of a program in a page, a line's comment and pipeline split off."""
    found = []
    for line in shell_lines(text):
        match = re.search(rf"(?:^|[|&;$(]\s*|[\w./]*/|=\S+ |^\s+|-m ){program} (.+)", line)
        if match:
            words = shlex.split(re.split(r" [|&>]|;", match[1])[0], comments=True)
            found.append(words)
    return found


def options_of(command: click.Command) -> set[str]:
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_their_options_exist(page):
    context = click.Context(cli)
    for words in calls(page.read_text(encoding="utf-8"), "phi4mini"):
        verbs = [v for v in words[0].split("|") if v] if words else []
        if not verbs or words[0].startswith("-"):
            assert set(words) <= options_of(cli), f"{page.name}: phi4mini {' '.join(words)}"
            continue
        command = cli.get_command(context, verbs[0])
        assert command is not None, f"{page.name}: there is no command phi4mini {verbs[0]}"
        flags = {w.split("=")[0] for w in words[1:] if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", w)}
        assert flags <= options_of(command), f"{page.name}: phi4mini {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in calls(page.read_text(encoding="utf-8"), "make"):
        assert [w for w in words if re.fullmatch(r"[a-z-]+", w) and w not in targets] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_examples_parse_and_their_imports_exist(page):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in CODE:
                assert [a.name for a in node.names if not is_a_module(f"{node.module}.{a.name}")] == []


def test_every_page_of_docs_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name_of(p) for p in PAGES if p.parent.name == "docs" and f"({name_of(p)})" not in readme] == []


# ---- files and modules that prose names

FILE_NAME = re.compile(r"(?<![\w./@*-])(?:\.\./)*((?:[\w.-]+/)*[\w-]+\.(?:py|md|js|css|yml|toml))\b(?![\w/])")
MODULE_NAME = re.compile(r"(?<![\w./-])((?:phi4mini|benchmarks|tests)(?:\.[a-zA-Z]\w*)+)(?!/)")
NOT_OURS = {
    # files that a how-to page has its reader write
    "my_kernels.py",
    "tests/test_my_kernels.py",
    "test_my_kernels.py",
    "phi4mini/chat/templates/llama.py",
    "tests/chat/templates/test_llama.py",
    "read_it.py", "refused.py", "run_it.py",
    # files of other projects, and of a reader's own
    "convert_hf_to_gguf.py", "conversion/phi.py", "conversion/llama.py", "pack_quantized.py", "packing_utils.py",
    "qlinear_cuda.py", "utils/model.py", "first.py", "second.py",
}  # fmt: skip
SUFFIXES = (".py", ".md", ".js", ".css", ".yml", ".toml")


@cache
def our_files() -> set[str]:
    """The path of every file, and each end of it: tests/chat/conftest.py, chat/conftest.py, conftest.py."""
    folders = [ROOT / name for name in (*CODE, "docs", ".github")]
    nested = {path for folder in folders for path in folder.rglob("*") if path.suffix in SUFFIXES}
    parts = [path.relative_to(ROOT).parts for path in {*nested, *ROOT.iterdir()} if path.is_file()]
    return {"/".join(those[first:]) for those in parts for first in range(len(those))}


def comments_and_docstrings(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    yield from (t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def prose(path: Path) -> str:
    """What a file says to its reader."""
    return "\n".join(comments_and_docstrings(path)) if path.suffix == ".py" else path.read_text(encoding="utf-8")


TOLD = [
    *(page for page in PAGES if page.name != "CHANGELOG.md"),  # it names what was there then
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "examples")),
    *(ROOT / name for name in ("Makefile", ".ci/run", "pyproject.toml")),
    *(path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))),
]


@pytest.mark.parametrize("path", TOLD, ids=name_of)
def test_files_and_modules_that_prose_names_exist(path):
    text = prose(path)
    files = set(FILE_NAME.findall(text)) - NOT_OURS
    assert sorted(name for name in files if name not in our_files()) == []
    assert sorted(name for name in set(MODULE_NAME.findall(text)) if not is_a_module(name)) == []


def test_a_file_that_is_gone_is_found_out():
    said = "`kernels/gone.py`, norm.py, [page](../docs/engine.md), phi4mini.engine.gone, phi4mini.engine.engine.Engine"
    assert [name for name in FILE_NAME.findall(said) if name not in our_files()] == ["kernels/gone.py"]
    assert [name for name in MODULE_NAME.findall(said) if not is_a_module(name)] == ["phi4mini.engine.gone"]


# ---- the Makefile


def test_every_door_of_the_makefile_explains_itself():
    """A target without an explanation does not show in `make`."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)[0].split()
    assert [t for t in phony if not re.search(rf"^{t}:.*## \S", text, re.MULTILINE)] == []


def test_make_hands_on_a_prompt_as_it_was_typed():
    said = "costs $5 or $HOME and $(shell echo no)"
    rule = 'said: ; @printf "%s" "$$PROMPT"'
    command = ["make", "-s", f"--eval={rule}", "said", f"PROMPT={said}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == said


def test_the_first_thing_a_reader_sees_is_what_to_type():
    first = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make chat", "make test"]


def test_the_changelog_knows_this_version():
    from phi4mini import __version__

    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_table_of_contributing_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {p.name.removesuffix(".py") for p in (ROOT / "phi4mini").iterdir() if p.suffix == ".py" or p.is_dir()}
    shown = set(re.findall(r"`(\w+)`", "\n".join(line for line in text.splitlines() if line.startswith("| "))))
    assert {room for room in rooms if not room.startswith("_")} - {"config_json"} <= shown


# ---- docs/faults.md and docs/compatibility.md: a row has tests, a test that is named after a row has the row

FAULTS = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
FAULT, BROUGHT = r"[A-G]\d+", r"(?:FI|TP|CK|GG|TF|SC|RQ|PR)\d+"


def rows_told(page: str, row_name: str) -> dict[str, set[str]]:
    """Row -> the files that the page's tables name, `server: http, load` spelled out."""
    told: dict[str, set[str]] = {}
    for row, cell in re.findall(rf"^\| ({row_name}) \|.*\| ([^|]+) \|$", page, re.MULTILINE):
        assert row not in told, f"{row} is there twice"
        told[row] = set()
        for group in cell.split("; "):
            folder, _, names = group.rpartition(": ")
            told[row] |= {f"tests/{folder}/test_{name}.py".replace("//", "/") for name in names.split(", ")}
    return told


def rows_tested(row_name: str) -> dict[str, set[str]]:
    """Row -> the files with a test that is named after it."""
    tested: dict[str, set[str]] = {}
    pattern = rf"^(?:async )?def test_((?:{row_name}_and_)*{row_name})_"
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(pattern, path.read_text("utf-8"), re.MULTILINE):
            for row in name.split("_and_"):
                tested.setdefault(row, set()).add(name_of(path))
    return tested


def test_the_table_of_faults_names_the_tests_that_there_are():
    assert rows_told(FAULTS.partition("## Not held")[0], FAULT) == rows_tested(FAULT)


def test_the_table_of_faults_is_whole_and_counted():
    missing = re.findall(r"[A-G]\d+", "".join(re.findall(r"^\| ([^|]+) \|", FAULTS.partition("## Not held")[2], re.M)))
    told = rows_told(FAULTS.partition("## Not held")[0], FAULT)
    count, held = map(int, re.findall(r"Of (\d+) rows (\d+) are held", FAULTS)[0])
    assert len(told) == held >= 60 and held + len(set(missing) - set(told)) == count
    longest = {"A": 14, "B": 18, "C": 11, "D": 15, "E": 10, "F": 15, "G": 11}
    assert {*told, *missing} == {f"{letter}{n}" for letter, most in longest.items() for n in range(1, most + 1)}


def test_the_table_of_compatibility_names_the_tests_that_there_are():
    assert rows_told(COMPATIBILITY, BROUGHT) == rows_tested(BROUGHT)
