"""An answer's parts: the same in a stream as in a whole answer, however the events are cut."""

from __future__ import annotations

from phi4mini.chat import CallArguments, CallBroken, CallEnd, CallStart, Event, TextDelta, ToolCall
from phi4mini.server.dialects.answer_parts import Closed, Grown, Opened, Parts, Step, closed_parts, joined


def call(index: int, *, broken: bool = False) -> list[Event]:
    start = CallStart(index, "f", f"c{index}")
    if broken:
        return [start, CallArguments(index, "{"), CallBroken(index)]
    arguments = [CallArguments(index, "{"), CallArguments(index, "}")]
    return [start, *arguments, CallEnd(index, ToolCall(f"c{index}", "f", {}))]


def steps_of(events: list[Event]) -> list[Step]:
    parts = Parts()
    return [step for event in events for step in parts.push(event)] + parts.finish()


def kept(events: list[Event]) -> list[str]:
    return [part.call.id if part.call else part.text for part in closed_parts(events)]


def test_every_part_is_opened_grows_and_is_closed_in_order():
    events = [TextDelta("a "), TextDelta("b"), *call(0), TextDelta("\n"), *call(1)]
    seen: dict[int, list[type]] = {}
    for step in steps_of(events):
        seen.setdefault(step.index, []).append(type(step))
    assert list(seen) == [0, 1, 2]
    assert all(kinds == [Opened, *[Grown] * (len(kinds) - 2), Closed] for kinds in seen.values())
    assert kept(events) == ["a b", "c0", "c1"]


def test_white_space_is_a_part_only_where_it_is_all_there_is():
    assert kept([TextDelta(" "), TextDelta("\n")]) == [" \n"]
    assert kept([TextDelta(" "), *call(0), TextDelta("\n"), *call(1), TextDelta(" ")]) == ["c0", "c1"]
    assert kept([TextDelta(" "), TextDelta("a"), TextDelta(" ")]) == [" a "]
    assert kept([]) == [] and kept([TextDelta("")]) == []


def test_a_call_that_breaks_off_is_text():
    events = [*call(0, broken=True), TextDelta('{"name": "f", "arguments": {')]
    assert kept(events) == ['{"name": "f", "arguments": {']
    closed = [step for step in steps_of(events) if isinstance(step, Closed)]
    assert [(step.index, step.broken) for step in closed] == [(0, True), (1, False)]


def test_arguments_that_come_together_are_one_piece():
    events = [*call(0), *call(1)]
    assert [event.delta for event in joined(events) if isinstance(event, CallArguments)] == ["{}", "{}"]
    assert closed_parts(joined(events)) == closed_parts(events)
