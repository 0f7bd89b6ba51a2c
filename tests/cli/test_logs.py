"""What rooms say through logging is shown by commands, a line each, and nothing is set up for who imports phi4mini."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from phi4mini.cli import logs, main
from phi4mini.cli.common import ProgressLine, say


@pytest.fixture
def lines() -> Iterator[logs.Lines]:
    with logs.to_stderr() as found:
        yield found


OURS = logging.getLogger("phi4mini.weights.load")
RECORDS = [
    (OURS, logging.DEBUG, False),
    (OURS, logging.INFO, True),
    (OURS, logging.WARNING, True),
    (OURS, logging.CRITICAL, True),
    (logging.getLogger("phi4mini"), logging.INFO, True),
    (logging.getLogger("phi4mini.kernels.lang.build"), logging.WARNING, True),
    (logging.getLogger("httpx"), logging.INFO, False),
    (logging.getLogger("asyncio"), logging.ERROR, True),
    (logging.getLogger("uvicorn.error"), logging.WARNING, True),
    (logging.getLogger(), logging.WARNING, True),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("logger", "level", "shown"), RECORDS)
def test_FI9_a_record_is_shown_once(lines, capsys, logger, level, shown, as_json) -> None:
    if as_json:
        logs.use_json()
    logger.log(level, "%s: %d bytes", "m.phi4", 7)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == shown
    if shown and as_json:
        record = json.loads(told[0])
        assert record.pop("time") > 1e9
        assert record == {
            "event": "log", "level": logging.getLevelName(level).lower(), "logger": logger.name,
            "message": "m.phi4: 7 bytes",
        }  # fmt: skip
    elif shown:
        assert told == ["m.phi4: 7 bytes"]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "a\x1b[2Jb", "a\0b", "a\x85b", "a\u2028b", "ä 中", "%s %d", "", "\n" * 9]
)
def test_FI9_a_record_is_one_line(lines, capsys, text, as_json) -> None:
    if as_json:
        logs.use_json()
    OURS.warning("%s", text)
    told = capsys.readouterr().err
    assert told.endswith("\n") and len(told[:-1].splitlines()) <= 1 and "\x1b" not in told
    if as_json:
        assert json.loads(told)["message"] == text


@pytest.mark.parametrize("as_json", [False, True])
def test_FI9_a_traceback_is_kept(lines, capsys, as_json) -> None:
    if as_json:
        logs.use_json()
    try:
        raise ZeroDivisionError("here")
    except ZeroDivisionError:
        OURS.exception("it broke")
    told = capsys.readouterr().err
    if as_json:
        assert "test_logs.py" in json.loads(told)["traceback"] and told.count("\n") == 1
    else:
        assert told.startswith("it broke\nTraceback") and told.endswith("ZeroDivisionError: here\n")


def test_FI9_where_json_is_logged_nothing_else_is_on_stderr(lines, capsys) -> None:
    logs.use_json()
    say("http://127.0.0.1:8080")
    say()
    with ProgressLine() as progress:
        progress("converting", 5, 10)
        progress("fetching", 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("of a library", stacklevel=1)
    told = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert told[:3] == ["http://127.0.0.1:8080", "converting:  50 % of 10 B", "fetching"]
    assert len(told) == 4 and "of a library" in told[3]


LEVELS = [(None, False, True), ("debug", True, True), ("DEBUG", True, True), ("info", False, True), ("", False, True)]


@pytest.mark.parametrize(("word", "debug", "info"), [*LEVELS, ("warning", False, False)])
def test_the_level_is_a_variable(monkeypatch, capsys, word, debug, info) -> None:
    monkeypatch.delenv("PHI4MINI_LOG", raising=False)
    if word is not None:
        monkeypatch.setenv("PHI4MINI_LOG", word)
    with logs.to_stderr():
        logs.use_level()
        OURS.debug("a detail")
        OURS.info("a step")
        OURS.warning("a warning")
        logging.getLogger("httpx").info("of a library")
    details, steps = ["phi4mini.weights.load: a detail"] * debug, ["a step"] * info
    assert capsys.readouterr().err.splitlines() == [*details, *steps, "a warning"]


def test_another_level_is_an_error(monkeypatch, capsys) -> None:
    monkeypatch.setenv("PHI4MINI_LOG", "loud")
    assert main(["--version"]) == 2
    assert capsys.readouterr().err == "phi4mini: PHI4MINI_LOG must be debug, info or warning, not 'loud'\n"


def test_debug_tells_what_a_person_would_ask(phi4mini, demo_store) -> None:
    store = demo_store("q4")
    told = phi4mini("run", "-m", "demo", "-n", "3", "-s", "5", "Hi", PHI4MINI_LOG="debug").stderr
    assert f"phi4mini.weights.load: demo: {store}, made of the same content earlier" in told
    assert "phi4mini.llm.model: demo: chat format smollm, by the model's own template" in told
    assert re.search(r"phi4mini\.kernels\.lang\.build: \d+ kernels loaded in ", told)
    assert " prompt tokens, 0 of them from cached pages, 3 new; seed 5" in told
    assert "phi4mini." not in phi4mini("run", "-m", "demo", "-n", "3", "Hi").stderr.replace("phi4mini: ", "")


def test_what_was_set_before_is_so_again(capsys) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger("phi4mini").level
    assert main(["--version"]) == 0
    assert (logging.getLogger().handlers, logging.getLogger("phi4mini").level) == before
    assert not logs.is_json()


def test_a_library_sets_nothing_up() -> None:
    shown = "logging.getLogger().handlers, logging.getLogger('phi4mini').level"
    code = f"import logging, phi4mini, phi4mini.llm.model; print({shown})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 0\n"


def test_FI9_a_conversion_says_what_it_took(tmp_path, monkeypatch, capfd) -> None:
    from tests.weights.twins import small_folder

    monkeypatch.setenv("PHI4MINI_HOME", str(tmp_path / "home"))
    assert main(["pull", str(small_folder(tmp_path / "m"))]) == 0
    told = capfd.readouterr()
    assert f"{told.out.strip()}: " in told.err and " bytes in " in told.err
