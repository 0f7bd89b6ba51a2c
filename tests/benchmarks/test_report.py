"""Lines and their table: verdicts follow the median, and nothing measured is no verdict."""

from __future__ import annotations

import json

from benchmarks.report import Line, at_least, at_most, markdown, speed


def test_a_verdict_needs_a_figure():
    line = at_least(2, "decode", 1.3, "15 tok/s", [], "11 tok/s")
    assert (line.met, line.ratio, line.peer) == (None, None, "11 tok/s: no steady pair")


def test_the_median_decides():
    assert at_least(1, "x", 2.0, "f", [1.0, 2.0, 9.0]).met is True
    assert at_least(1, "x", 2.0, "f", [1.0, 1.9, 9.0]).met is False
    assert at_most(6, "start", 1.5, "1.6 s", 1.6).met is False
    assert speed([3.0, 1.0, 2.0]) == "2.0 tok/s"


def test_the_table_has_a_row_for_each_line_and_the_same_width_everywhere():
    table = markdown([Line(1, "prefill", "100 tok/s", "40 tok/s", 2.5, True), Line(6, "start", "2 s", met=False)])
    rows = table.splitlines()
    assert len(rows) == 4 and len({len(row) for row in rows}) == 1
    assert "| 2.50  | yes |" in rows[2] and "| NO  |" in rows[3]


def test_a_line_as_json_is_json():
    assert json.loads(json.dumps(Line(1, "t", "f", ratio=float("nan")).to_json()))["ratio"] is None
