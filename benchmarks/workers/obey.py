"""The loop of a worker: a process that holds one model and obeys one-line JSON commands. Standard library only, because
the peers' environments hold nothing of ours.

    {"op": "prefill", "n": 512}  ->  {"seconds": 4.9}          a failed command answers {"error": "..."}

Promise: stdout carries answers and nothing else; whatever a library prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Operations = Mapping[str, Callable[..., dict[str, Any]]]


def obey(load: Callable[[], tuple[dict[str, Any], Operations]]) -> None:
    """Load the model, answer with facts about it, then one answer a command until `quit` or the end of stdin."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        facts, operations = load()
        _put(answers, facts)
        for line in sys.stdin:
            command = json.loads(line)
            if command["op"] == "quit":
                return
            _put(answers, _answer(operations, command))


def _answer(operations: Operations, command: dict[str, Any]) -> dict[str, Any]:
    try:
        return operations[command.pop("op")](**command)
    except Exception as error:  # whatever it is, the driver must hear of it in place of a figure
        return {"error": f"{type(error).__name__}: {error}"}


def _put(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
