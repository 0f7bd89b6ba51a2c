"""`import phi4mini`: everything it names is there when it is used. What it weighs is in `test_house.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import phi4mini

ROOT = Path(__file__).resolve().parents[1]


def python(code: str) -> str:
    """What a fresh Python prints, started where the package lies."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_name_is_there():
    for name in phi4mini.__all__:
        assert getattr(phi4mini, name) is not None
        assert name in dir(phi4mini)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = phi4mini.nonsense


def test_rooms_need_no_import_of_their_own():
    code = "import phi4mini; print(phi4mini.chat.render([{'role': 'user', 'content': 'Hi'}]).ids)"
    assert python(code) == "[200021, 12194, 200020, 200019]\n"
    parsed = "import phi4mini; print(phi4mini.chat.parse_reply('Hi<|end|>').content)"
    assert python(parsed) == "Hi\n"


def test_it_is_typed():
    assert (ROOT / "phi4mini" / "py.typed").exists()
