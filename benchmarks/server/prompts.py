"""Conversations to ask a server: from a JSONL file, or the few that are written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Messages = list[dict[str, str]]

LONGEST = 4000  # characters of one conversation; a longer row is passed over, so that a small model's context holds all

SHIPPED = (
    "Why is the sky blue? Answer in two sentences.",
    "List five fruits and the colour of each.",
    "Write a haiku about a harbour in winter.",
    "Explain to a child what a computer program is.",
    "What is the difference between a lake and a pond?",
    "Translate into French: The train leaves at seven in the morning.",
    "A baker sells 14 loaves at 3 euros each and 9 rolls at 1 euro. How much does she take in?",
    "Name three causes of the First World War.",
    "Write a Python function that reverses the words of a sentence.",
    "Give me a recipe for tomato soup with four ingredients.",
    "What happens to water when it freezes, and why does ice float?",
    "Write a short letter that asks a neighbour to water the plants.",
)


def prompts(path: Path | None, count: int) -> list[Messages]:
    """The first `count` conversations of a file up to their last question, or those written here. Raises ValueError
    where a row has no question, or where there is none at all.
    """
    if path is None:
        return [[{"role": "user", "content": text}] for text in SHIPPED[:count]]
    found: list[Messages] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        messages = question_of(json.loads(line), f"{path.name}, line {number}")
        if sum(len(message["content"]) for message in messages) <= LONGEST:
            found.append(messages)
        if len(found) == count:
            break
    if not found:
        raise ValueError(f"{path.name} has no conversation of at most {LONGEST} characters")
    return found


def question_of(row: dict[str, Any], where: str) -> Messages:
    """What a row asks: `messages` up to the last of the user's, or the text of `prompt` or `question`."""
    given = next((row[name] for name in ("messages", "prompt", "question") if name in row), None)
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    listed = [m for m in given if m.get("role") in ("system", "user", "assistant")] if isinstance(given, list) else []
    while listed and listed[-1]["role"] != "user":
        listed.pop()
    if not listed or not all(isinstance(m.get("content"), str) for m in listed):
        raise ValueError(f"{where} has no question: messages, prompt or question is needed")
    return [{"role": m["role"], "content": m["content"]} for m in listed]
