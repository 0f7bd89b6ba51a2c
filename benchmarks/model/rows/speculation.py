"""Row 4: speculation from the request's own text, on the demo model with real text: how much it gains where the answer
copies, what it costs elsewhere, and that no token differs.

With and without alternate on the same engine, a short answer more often than a long one: a few tokens are soon lost in
noise. Each prompt is answered greedily and, the prose, also sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.model.bench import Bench
from benchmarks.model.texts import Task, tasks
from benchmarks.report import Line
from benchmarks.rounds import median, summary
from benchmarks.workers.driver import Worker

_TOKENS, _ROUNDS, _MOST = 192, 3, 15
_SECONDS = 4.0  # of decoding without speculation, if _MOST rounds have so much


@dataclass
class Outcome:
    """One prompt with one temperature: seconds a token without over with, round by round."""

    name: str
    copies: bool
    gains: list[float]
    identical: bool
    accepted: float


def run(bench: Bench, rows: set[int]) -> list[Line]:
    """The worst and the median of each kind of work."""
    try:
        wanted = tasks()
    except FileNotFoundError as error:
        return [Line(4, "speculation", "not measured", f"the shared data is absent: {error.filename}")]
    ours, made = bench.ours("demo"), []
    for task in wanted:
        ids = _ids(bench, task)
        for temperature in (0.0,) if task.copies else (0.0, 0.8):
            made.append(_measure(bench, ours, task, ids, temperature))
    bench.data["speculation"] = {
        o.name: {"ratio": summary(o.gains), "identical": o.identical, "accepted": o.accepted} for o in made
    }
    return _lines(made)


def _measure(bench: Bench, ours: Worker, task: Task, ids: list[int], temperature: float) -> Outcome:
    gains, same, answers, spent = list[float](), True, dict[str, Any](), 0.0
    for number in range(1 + _MOST):
        if len(gains) >= _ROUNDS and (bench.quick or spent >= _SECONDS):
            break
        for speculate in (False, True):
            answers[str(speculate)] = ours.ask(
                "text", ids=ids, n=_TOKENS, temperature=temperature, seed=7, speculate=speculate
            )
        without, with_ = answers["False"], answers["True"]
        same = same and without["ids"] == with_["ids"]
        if number:  # the first round records programs
            gains.append(without["seconds"] / with_["seconds"])
            spent += without["seconds"]
    name = task.name + (" (sampled)" if temperature else "")
    bench.say(f"{name}: {median(gains):.2f} x, {with_['accepted']} of {with_['guessed']} guesses right, same: {same}")
    return Outcome(name, task.copies, gains, same, with_["accepted"] / max(1, with_["guessed"]))


def _lines(made: list[Outcome]) -> list[Line]:
    copying = {o.name: median(o.gains) for o in made if o.copies}
    others = {o.name: median(o.gains) for o in made if not o.copies}
    same = sum(o.identical for o in made)
    lines = [
        Line(4, f"{name}: >= 2 x without", f"{gain:.2f} x", "without", gain, gain >= 2)
        for name, gain in copying.items()
    ]
    if others:
        worst = min(others, key=lambda name: others[name])
        target = "elsewhere: never below 0.97 x without"
        figure = f"{len(others)} answers, the worst: {worst}"
        lines.append(Line(4, target, figure, "without", others[worst], others[worst] >= 0.97))
    figure = f"{same} of {len(made)} answers"
    return [*lines, Line(4, "output identical to without", figure, "without", same / len(made), same == len(made))]


def _ids(bench: Bench, task: Task) -> list[int]:
    from phi4mini import chat

    opened = bench.store("demo")
    messages = [{"role": "user", "content": task.prompt}]
    rendered = chat.render(messages, tokenizer=opened.tokenizer, format=opened.chat_format)
    return [*rendered.ids, *opened.tokenizer.encode(task.opening)]
