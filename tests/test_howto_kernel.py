"""docs/howto/add-a-kernel.md does what it says: its files are written, its commands run, its output is as it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "howto" / "add-a-kernel.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(line: str, folder: Path) -> str:
    """What a line of a shell prints in a folder, with the page's environment; `python` is this one."""
    before = re.match(r"(?:\w+=\S+ )*", line)
    assert before is not None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PHI4MINI_HOME": str(folder / "cache")}
    environment |= dict(word.split("=") for word in before[0].split())
    program, *words = line[before.end() :].split()
    assert program == "python"
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_the_first_kernel_is_written_tested_run_and_read(tmp_path: Path) -> None:
    printed, compared = "", 0
    for language, text in BLOCKS:
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, "a block of Python begins with the name of its file"
            with open(tmp_path / name[1], "a") as file:
                file.write(f"\n\n{text}")
        elif language == "sh":
            lines = [line for line in text.splitlines() if not line.startswith("export ")]
            printed = "".join(run(line, tmp_path) for line in lines)
        else:
            assert printed == text, f"the page shows\n{text}and the program printed\n{printed}"
            compared += 1
    assert compared >= 3
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"my_kernels_scale_add_cols_96.ll", "my_kernels_scale_add_cols_96.s"} <= kept


@pytest.mark.parametrize("path", re.findall(r"`(phi4mini/[\w/.]+|tests/[\w/.]+)`", PAGE))
def test_the_places_that_it_names_are_there(path: str) -> None:
    assert (ROOT / path).exists()
