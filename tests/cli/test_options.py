"""What was asked for and cannot be given is a line on stderr or an error; what was not asked for is not spoken of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from phi4mini.cli import cli, main
from phi4mini.cli.options import sampling, sampling_options
from phi4mini.llm.keywords import KNOBS, Knob
from phi4mini.weights.load import convert_to
from tests.weights.twins import small_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in os.environ if name.startswith("PHI4MINI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield tmp_path / "home"


@pytest.fixture
def models(tmp_path: Path) -> None:
    """A folder `final`, and the same packed as q8: `packed.phi4`."""
    small_folder(tmp_path / "final", hidden_size=128, intermediate_size=192)
    convert_to("final", "q8", tmp_path / "packed.phi4")


RUN = ["run", "--raw", "-n", "1", "-m"]
PACKED = "packed.phi4 is packed as q8, and {} was asked for; leave -q (quant, PHI4MINI_QUANT) out"
REFUSED: list[tuple[list[str], dict[str, str], str]] = [  # arguments, environment, what the one line says
    ([*RUN, "packed.phi4", "-q", "f32", "a"], {}, PACKED.format("f32")),
    ([*RUN, "packed.phi4", "-q", "q4", "a"], {}, PACKED.format("q4")),
    ([*RUN, "packed.phi4", "a"], {"PHI4MINI_QUANT": "bf16"}, PACKED.format("bf16")),
    (["show", "packed.phi4", "-q", "f32"], {}, PACKED.format("f32")),
    (["pull", "packed.phi4", "-q", "f32"], {}, PACKED.format("f32")),
    (["estimate", "-m", "packed.phi4", "-q", "f32"], {}, PACKED.format("f32")),
    (["convert", "-m", "packed.phi4", "-q", "f32"], {}, "packed.phi4 is a store already"),
    ([*RUN, "packed.phi4", "-c", "4096", "a"], {}, "ctx must be from 2 to 2048, the model's longest context, got 4096"),
    ([*RUN, "packed.phi4", "-t", "0", "a"], {}, "threads must be at least 1, not 0"),
    ([*RUN, "packed.phi4", "--kv", "f16", "a"], {}, "'f16' is not one of 'int8', 'f32'"),
    (["estimate", "-m", "packed.phi4", "-c", "4096"], {}, "a context of 4096 tokens is more than the model's longest"),
    (["pull", "me/model", "--refresh", "--offline"], {}, "--refresh asks the hub, and the network is forbidden"),
    (["pull", "me/model", "--refresh"], {"PHI4MINI_OFFLINE": "1"}, "--refresh asks the hub, and the network is"),
    (["pull", "me/model", "--offline"], {}, "offline: me/model is not in the hub's cache"),
    (["pull", "me/model"], {"PHI4MINI_OFFLINE": "1"}, "offline: me/model is not in the hub's cache"),
    (["pull", "demo", "--offline"], {}, "offline: the demo model is not at"),
    (["bench", "-m", "packed.phi4", "--synthetic"], {}, "--synthetic is a model of its own; leave -m out"),
    (["bench", "-m", "packed.phi4", "--rope", "long"], {}, "--rope has no place in it"),
    (["serve", "-m", "packed.phi4", "--rope", "long"], {}, "serve takes --rope from each request"),
    ([*RUN, "packed.phi4", "-sys", "b", "a"], {}, "--raw continues a text: --system and --tools have no place in it"),
]


def called(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and lines of stderr."""
    code = main(arguments)
    return code, capfd.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "environment", "told"), REFUSED, ids=lambda x: "_".join(x) if isinstance(x, list) else ""
)
def test_FI8_and_FI7_what_cannot_be_given_is_refused(
    models: None, capfd: pytest.CaptureFixture[str], monkeypatch, arguments, environment, told
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, lines = called(arguments, capfd)
    assert code == 2 and len(lines) == 1 and lines[0].startswith("phi4mini: ") and told in lines[0], lines


SAID: list[tuple[list[str], str]] = [
    ([*RUN, "packed.phi4", "-t", "9999", "a"], "threads instead of 9999: "),
    ([*RUN, "packed.phi4", "--top-k", "5", "a"], "--top-k has no effect at temperature 0, which is greedy"),
    ([*RUN, "packed.phi4", "--top-p", "0.5", "--temp", "0", "a"], "--top-p has no effect at temperature 0"),
    ([*RUN, "packed.phi4", "--min-p", "0.5", "a"], "--min-p has no effect at temperature 0"),
    (["pull", "packed.phi4", "--refresh"], "--refresh has no effect: packed.phi4 is not on the hub (store)"),
    (["pull", "final", "--refresh"], "--refresh has no effect: final is not on the hub (folder)"),
]


@pytest.mark.parametrize(("arguments", "told"), SAID, ids=lambda x: "_".join(x) if isinstance(x, list) else "")
def test_FI8_what_has_no_effect_is_said(models: None, capfd: pytest.CaptureFixture[str], arguments, told) -> None:
    code, lines = called(arguments, capfd)
    assert code == 0 and sum(told in line for line in lines) == 1, lines


GIVEN: list[list[str]] = [
    [*RUN, "packed.phi4", "a"],
    [*RUN, "packed.phi4", "-q", "q8", "a"],
    [*RUN, "packed.phi4", "--top-k", "5", "--temp", "0.5", "-c", "2048", "-t", "1", "--kv", "f32", "a"],
    ["show", "packed.phi4"],
    ["estimate", "-m", "packed.phi4"],
]


@pytest.mark.parametrize("arguments", GIVEN, ids="_".join)
def test_FI8_and_FI7_what_is_given_is_not_spoken_of(models: None, capfd, arguments) -> None:
    called([*RUN, "packed.phi4", "a"], capfd)  # what is compiled or converted once
    code, lines = called(arguments, capfd)
    assert code == 0 and not [line for line in lines if "effect" in line or "instead" in line or "packed as" in line]
    assert not [line for line in lines if "cut after" not in line and "compiling" not in line], lines


def test_FI8_an_estimate_names_the_recipe_that_the_file_has(models: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "-m", "packed.phi4"]) == main(["estimate", "-m", "final"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert [line.rsplit(", ", 1)[1] for line in out if line.startswith("weights")] == ["q8", "q4"]


# ---- the options of sampling are the table's


def test_sampling_options_are_the_tables() -> None:
    options = {option for knob in KNOBS for option in knob.flags}
    for name in ("run", "chat"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and options <= {flag for param in command.params for flag in param.opts}
        told = command.get_help(click.Context(command, terminal_width=500))
        assert all(knob.help in told and f"{knob.unset}; {knob.range}" in told for knob in KNOBS if numeric(knob))


def numeric(knob: Knob) -> bool:
    return bool(knob.flags and knob.is_number and knob.range)


@pytest.mark.parametrize("knob", [knob for knob in KNOBS if knob.flags and knob.is_number], ids=lambda knob: knob.name)
def test_a_value_beyond_its_bounds_names_the_option_and_the_bounds(capfd: pytest.CaptureFixture[str], knob) -> None:
    for beyond in (knob.low - 1, knob.high + 1):
        code, lines = called(["run", f"{knob.flags[-1]}={beyond}", "a"], capfd)
        kind = "an integer" if knob.is_whole else "a number"
        told = f"{knob.name} must be {kind} from {knob.low} to {knob.high}, not"
        assert code == 2 and len(lines) == 1 and told in lines[0] and knob.flags[-1] in lines[0], lines


def test_values_become_keywords() -> None:
    made: list[dict[str, Any]] = []

    @click.command()
    @sampling_options
    def command(**values: Any) -> None:
        made.append(sampling({"rope": "auto", **values}))

    for arguments in ([], ["--temp=0", "--seed=0", "--top-k=0"], ["--stop", "a", "--stop=b", "--logit-bias", "5-1"]):
        command.main(arguments, standalone_mode=False)
    command.main(["-n", "5", "--repeat-penalty=1.1", "--ignore-eos"], standalone_mode=False)
    assert made == [
        {"rope": "auto"},
        {"rope": "auto", "temperature": 0.0, "seed": 0, "top_k": 0},
        {"rope": "auto", "stop": ["a", "b"], "logit_bias": {5: -1.0}},
        {"rope": "auto", "max_new_tokens": 5, "repetition_penalty": 1.1, "ignore_eos": True},
    ]
