"""The clock's opinion on the number of threads, with a clock and pass times that the test makes."""

from __future__ import annotations

import pytest

from phi4mini.kernels.threads.crew import Crew


class Machine:
    """Pass times by the number of threads, and the time that passes with them."""

    def __init__(self, times: dict[int, float]) -> None:
        self.times, self.now = times, 0.0
        self.crew = Crew(max(times), clock=lambda: self.now)

    def run(self, passes: int) -> list[int]:
        """The crew's size at each of some passes."""
        sizes = []
        for _ in range(passes):
            size = self.crew.size()
            sizes.append(size)
            self.now += self.times[size]
            self.crew.note(self.times[size])
        return sizes


@pytest.fixture
def machine() -> Machine:
    return Machine({1: 0.075, 2: 0.068})


def test_a_quiet_machine_is_never_tried(machine):
    assert machine.run(500) == [2] * 500


def test_a_taken_core_costs_a_few_passes_and_then_nothing(machine):
    machine.run(20)
    machine.times = {1: 0.076, 2: 0.122}
    sizes = machine.run(100)
    assert sizes[:3] == [2, 2, 2] and sizes[6] == 1
    assert sizes.count(2) <= 15  # three passes now and then, ever more rarely, to see whether the core is back


def test_the_core_comes_back(machine):
    machine.run(20)
    machine.times = {1: 0.076, 2: 0.122}
    machine.run(40)
    machine.times = {1: 0.075, 2: 0.068}
    assert machine.run(120)[-20:] == [2] * 20


def test_a_slow_phase_of_memory_keeps_all_threads(machine):
    machine.run(20)
    machine.times = {1: 0.115, 2: 0.100}
    assert machine.run(60)[-20:] == [2] * 20


def test_one_thread_has_no_choice():
    machine = Machine({1: 0.1})
    machine.times[1] = 0.1
    assert machine.run(5) == [1] * 5
