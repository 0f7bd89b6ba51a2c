"""The real page in a real browser: a server process with the demo model, and a Chromium that is already there.

Skips where Playwright, a Chromium or the extra serve is missing; nothing is fetched but the demo model.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START = 120  # seconds a server may take to load the demo


def chromium() -> str:
    """Path of a Chromium, or skip."""
    pytest.importorskip("playwright", reason="needs playwright (the extra dev)")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on the path")


def free_port() -> int:
    """A port on which no program listens at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def served(*options: str, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of `phi4mini serve -m demo`, ready to answer."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PHI4MINI_") or k == "PHI4MINI_HOME"}
    command = [sys.executable, "-m", "phi4mini", "serve", "-m", "demo", "--port", str(port), *options]
    process = subprocess.Popen(command, cwd=ROOT, env=kept, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: ready(url) or process.poll() is not None, START)
        assert process.poll() is None, f"{' '.join(command)} ended with {process.returncode}"
        yield url, process
    finally:
        process.terminate()
        process.wait(timeout=60)


def ready(url: str) -> bool:
    """Whether the server's model is loaded."""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as refused:
        return refused.code == 401  # it listens, and asks for a key
    except (urllib.error.URLError, OSError):
        return False


def wait_until(condition: Callable[[], Any], seconds: float) -> None:
    """Fails when the condition has not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="package")
def server(demo_store: Any) -> Iterator[str]:
    """Address of a server with the demo model."""
    for library in ("starlette", "uvicorn", "msgspec", "llguidance", "nh3"):
        pytest.importorskip(library, reason="needs the extra serve")
    demo_store()
    with served("-c", "8192") as (url, _):
        yield url


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A fresh profile: nothing stored, nothing cached."""
    made = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    made.grant_permissions(["clipboard-read", "clipboard-write"])
    yield made
    made.close()
