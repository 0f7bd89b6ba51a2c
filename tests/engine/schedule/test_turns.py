"""Who runs when more ask than fit: owners take turns, nobody waits for ever, and no text depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mini.engine.engine import Engine
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.schedule.turns import Turns, Waiting
from phi4mini.errors import BadInput
from phi4mini.model.arrays import Weights
from tests import tiny
from tests.engine import reuse


@cache
def weights() -> Weights:
    return tiny.weights(tiny.config(), "q4")


def engine(**changes: Any) -> Engine:
    return tiny.engine(weights(), ctx=512, **changes)


def request(owner: Hashable, length: int = 20, new: int = 20, seed: int = 0) -> Request:
    params = SamplingParams(max_new_tokens=new, ignore_eos=True, seed=seed)
    return Request(tiny.ids(length, seed), params, owner=owner)


@cache
def alone(length: int, new: int, seed: int) -> list[int]:
    return tiny.finish(made := engine(), [made.add(request(None, length, new, seed))])[0]


def steps_until_first_token(made: Engine, asked: Request, most: int = 1000) -> int:
    for step in range(1, most + 1):
        made.step()
        if asked.generated:
            return step
    raise AssertionError(f"no token after {most} passes")


def owners(made: Engine) -> Counter[Hashable]:
    return Counter(r.owner for r in made.scheduler.running)


# queues ---------------------------------------


def test_turns_go_to_who_has_fewest_then_to_who_waits_longest() -> None:
    waiting, running, order = Waiting(), Counter({"a": 1}), []
    for owner, seed in (("a", 0), ("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)):
        waiting.add(request(owner, seed=seed))
    assert len(waiting) == 6 and set(waiting.owners) == {"a", "b", "c"}
    while asked := waiting.next(running):
        waiting.take(asked)
        running[asked.owner] += 1
        order.append((asked.owner, asked.seed))
    assert order == [("b", 2), ("c", 4), ("a", 0), ("b", 5), ("a", 1), ("a", 3)]
    assert len(waiting) == 0 and not list(waiting.owners)


def test_turns_of_too_many_owners_are_forgotten_oldest_first() -> None:
    turns = Turns()
    for owner in range(1500):
        turns.note(owner)
    assert turns.last(1499) > turns.last(1000) > 0 == turns.last(3) == turns.last("nobody")
    assert len(turns._last) == 1024


# places ---------------------------------------


@pytest.mark.parametrize("places", [1, 2, 4, 64])
def test_F9_one_owner_who_floods_keeps_nobody_waiting(places: int) -> None:
    """40 requests of one; another's single one has its first token after two passes, where there is one place after
    the request that holds it.
    """
    made = engine(running=places, pages=200)
    flood = [made.add(request("flood", new=30, seed=i)) for i in range(40)]
    for _ in range(10):
        made.step()
    single = made.add(request("single", length=60, seed=99))
    bound = 2 if places > 1 else 30
    assert steps_until_first_token(made, single) <= bound
    assert tiny.finish(made, [*flood, single]) == [*(alone(20, 30, i) for i in range(40)), alone(60, 20, 99)]
    assert made.scheduler.preemptions <= 1


@pytest.mark.parametrize("running", [4, 64])
def test_F9_beside_long_prompts_of_a_flood(running: int) -> None:
    """The flood's prompts take many passes each; another owner's prompt goes between them, not behind them."""
    made = engine(running=running, pages=400, rows=64)
    for i in range(40):
        made.add(request("flood", length=400, new=4, seed=i))
    for _ in range(3):
        made.step()
    assert steps_until_first_token(made, made.add(request("single", length=60, seed=99))) <= 3


def test_F9_when_pages_are_what_is_short() -> None:
    made = engine(running=8, pages=8)
    flood = [made.add(request("flood", length=100, new=30, seed=i)) for i in range(12)]
    for _ in range(6):
        made.step()
    assert made.pages.free == 0
    single = made.add(request("single", length=120, seed=99))
    assert steps_until_first_token(made, single) <= 3
    got = tiny.finish(made, [*flood, single])
    assert got == [*(alone(100, 30, i) for i in range(12)), alone(120, 20, 99)] and made.pages.free == 8


def test_an_owner_gives_back_only_what_is_more_than_its_share() -> None:
    """Nine places: three owners end with three each, and from then on none is preempted."""
    made = engine(running=9, pages=200)
    for owner in ("a", "b", "c"):
        for i in range(12):
            made.add(request(owner, new=60, seed=i))
        made.step()
    assert owners(made) == {"a": 3, "b": 3, "c": 3}
    before = made.load().preemptions
    assert 0 < before <= 9
    for _ in range(40):
        made.step()
    assert made.load().preemptions == before


def test_shares_that_differ_by_one_are_left_alone() -> None:
    made = engine(running=3, pages=200)
    for i in range(3):
        made.add(request("a" if i < 2 else "b", new=40, seed=i))
    made.step()
    made.add(request("b", seed=5))
    for _ in range(10):
        made.step()
    assert owners(made) == {"a": 2, "b": 1} and made.load().preemptions == 0


def test_the_last_to_join_is_preempted_and_finds_its_pages_again() -> None:
    made = reuse.engine(running=2, pages=40)
    first, last = (made.add(request("flood", length=200, new=30, seed=i)) for i in range(2))
    for _ in range(5):
        made.step()
    other = made.add(request("other", seed=9, new=3))
    made.step()
    assert made.scheduler.running == [first, other] and last in made.scheduler.waiting and not last.seat.table
    tiny.finish(made, [other])
    assert made.load().prompt_tokens < 420 + 64 + 3, "only what filled no page was computed again"
    assert [r.generated for r in (first, last)] == [alone(200, 30, 0), alone(200, 30, 1)]


@pytest.mark.parametrize("places", [0, 65, -3])
def test_places_are_as_many_as_a_pass_has_outputs(places: int) -> None:
    with pytest.raises(BadInput, match=f"places must be from 1 to 64, got {places}"):
        Engine(weights(), ctx=64, places=places)
    made = Engine(weights(), ctx=64, places=3)
    assert made.scheduler.most_running == 3
    made.close()


PROMPTS = ((20, 0), (70, 1), (130, 2), (200, 3))
EVENTS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "step", "abort"]), st.integers(0, 3), st.sampled_from("abc")),
    min_size=5,
    max_size=40,
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    events=EVENTS, pages=st.sampled_from([5, 9, 40]), places=st.sampled_from([1, 2, 5]), rows=st.sampled_from([8, 64])
)
def test_any_owners_in_any_order_end_with_their_own_text(
    events: list[tuple[str, int, str]], pages: int, places: int, rows: int
) -> None:
    made, asked = engine(running=places, pages=pages, speculate=True, rows=rows), []
    for kind, number, owner in events:
        if kind == "add":
            length, seed = PROMPTS[number]
            asked.append(made.add(request(owner, length, 12, seed)))
        elif kind == "abort" and number < len(asked):
            made.abort(asked[number])
        else:
            made.step()
        assert len(made.scheduler.running) <= places
    tiny.finish(made, [])
    assert made.pages.free == pages
    for r in asked:
        if r.finish_reason != "abort":
            assert r.generated == alone(r.num_prompt, 12, r.seed)


# rows ---------------------------------------


def test_requests_that_one_pass_cannot_hold_take_turns() -> None:
    """A long context leaves 8 rows to a pass and 30 requests draw: none falls behind, and a prompt moves."""
    made = engine(running=40, pages=200)
    drawing = [made.add(request(i % 3, new=60, seed=i)) for i in range(30)]
    while min(len(r.generated) for r in drawing) < 1:
        made.step()
    made.scheduler.rows_that_fit = lambda longest: 8
    long, before = made.add(request("long", length=200, new=5, seed=50)), [len(r.generated) for r in drawing]
    for _ in range(24):
        made.step()
    got = [len(r.generated) - n for r, n in zip(drawing, before, strict=True)]
    assert min(got) >= 2 and max(got) - min(got) <= 1
    assert 24 * 4 <= long.cached <= 24 * 4 + 8, "half of each pass was kept for the prompt"
    want = [*(alone(20, 60, i) for i in range(30)), alone(200, 5, 50)]
    assert tiny.finish(made, [*drawing, long]) == want
