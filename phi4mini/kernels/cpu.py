"""What this machine has and what of it we may use: instruction set, cores, caches, memory; asked once.

Promise: cores, quota and memory are those that affinity and every enclosing cgroup (v1 and v2) leave to this process.
Where a system does not say (macOS, a bare container), the plainest guess is taken: logical CPUs for cores, no limit.
Memory is read anew each time, because it changes.

It does not know what the cores are used for; threads/count.py decides the number of threads.

    here = cpu()
    here.isa, here.cores, here.memory_available
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from phi4mini.errors import BadInput, Phi4MiniError

_F16 = frozenset({"avx2", "fma", "f16c"})
ISAS = {  # best first; the LLVM features each needs
    "avx512vnni": _F16 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"},
    "avxvnni": _F16 | {"avxvnni"},
    "avx2": _F16,
    "neon": frozenset({"neon", "dotprod"}),
}
_UNLIMITED = 2**60  # cgroup v1 writes the largest page-aligned 63-bit number for no limit
_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Cpu:
    """One machine as this process may use it. Sizes are bytes, 0 where the system does not say.

    name, features: as LLVM spells them ("znver4"; "+avx2,-avx512fp16,..."). isa: a key of ISAS; isa_forced: it is less
    than the CPU has, because PHI4MINI_ISA said so. cpus: logical CPUs in the affinity mask. cores: the physical ones
    among them. quota: CPUs' worth of time that cgroups leave, None without a limit. l1, l2: data caches of one core.
    """

    name: str
    features: str
    isa: str
    isa_forced: bool
    cpus: int
    cores: int
    quota: float | None
    l1: int
    l2: int
    l3: int
    root: Path = field(default=Path("/"), repr=False)

    @property
    def memory_total(self) -> int:
        """The machine's memory or the smallest cgroup limit, whichever is less."""
        limits = [limit for limit, _ in _memory_cgroups(self.root)]
        return min([_memory(self.root)[0], *limits])

    @property
    def memory_available(self) -> int:
        """What can be allocated now without swapping, page cache counted as free, under every cgroup limit."""
        return max(0, min([_memory(self.root)[1], *(limit - used for limit, used in _memory_cgroups(self.root))]))


@cache
def cpu() -> Cpu:
    """This machine. Raises Phi4MiniError where no kernel can run, BadInput for a PHI4MINI_ISA that the CPU lacks."""
    import llvmlite.binding as llvm

    try:
        features = dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on some systems
        features = {}
    if platform.machine() in ("aarch64", "arm64"):
        features |= arm_features(platform.system())
    return read_cpu(llvm.get_host_cpu_name(), features, os.environ)


def read_cpu(
    name: str,
    features: Mapping[str, bool],
    environment: Mapping[str, str],
    root: Path = Path("/"),
    affinity: Callable[[], set[int]] | None = None,
) -> Cpu:
    """The machine whose /proc and /sys lie under `root` and whose CPU has these LLVM features."""
    best, *lower = _isas(name, features)
    isa = environment.get("PHI4MINI_ISA") or best
    if isa not in (best, *lower):
        raise BadInput(f"PHI4MINI_ISA={isa}: this CPU ({name}) has {', '.join((best, *lower))}")
    allowed = sorted((affinity or _affinity)())
    sizes = _cache_sizes(root, allowed[0])
    flat = ",".join(("+" if on else "-") + feature for feature, on in sorted(features.items()))
    cores = _physical(root, allowed)
    return Cpu(name, flat, isa, isa != best, len(allowed), cores, _quota(root), *sizes, root=root)


def _isas(name: str, features: Mapping[str, bool]) -> list[str]:
    present = {feature for feature, on in features.items() if on}
    found = [isa for isa, needed in ISAS.items() if needed <= present]
    if not found:
        raise Phi4MiniError(f"this CPU ({name}) has neither AVX2 with FMA and F16C nor NEON with dotprod")
    return found


def arm_features(system: str, root: Path = Path("/")) -> dict[str, bool]:
    """What LLVM 22 leaves out on ARM: Linux names the dot product "asimddp", which it does not read, and it looks at no
    Mac, all of which have both.
    """
    if system == "Darwin":
        return dict.fromkeys(ISAS["neon"], True)
    lines = _text(root / "proc/cpuinfo").splitlines()
    words = {word for line in lines if line.startswith("Features") for word in line.split()}
    return {"neon": "asimd" in words, "dotprod": "asimddp" in words}


# --- cores and caches -----------------------------------------------------------------------------------------------


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _physical(root: Path, allowed: list[int]) -> int:
    """Distinct groups of sibling threads among the allowed CPUs; a CPU that names no siblings is its own core."""
    groups = {_text(root / _CPUS / f"cpu{n}/topology/thread_siblings_list") or f"cpu{n}" for n in allowed}
    return len(groups)


def _cache_sizes(root: Path, number: int) -> tuple[int, int, int]:
    sizes = {1: 0, 2: 0, 3: 0}
    for index in sorted((root / _CPUS / f"cpu{number}/cache").glob("index*")):
        level, size = _text(index / "level"), _text(index / "size")
        if _text(index / "type") != "Instruction" and level in ("1", "2", "3") and size.endswith("K"):
            sizes[int(level)] = int(size[:-1]) * 1024
    return sizes[1], sizes[2], sizes[3]


# --- control groups -------------------------------------------------------------------------------------------------


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of this process's group and all above it, with whether they are version 2.

    Inside a container the path of /proc/self/cgroup is often the host's; its folders do not exist there and the walk up
    ends at the mount, which is the container's own group.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        tops = [mounts / names, mounts / controller] if names else [mounts / "unified", mounts]
        top = next((folder for folder in tops if folder.is_dir()), None)
        if top is None:
            continue
        # a group outside of our cgroup namespace is shown as /.., and cannot be looked at
        group = top if ".." in path.split("/") else top / path.lstrip("/")
        while group != top:
            yield group, not names
            group = group.parent
        yield top, not names


def _quota(root: Path) -> float | None:
    quotas = []
    for group, version2 in _cgroups(root, "cpu"):
        if version2:
            quota, _, period = _text(group / "cpu.max").partition(" ")
        else:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:  # "max", "-1" and absence are no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _memory_cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use that cannot be dropped) of every enclosing group that has a limit."""
    for group, version2 in _cgroups(root, "memory"):
        limit = _text(group / ("memory.max" if version2 else "memory.limit_in_bytes"))
        if not limit.isdigit() or int(limit) >= _UNLIMITED:
            continue
        used = _text(group / ("memory.current" if version2 else "memory.usage_in_bytes"))
        cached = _fields(group / "memory.stat").get("inactive_file" if version2 else "total_inactive_file", 0)
        yield int(limit), max(0, int(used or 0) - cached)


def _memory(root: Path) -> tuple[int, int]:
    """(total, available) of the machine."""
    known = _fields(root / "proc/meminfo")
    if "MemTotal:" in known:
        total = known["MemTotal:"] * 1024
        return total, known.get("MemAvailable:", known["MemTotal:"]) * 1024
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total, total


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
