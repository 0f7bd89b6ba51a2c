"""The machine that a result belongs to, without what would identify its owner: no host name, no path."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe(threads: int) -> dict[str, Any]:
    """CPU, cores, caches, memory, system and versions."""
    from phi4mini.kernels.cpu import cpu

    here = cpu()
    return {
        "cpu": cpu_model(),
        "llvm_cpu": here.name,
        "isa": here.isa,
        "cores": here.cores,
        "threads": threads,
        "l2_kib": here.l2 // 1024,
        "l3_kib": here.l3 // 1024,
        "memory_gb": round(here.memory_total / 1e9, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("phi4mini", "numpy", "llvmlite")},
    }


def file_name(machine: dict[str, Any]) -> str:
    """A short name for results/: the CPU as LLVM calls it, instruction set and cores."""
    return re.sub(r"[^a-z0-9-]+", "-", f"{machine['llvm_cpu']}-{machine['isa']}-{machine['cores']}c".lower())


def cpu_model() -> str:
    """The CPU's own name, from /proc/cpuinfo where there is one."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed as a package"
