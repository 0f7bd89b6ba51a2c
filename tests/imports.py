"""Who imports whom, from the syntax tree: arrows between modules, and circles of modules and of folders."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "phi4mini"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def sources(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


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


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """The nodes that reach themselves."""
    reach = {node: set(nexts) for node, nexts in graph.items()}
    for _ in reach:
        reach = {node: nexts.union(*(reach.get(n, set()) for n in nexts)) for node, nexts in reach.items()}
    return sorted(node for node, nexts in reach.items() if node in nexts)


def arrows(files: list[Path], root: Path) -> dict[str, set[str]]:
    """Module -> the modules it imports, those imported lazily or for type checkers as well."""
    modules = {module_name(path, root): path for path in files}

    def module(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        nodes = [n for n in ast.walk(tree(path)) if isinstance(n, (ast.Import, ast.ImportFrom))]
        full = [f"{n.module}.{a.name}" for n in nodes if isinstance(n, ast.ImportFrom) and n.module for a in n.names]
        full += [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        found[name] = {module(one) for one in full} - {name, ""}
    return found


def circles_inside(files: list[Path], root: Path) -> dict[str, list[str]]:
    """Package -> those of its direct children, modules and packages alike, that import each other in a circle."""
    graph, found = arrows(files, root), {}
    for package in (module_name(path, root) for path in files if path.name == "__init__.py"):
        inner: dict[str, set[str]] = {}
        for name, nexts in graph.items():
            if name.startswith(f"{package}."):
                child = name[len(package) + 1 :].partition(".")[0]
                inside = {n[len(package) + 1 :].partition(".")[0] for n in nexts if n.startswith(f"{package}.")}
                inner.setdefault(child, set()).update(inside - {child})
        if turning := circles(inner):
            found[package] = turning
    return found


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
