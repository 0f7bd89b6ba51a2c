"""This tree against a commit: the checkout that goes away, and the table."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import before
from benchmarks.before import ROWS, checkout, table
from benchmarks.workers import ROOT


def test_a_commit_is_checked_out_and_goes_away():
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("needs a git checkout")
    with checkout("HEAD") as tree:
        assert (tree / "phi4mini" / "__init__.py").is_file()
    assert not tree.exists()
    listed = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True).stdout
    assert str(tree) not in listed


def test_the_table_pairs_rounds_and_shows_their_spread():
    speeds = {"before": {row: [10.0, 20.0, 40.0] for row in ROWS}, "now": {row: [11.0, 20.0, 20.0] for row in ROWS}}
    assert table(speeds)[2] == f"| prefill {before.PROMPT} | 20.00 | 20.00 | 1.000 (0.50 to 1.10) |"
    assert len(table(speeds)) == 2 + len(ROWS)
