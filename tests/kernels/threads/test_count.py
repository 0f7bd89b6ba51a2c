"""The number of threads: at most the cores that affinity and quota leave, and a line where it is less than asked.

How cores and quotas are read is tested in test_cpu.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from phi4mini.errors import BadInput
from phi4mini.kernels.cpu import Cpu
from phi4mini.kernels.threads.count import most_threads, thread_count, thread_note

FOUR = Cpu("testcpu", "", "avx2", False, cpus=4, cores=4, quota=None, l1=0, l2=0, l3=0)
QUOTA = replace(FOUR, quota=2.5)


def test_threads_are_never_more_than_allowed_and_the_note_says_so() -> None:
    assert [thread_count(n, FOUR) for n in (None, 1, 4, 5, 1000)] == [4, 1, 4, 4, 4]
    assert thread_note(4, FOUR) is None and thread_note(None, FOUR) is None
    assert thread_note(5, FOUR) == "using 4 threads instead of 5: 4 physical cores allowed"
    assert thread_note(3, QUOTA) == "using 2 threads instead of 3: a quota of 2.5 CPUs"
    for bad in (0, -1):
        with pytest.raises(BadInput, match=f"threads must be at least 1, not {bad}"):
            thread_count(bad, FOUR)


@pytest.mark.parametrize(("quota", "most"), [(None, 4), (0.5, 1), (1.99, 1), (2.5, 2), (4.0, 4), (64.0, 4)])
def test_a_quota_is_rounded_down_and_leaves_one(quota: float | None, most: int) -> None:
    assert most_threads(replace(FOUR, quota=quota)) == most


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an affinity mask")
def test_affinity_is_obeyed() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from phi4mini.kernels.threads.count import thread_count\n"
        "print(thread_count(), thread_count(64))"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout == "1 1\n"
