"""This tree against a commit: the checkout that goes away, and the table."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest

from benchmarks import before
from benchmarks.before import ROWS, checkout, table, worker_module
from benchmarks.workers.driver import ROOT


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


def test_each_tree_is_asked_through_its_own_worker(tmp_path):
    assert worker_module(ROOT) == "benchmarks.workers.ours"
    assert importlib.util.find_spec(worker_module(ROOT))
    assert worker_module(tmp_path) == "benchmarks.worker_ours"  # a commit from before the workers had a folder
