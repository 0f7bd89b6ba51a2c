"""The number of threads: as many as asked for, never more than the physical cores that this process may use.

More threads than cores would be slower, not only useless: threads meet at a barrier after every operation, and two of
them on one core take turns there. A hyper-thread adds nothing either, because one thread of a core already keeps its
dot units or its share of memory busy. A cgroup's quota counts as cores, rounded down: with 2.5 CPUs' worth of time
three threads would all be stopped for part of every period.
"""

from __future__ import annotations

from phi4mini.errors import BadInput
from phi4mini.kernels.cpu import Cpu, cpu


def most_threads(here: Cpu | None = None) -> int:
    """Physical cores within affinity and quota, at least one; of this machine unless another is given."""
    here = here or cpu()
    return here.cores if here.quota is None else max(1, min(here.cores, int(here.quota)))


def thread_count(requested: int | None = None, here: Cpu | None = None) -> int:
    """Threads to use: as many as requested but never more than `most_threads`, which is the default.

    Raises BadInput for a number below 1.
    """
    if requested is not None and requested < 1:
        raise BadInput(f"threads must be at least 1, not {requested}")
    most = most_threads(here)
    return min(requested or most, most)


def thread_note(requested: int | None, here: Cpu | None = None) -> str | None:
    """One line for people when `thread_count` gives less than requested, and why."""
    here = here or cpu()
    most = most_threads(here)
    if requested is None or requested <= most:
        return None
    limit = f"{here.cores} physical cores allowed"
    if here.quota is not None and here.quota < here.cores:
        limit = f"a quota of {here.quota:g} CPUs"
    return f"using {most} threads instead of {requested}: {limit}"
