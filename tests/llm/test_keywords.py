"""The table of knobs: types, bounds and docs agree with it everywhere; `python -m tests.llm.test_keywords` prints the
tables of docs/python.md and docs/cli.md anew.
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput
from phi4mini.llm import keywords
from phi4mini.llm.keywords import BY_NAME, KNOBS, Knob, Rope, SamplingKeywords
from phi4mini.llm.model import Model
from phi4mini.llm.run import check_keywords, sampling_params
from phi4mini.model.longrope import RopeMode
from phi4mini.transformers_api.arguments import _DRAWING, _PASSED_ON

DOCS = Path(__file__).parents[2] / "docs"
BOUNDED = [knob for knob in KNOBS if knob.low is not None]
NOT_PARAMS = {"stop", "mask_untrained", "rope"}
FIELDS = {field.name for field in fields(SamplingParams)}
CALLS = ("chat", "stream", "generate", "stream_generate", "stream_ids")


def spelled(knob: Knob) -> str:
    return knob.name


def as_value(knob: Knob, number: float) -> Any:
    """A value of the knob's type with this number in it."""
    if knob.type == "Mapping[int, float]":
        return {1: number}
    return [number] if knob.type == "Sequence[int]" else number


# ---- types


def test_the_typed_dict_is_the_table():
    hints = get_type_hints(SamplingKeywords)
    assert hints == {knob.name: eval(knob.type, vars(keywords)) for knob in KNOBS}
    assert SamplingKeywords.__required_keys__ == frozenset() and set(get_args(Rope)) == set(get_args(RopeMode))


@pytest.mark.parametrize("call", CALLS)
def test_every_call_takes_it(call):
    import inspect

    parameter = inspect.signature(getattr(Model, call)).parameters["sampling"]
    assert parameter.annotation == "Unpack[SamplingKeywords]" and parameter.kind is parameter.VAR_KEYWORD


def test_a_type_checker_checks_callers(tmp_path):
    """A wrong name and a wrong type are errors, what the table allows is none."""
    pytest.importorskip("mypy")
    lines = ["top_p=0.9, seed=None, stop=['a']", "temprature=1.0", "temperature='hot'", "rope='middle'"]
    calls = [f"m.chat('a', {line})" for line in lines]
    path = tmp_path / "caller.py"
    path.write_text("\n".join(["import phi4mini", "m = phi4mini.load('demo')", *calls]))
    check = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", str(tmp_path), str(path)]
    done = subprocess.run(check, capture_output=True, text=True, cwd=DOCS.parent)
    told = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.partition(": error")[0].rpartition(":")[2] for line in told] == ["4", "5", "6"], done.stdout


def test_the_table_is_read_without_numpy():
    code = "import sys, phi4mini.llm.keywords; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# ---- defaults and bounds


def test_its_names_are_the_fields_of_sampling_params():
    assert len(BY_NAME) == len(KNOBS) and set(BY_NAME) - NOT_PARAMS == FIELDS and set(BY_NAME) > NOT_PARAMS
    assert set(_PASSED_ON) | set(_DRAWING) <= set(BY_NAME)


def test_its_defaults_are_those_of_sampling_params():
    empty = SamplingParams()
    assert {name: BY_NAME[name].default for name in FIELDS} == {name: getattr(empty, name) for name in FIELDS}
    check_keywords({knob.name: knob.default for knob in KNOBS})


@pytest.mark.parametrize("knob", BOUNDED, ids=spelled)
def test_its_bounds_are_what_is_accepted(knob):
    for bound in (knob.low, knob.high):
        others = {"max_new_tokens": knob.high} if knob.name == "min_new_tokens" else {}
        check_keywords({knob.name: as_value(knob, bound)} | others)
    step = 1 if "int" in knob.type and knob.name != "logit_bias" else 1e-3
    for beyond in (knob.low - step, knob.high + step, math.nan):
        with pytest.raises(BadInput, match=knob.name):
            check_keywords({knob.name: as_value(knob, beyond)})


def test_minus_one_is_off_or_random():
    assert sampling_params({"top_k": -1}).top_k == 0
    assert sampling_params({"seed": -1}).seed not in (None, -1)
    assert sampling_params({"seed": 0}).seed == 0


# ---- docs


def keyword_table() -> str:
    """Of docs/python.md."""
    lines = ["| keyword | range | left out | |", "|---|---|---|---|"]
    for knob in KNOBS:
        explained = " ".join(filter(None, (knob.help, knob.note)))
        lines.append(f"| `{knob.name}` | {knob.range} | {knob.unset} | {explained} |")
    return "\n".join(lines) + "\n"


def name_table() -> str:
    """Of docs/python.md: the same knob elsewhere."""
    lines = ["| keyword | command line | OpenAI | Anthropic | Ollama |", "|---|---|---|---|---|"]
    for knob in KNOBS:
        flags = ", ".join(f"`{flag}`" for flag in knob.flags)
        fields = " | ".join(map(quoted, (knob.openai, knob.anthropic, knob.ollama)))
        lines.append(f"| `{knob.name}` | {flags} | {fields} |")
    return "\n".join(lines) + "\n"


def option_table() -> str:
    """Of docs/cli.md."""
    lines = ["| option | range | left out | |", "|---|---|---|---|"]
    for knob in KNOBS:
        if knob.flags:
            flags = ", ".join(f"`{flag}`" for flag in knob.flags)
            lines.append(f"| {flags} | {knob.range} | {knob.unset} | {knob.help} |")
    return "\n".join(lines) + "\n"


def quoted(name: str) -> str:
    return f"`{name}`" if name else ""


def test_docs_print_the_table():
    python = (DOCS / "python.md").read_text("utf-8")
    assert keyword_table() in python and name_table() in python
    assert option_table() in (DOCS / "cli.md").read_text("utf-8")


def test_the_ranges_of_the_server_page_are_the_tables():
    """A row of docs/server.md that names a knob gives the knob's range."""
    page = (DOCS / "server.md").read_text("utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    by_field = {knob.openai: knob for knob in KNOBS if knob.range}
    told = {}
    for names, *rest in rows:
        for name in names.removeprefix("| ").split(", "):
            if name.strip("`") in by_field and rest:
                told[name.strip("`")] = rest[0].removesuffix(" |")
    assert {"temperature", "top_p", "min_p", "logit_bias", "presence_penalty", "prompt_logprobs"} <= set(told)
    assert {name: by_field[name].range in range for name, range in told.items()} == dict.fromkeys(told, True)


if __name__ == "__main__":
    print(keyword_table(), name_table(), option_table(), sep="\n", end="")
