"""The server's log: a fault of the server keeps its traceback, as JSON too, and an entry is one line."""

from __future__ import annotations

import json

import pytest

from phi4mini.server.logs import Log


def deep(depth: int, message: str) -> None:
    if depth:
        deep(depth - 1, message)
    raise ZeroDivisionError(message)


FAULTS = [(0, "a fault"), (3, "line\nend"), (1, ""), (900, "deep"), (1, "x" * 5000), (1, "\x1b[2J"), (1, "ä 中 \u2028"),
          (2, '{"quoted": "}'), (1, "%s"), (5, "\0")]  # fmt: skip


@pytest.mark.parametrize(("depth", "message"), FAULTS)
def test_FI9_a_fault_has_its_traceback_in_json(capsys, depth: int, message: str) -> None:
    try:
        deep(depth, message)
    except ZeroDivisionError as error:
        Log(as_json=True).fault("engine", error)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    record = json.loads(told)
    assert (record["event"], record["where"], record["error"]) == ("fault", "engine", "ZeroDivisionError")
    assert "in deep" in record["traceback"] and "ZeroDivisionError" in record["traceback"]
    assert len(record["traceback"]) <= 20_000 and len(record["message"]) <= 203


def test_a_fault_has_its_traceback_for_people(capsys) -> None:
    try:
        deep(1, "a fault")
    except ZeroDivisionError as error:
        Log().fault("engine", error)
    told = capsys.readouterr().err
    assert " fault where=engine error=ZeroDivisionError message=a fault\nTraceback" in told
