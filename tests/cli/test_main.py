"""The frame of the command line: help, exit codes, environment twins, and how fast it is there."""

from __future__ import annotations

import subprocess
import sys
import time
import types

import click
import pytest

from phi4mini import cli
from phi4mini.cli.common import ProgressLine, size
from phi4mini.cli.options import DEFAULT_MODEL
from phi4mini.weights.resolve import DEFAULT
from tests.cli.conftest import COMMAND, ROOT, environment, refused


def test_help_lists_every_command_and_is_fast(phi4mini):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = phi4mini("--help")
        times.append(time.perf_counter() - start)
    assert done.returncode == 0
    for name in cli.COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert min(times) < 0.4  # 0.05 s on an idle machine; the promise is 0.15


def test_help_imports_nothing_heavy():
    code = "import sys; from phi4mini.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "click" in loaded
    assert loaded & {"numpy", "llvmlite", "tokenizers", "huggingface_hub", "rich", "prompt_toolkit"} == set()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help_both_ways(name, capsys):
    assert cli.main([name, "-h"]) == 0
    short = capsys.readouterr()
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr() == short
    assert short.out.startswith(f"Usage: phi4mini {name} ") and short.err == ""


def test_no_command_shows_the_help(capsys):
    assert cli.main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_default_model_has_one_name():
    assert DEFAULT_MODEL == DEFAULT


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
        (["run", "--tmp", "1"], "--tmp"),
        (["run", "--temp", "hot"], "hot"),
        (["run", "--kv", "f16"], "f16"),
        (["rm"], "NAME"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(phi4mini, arguments, part):
    refused(phi4mini(*arguments), part, "-h")


def test_a_fault_of_ours_is_exit_code_1_with_its_traceback(monkeypatch, capsys):
    @click.command()
    def broken():
        raise ZeroDivisionError

    module = types.ModuleType("phi4mini.cli.broken")
    module.broken = broken
    monkeypatch.setitem(sys.modules, "phi4mini.cli.broken", module)
    monkeypatch.setitem(cli.COMMANDS, "broken", ("broken", "Fails."))
    assert cli.main(["broken"]) == 1
    told = capsys.readouterr()
    assert "ZeroDivisionError" in told.err and "please report" in told.err and told.out == ""


def test_a_reader_that_leaves_is_no_error():
    command = [*COMMAND, "tokenize", "--ids", "-f", "-"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=ROOT
    )
    process.stdout.close()
    process.stdin.write(b"word " * 200_000)
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(120) == 0


def test_an_environment_twin_is_an_option_and_the_option_wins(phi4mini):
    twin = {"PHI4MINI_JSON": "1"}
    assert phi4mini("tokenize", "Hi", **twin).stdout == '{"ids": [12194], "tokens": ["Hi"], "count": 1}\n'
    refused(phi4mini("estimate", PHI4MINI_QUANT="q3"), "q3")
    assert phi4mini("estimate", "-q", "q8", PHI4MINI_QUANT="q3").returncode == 0


def test_version(phi4mini):
    import phi4mini as package

    assert phi4mini("--version").stdout == f"phi4mini {package.__version__}\n"


def test_progress_in_a_pipe_is_a_line_a_tenth(capsys):
    with ProgressLine() as progress:
        progress("fetching a thing", 0, 0)
        for done in range(0, 1001, 5):
            progress("copying", done, 1000)
    told = capsys.readouterr()
    assert told.out == "" and told.err.splitlines()[:2] == ["fetching a thing", "copying:   0 % of 1 kB"]
    assert len(told.err.splitlines()) == 12 and told.err.endswith("copying: 100 % of 1 kB\n")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_501, "1 MB"), (2_320_000_000, "2.32 GB")],
)
def test_sizes_have_three_digits(count, text):
    assert size(count) == text


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("arguments", "code"), [(["ls"], 0), (["tokenize", "-m", "demo", "some text"], 0), (["x"], 2)])
def test_a_closed_stream_is_nobody_listening(closed, arguments, code, demo_store):
    """Nothing is written where it does not belong, and nobody is told of a fault."""
    demo_store()
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *arguments]
    done = subprocess.run(shell, capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr and "phi4mini:" not in done.stdout
    assert done.stdout == "" or ">&-" not in closed.replace("2>&-", "")
    assert done.stderr == "" or "2>&-" not in closed
