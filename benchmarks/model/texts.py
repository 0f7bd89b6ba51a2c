"""Prompts of real text for row 4, from the shared data beside the checkout: work that copies, and work that does
not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workers.driver import ROOT

DATA = ROOT.parent / "shared" / "data"
_FORM = """Fill in this JSON form for each of the problems below, one object after the other, as a JSON list.
Form: {"number": 0, "problem": "the whole text of the problem", "status": "open"}

"""


@dataclass(frozen=True)
class Task:
    """A prompt, how its answer begins (which sets a small model on its way), and whether it is copy-heavy."""

    name: str
    prompt: str
    opening: str
    copies: bool


def tasks() -> list[Task]:
    """Three copy-heavy tasks and five others. Raises FileNotFoundError where the shared data is absent."""
    code = _source("Lib/genericpath.py")
    code = code[code.index("def isfile") : code.index("def getctime")].strip()
    article = (DATA / "text" / "wikipedia_demo.txt").read_text(encoding="utf-8").splitlines()[2]
    sentences = article.split(". ")[1:9]
    quoted = ". ".join(sentences) + "."
    rows = _rows(DATA / "gsm8k" / "test_0000-0699.jsonl")
    problems = [text for text in (row["question"] for row in rows) if len(text) < 150][:5]
    form = json.dumps({"number": 1, "problem": problems[0], "status": "open"}, ensure_ascii=False)
    listed = "\n".join(f"{i + 1}. {text}" for i, text in enumerate(problems))
    edit = f"Rename the argument `filename` to `path` in this code and write all of it again.\n\n```python\n{code}\n```"
    quotes = f"Summarise this text by quoting its important sentences in order, as a numbered list.\n\n{quoted}"
    copying = [
        Task("edit this code", edit, "```python\ndef isfile(path):", True),
        Task("summarise with quotes", quotes, f'1. "{sentences[0]}."\n2. "', True),
        Task("fill this JSON", _FORM + listed, f"[\n{form},\n", True),
    ]
    return [*copying, *(Task(text[:40].strip(), text, "", False) for text in _prose())]


def _prose() -> list[str]:
    """Five instructions written by people that ask for text of one's own."""
    rows = _rows(DATA / "sft" / "mixed_messages_2000.jsonl")
    human = [row["messages"][0]["content"] for row in rows if row.get("written_by") == "human"]
    wanted = [text for text in human if text.lower().startswith(("write a", "explain", "describe", "tell me", "how "))]
    return [text for text in wanted if 30 < len(text) < 300][:5]


def _source(path: str) -> str:
    rows = _rows(DATA / "text" / "code_python_stdlib.jsonl")
    return str(next(row["text"] for row in rows if row["path"] == path))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
