"""The page's sampling fields: names and ranges lie within the table of knobs; the page may show a smaller part."""

from __future__ import annotations

import re
from pathlib import Path

import phi4mini.server
from phi4mini.llm.keywords import KNOBS

SCRIPT = Path(phi4mini.server.__file__).parent / "page" / "static" / "parameters.js"
BY_FIELD = {knob.openai: knob for knob in KNOBS if knob.openai}


def fields() -> list[tuple[str, float, float, str]]:
    """(name, min, max, step) of each entry of FIELDS."""
    text = SCRIPT.read_text("utf-8").partition("export const FIELDS = [")[2].partition("];")[0]
    found = re.findall(r'\{ name: "(\w+)",.*? min: ([^,]+), max: ([^,]+), step: ([\d.]+),', text)
    assert len(found) == text.count("{ name:")
    return [(name, number(low), number(high), step) for name, low, high, step in found]


def number(text: str) -> float:
    """A literal of the script: 2, 0.05, or 2 ** 53 - 1."""
    power = re.fullmatch(r"2 \*\* (\d+) - 1", text)
    return 2 ** int(power[1]) - 1 if power else float(text)


def test_every_field_is_a_knob_within_its_bounds():
    assert len(fields()) >= 6
    for name, low, high, step in fields():
        knob = BY_FIELD[name]
        most = knob.high if knob.wire_high is None else knob.wire_high
        assert knob.low <= low < high <= most, name
        assert (step == "1") == knob.is_whole, name
