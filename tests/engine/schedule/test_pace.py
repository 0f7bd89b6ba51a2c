"""F8: a long prompt goes beside those who draw in chunks they hardly notice; what comes out does not depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import pytest

from phi4mini.engine.compute.buffers import MAX_ROWS
from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.schedule.pace import LEAST, LONGER, Pace
from tests import tiny
from tests.engine.traces import ASKS, run

MOST = 500


class Machine:
    """A clock on which passes take what a made-up machine takes: `step` to go beyond few rows, `row` for each."""

    def __init__(self, draw: float, step: float, row: float) -> None:
        self.now, self.draw, self.step, self.row = 0.0, draw, step, row
        self.pace = Pace(lambda: self.now)

    def run(self, drawing: int, prompt: int) -> float:
        """Seconds of one pass, which the pace is told."""
        self.pace.begin()
        seconds = self.draw * (drawing > 0) + self.step * (prompt > 0) + self.row * prompt
        self.now += seconds
        self.pace.end(drawing, prompt)
        return seconds

    def beside(self, drawing: int, passes: int) -> list[tuple[int, float]]:
        """Rows and seconds of passes in which a prompt goes as the pace allows."""
        out = []
        for _ in range(passes):
            rows = min(self.pace.rows(drawing), MOST)
            out.append((rows, self.run(drawing, rows)))
        return out


@pytest.mark.parametrize(("step", "row"), [(0.0, 0.001), (0.02, 0.001), (0.0, 0.0003), (0.03, 0.0001)])
def test_F8_passes_become_as_long_as_allowed_and_no_longer(step: float, row: float) -> None:
    machine = Machine(0.1, step, row)
    machine.run(0, 100)
    for _ in range(5):
        machine.run(4, 0)
    seen = machine.beside(4, 60)
    assert seen[0][0] == LEAST
    assert all(seconds <= 0.1 * LONGER * 1.1 for _, seconds in seen)
    assert all(seconds >= 0.1 * LONGER * 0.8 or rows == MOST for rows, seconds in seen[-10:])


@pytest.mark.parametrize(("drawing", "rows"), [(1, 7), (4, 4), (5, LEAST), (30, LEAST)])
def test_prompts_move_however_dear_a_chunk_is(drawing: int, rows: int) -> None:
    """In what the kernels for 8 rows leave free, if that is something; a chunk is tried again now and then."""
    machine = Machine(0.01, 0.5, 0.1)
    machine.run(drawing, 0)
    seen = [rows for rows, _ in machine.beside(drawing, 600)]
    assert seen[0] == LEAST and seen[1:250] == [rows] * 249
    assert seen.count(LEAST) == 3 or rows == LEAST


def test_rows_that_cost_nothing_are_taken_step_by_step() -> None:
    machine = Machine(0.1, 0.0, 0.0)
    machine.run(1, 0)
    assert [rows for rows, _ in machine.beside(1, 8)] == [8, 16, 32, 64, 128, 256, 500, 500]


def test_a_machine_that_slows_down_is_noticed_and_one_slow_pass_is_not() -> None:
    machine = Machine(0.1, 0.0, 0.001)
    machine.run(1, 0)
    usual = machine.beside(1, 20)[-1][0]
    machine.row = 0.1
    machine.beside(1, 1)
    machine.row = 0.001
    assert machine.pace.rows(1) == pytest.approx(usual, abs=1)
    machine.row = 0.004
    assert machine.beside(1, 20)[-1][1] <= 0.1 * LONGER * 1.1


def test_before_anything_was_drawn_alone_the_prompts_pass_tells() -> None:
    """Two prompts at once: the first to draw has never had a pass without prompt rows."""
    machine = Machine(0.1, 0.0, 0.002)
    assert machine.pace.rows(1) == LEAST
    machine.run(0, 300)
    machine.run(1, LEAST)
    assert machine.pace.seconds(1) == pytest.approx(0.1)
    assert machine.beside(1, 10)[-1][1] == pytest.approx(0.1 * LONGER, rel=0.05)


def test_the_nearest_number_of_rows_stands_for_one_that_was_not_seen() -> None:
    machine = Machine(0.1, 0.0, 0.0)
    machine.run(1, 0)
    machine.draw = 0.3
    machine.run(8, 0)
    assert [machine.pace.seconds(n) for n in (1, 3, 6, 40)] == pytest.approx([0.1, 0.1, 0.3, 0.3])


# in the engine ---------------------------------------


class Varying(Pace):
    """Any number of rows, another one each time."""

    def __init__(self, numbers: Iterator[int]) -> None:
        super().__init__()
        self.numbers = numbers

    def rows(self, drawing: int) -> int:
        return next(self.numbers)


def paced(pace: Pace, running: int = 64) -> Engine:
    weights = tiny.weights(tiny.config(), "q4")
    return tiny.engine(weights, ctx=1088, pages=40, running=running, speculate=True, pace=pace)


@pytest.mark.parametrize("numbers", [(8,), (9, 64, 11), (400, 8, 13, 37, 70)])
def test_invariance_of_the_pace(numbers: tuple[int, ...]) -> None:
    want = [run(paced(tiny.Unhurried(), 1), [a])[0].digest() for a in ASKS]
    assert [t.digest() for t in run(paced(Varying(cycle(numbers))))] == want
    assert [t.digest() for t in run(paced(Pace()))] == want


def test_F8_a_prompt_has_so_many_rows_beside_who_draws_and_all_when_alone() -> None:
    made = paced(Varying(cycle([10])))
    chatter = made.add(Request(tiny.ids(5), SamplingParams(max_new_tokens=12, ignore_eos=True)))
    made.step()
    long = made.add(Request(tiny.ids(900), SamplingParams(max_new_tokens=2)))
    while chatter.finish_reason is None:
        before, computed = len(chatter.generated), long.cached
        made.step()
        assert len(chatter.generated) >= before + 1 and long.cached == computed + 10
        assert (made.scheduler.drawing_rows, made.scheduler.prompt_rows) == (1, 10)
    computed = long.cached
    made.step()
    assert long.cached == computed + MAX_ROWS
    tiny.finish(made, [long])
