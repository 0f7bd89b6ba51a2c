"""What a machine is taken to have, on made-up /proc and /sys trees and on this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phi4mini.errors import BadInput, Phi4MiniError
from phi4mini.kernels.cpu import ISAS, Cpu, arm_features, cpu, read_cpu
from phi4mini.kernels.threads.count import most_threads

AVX2 = dict.fromkeys(["avx2", "fma", "f16c"], True)
ZEN4 = {feature: True for feature in ISAS["avx512vnni"]}
GIB = 2**30


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def machine(root: Path, cpus: int = 8, features: dict[str, bool] = AVX2, **environment: str) -> Cpu:
    return read_cpu("testcpu", features, environment, root, lambda: set(range(cpus)))


# --- cores ----------------------------------------------------------------------------------------------------------


def siblings(pairs: list[str]) -> dict[str, object]:
    return {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": pair for n, pair in enumerate(pairs)}


@pytest.mark.parametrize(
    ("pairs", "allowed", "cores"),
    [
        (["0-1", "0-1", "2-3", "2-3"], {0, 1, 2, 3}, 2),
        (["0,2", "1,3", "0,2", "1,3"], {0, 1, 2, 3}, 2),
        (["0,2", "1,3", "0,2", "1,3"], {0, 2}, 1),
        (["0,2", "1,3", "0,2", "1,3"], {0, 1}, 2),
        (["0", "1"], {1}, 1),
        ([], {0, 1, 2}, 3),  # a system that does not tell: every CPU counts as a core
    ],
)
def test_sibling_threads_count_as_one_core(tmp_path, pairs, allowed, cores):
    here = read_cpu("testcpu", AVX2, {}, tree(tmp_path, siblings(pairs)), lambda: allowed)
    assert (here.cpus, here.cores, here.quota, most_threads(here)) == (len(allowed), cores, None, cores)


# --- quotas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("75000 50000", 1), ("125000 50000", 2), ("25000 50000", 1), ("max 50000", 8), ("9900000 50000", 8), ("", 8)],
)
def test_D14_cgroup_v2_quota_is_rounded_down(tmp_path, quota, threads):
    tree(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})
    assert most_threads(machine(tmp_path)) == threads


@pytest.mark.parametrize(("quota", "threads"), [(150000, 1), (250000, 2), (-1, 8), (0, 1)])
def test_cgroup_v1_quota_is_rounded_down(tmp_path, quota, threads):
    group = "sys/fs/cgroup/cpu,cpuacct/docker/abc"
    lines = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/init\n0::/init"
    times = {f"{group}/cpu.cfs_quota_us": quota, f"{group}/cpu.cfs_period_us": 100000}
    tree(tmp_path, {"proc/self/cgroup": lines, **times})
    assert most_threads(machine(tmp_path)) == threads


@pytest.mark.parametrize(
    ("outer", "inner", "threads"),
    [("300000 100000", "max 100000", 3), ("max 100000", "250000 100000", 2), ("200000 100000", "600000 100000", 2)],
)
def test_the_tightest_of_nested_groups_counts(tmp_path, outer, inner, threads):
    files = {
        "proc/self/cgroup": "0::/kubepods/pod1/box",
        "sys/fs/cgroup/kubepods/cpu.max": outer,
        "sys/fs/cgroup/kubepods/pod1/box/cpu.max": inner,
    }
    assert most_threads(machine(tree(tmp_path, files))) == threads


def test_a_container_that_shows_the_path_of_its_host(tmp_path):
    """Without a cgroup namespace the path is the host's, but the mount is the container's own group."""
    files = {"proc/self/cgroup": "0::/docker/0123abcd", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert most_threads(machine(tree(tmp_path, files))) == 2


def test_hybrid_hierarchy_keeps_version_2_beside_version_1(tmp_path):
    files = {
        "proc/self/cgroup": "3:cpu:/\n0::/box",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
        "sys/fs/cgroup/unified/box/cpu.max": "300000 100000",
    }
    assert most_threads(machine(tree(tmp_path, files))) == 3


def test_a_path_with_dots_does_not_leave_the_mount(tmp_path):
    files = {"proc/self/cgroup": "0::/../other", "sys/fs/other/cpu.max": "100000 100000", "sys/fs/cgroup/x": ""}
    assert machine(tree(tmp_path, files)).quota is None


# --- memory ---------------------------------------------------------------------------------------------------------

MEMINFO = "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:   8388608 kB\nHugePages_Total:       0"


def test_memory_without_a_limit(tmp_path):
    here = machine(tree(tmp_path, {"proc/meminfo": MEMINFO}))
    assert (here.memory_total, here.memory_available) == (16 * GIB, 8 * GIB)


def test_memory_within_a_cgroup_v2_limit_counts_page_cache_as_free(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/box/inner",
        "sys/fs/cgroup/box/memory.max": 4 * GIB,
        "sys/fs/cgroup/box/memory.current": 3 * GIB,
        "sys/fs/cgroup/box/memory.stat": f"anon 5\ninactive_file {2 * GIB}\nactive_file 7",
        "sys/fs/cgroup/box/inner/memory.max": "max",
    }
    here = machine(tree(tmp_path, files))
    assert (here.memory_total, here.memory_available) == (4 * GIB, 3 * GIB)


def test_memory_within_a_cgroup_v1_limit(tmp_path):
    group = "sys/fs/cgroup/memory"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/box",
        f"{group}/memory.limit_in_bytes": 9223372036854771712,
        f"{group}/box/memory.limit_in_bytes": 2 * GIB,
        f"{group}/box/memory.usage_in_bytes": 3 * GIB,
        f"{group}/box/memory.stat": "inactive_file 1\ntotal_inactive_file 0",
    }
    here = machine(tree(tmp_path, files))
    assert (here.memory_total, here.memory_available) == (2 * GIB, 0)


def test_memory_is_read_anew(tmp_path):
    here = machine(tree(tmp_path, {"proc/meminfo": MEMINFO}))
    tree(tmp_path, {"proc/meminfo": MEMINFO.replace("8388608", "4194304")})
    assert here.memory_available == 4 * GIB


def test_memory_where_there_is_no_proc(tmp_path):
    here = machine(tmp_path)
    assert here.memory_total == here.memory_available == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- instruction sets and caches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "isa"),
    [
        (AVX2, "avx2"),
        ({**AVX2, "avxvnni": True}, "avxvnni"),
        (ZEN4, "avx512vnni"),
        ({**ZEN4, "avx512vnni": False}, "avx2"),
        ({**ZEN4, "avxvnni": True}, "avx512vnni"),
        ({"neon": True, "dotprod": True}, "neon"),
    ],
)
def test_the_best_instruction_set_is_taken(tmp_path, features, isa):
    here = machine(tmp_path, features=features)
    assert (here.isa, here.isa_forced) == (isa, False)


def test_a_lower_instruction_set_can_be_forced(tmp_path):
    lower = machine(tmp_path, features=ZEN4, PHI4MINI_ISA="avx2")
    assert (lower.isa, lower.isa_forced) == ("avx2", True)
    assert not machine(tmp_path, features=ZEN4, PHI4MINI_ISA="avx512vnni").isa_forced
    assert machine(tmp_path, features=ZEN4, PHI4MINI_ISA="").isa == "avx512vnni"
    for isa in ("avxvnni", "neon", "sse9"):
        with pytest.raises(BadInput, match=f"PHI4MINI_ISA={isa}: this CPU .* has avx512vnni, avx2"):
            machine(tmp_path, features=ZEN4, PHI4MINI_ISA=isa)


def test_a_cpu_that_cannot_run_the_kernels_is_named(tmp_path):
    with pytest.raises(Phi4MiniError, match=r"this CPU \(testcpu\) has neither"):
        machine(tmp_path, features={"avx2": True, "fma": False, "f16c": True})


def test_features_are_spelled_for_llvm(tmp_path):
    assert machine(tmp_path, features={**AVX2, "amx-tile": False}).features == "-amx-tile,+avx2,+f16c,+fma"


def test_caches(tmp_path):
    rows = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K"), ("3", "Unified", "32768K")]
    files = {}
    for n, (level, kind, size) in enumerate(rows):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{n}"
        files |= {f"{folder}/level": level, f"{folder}/type": kind, f"{folder}/size": size}
    here = machine(tree(tmp_path, files))
    assert (here.l1, here.l2, here.l3) == (48 * 1024, 2**20, 32 * 2**20)


# --- this machine ---------------------------------------------------------------------------------------------------


def test_this_machine():
    here = cpu()
    assert here.isa in ISAS and here.name and 1 <= most_threads() <= here.cores <= here.cpus
    assert here.cpus <= (os.cpu_count() or 1)
    assert 0 < here.memory_available <= here.memory_total
    assert cpu() is here


def test_linux_on_arm_is_asked_in_its_own_words(tmp_path):
    """LLVM 22 does not know that cpuinfo's asimddp is the dot product."""
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc" / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdhp asimddp\nCPU part\t: 0xd0c\n")
    assert arm_features("Linux", tmp_path) == {"neon": True, "dotprod": True}
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert arm_features("Linux", tmp_path) == {"neon": True, "dotprod": False}
    assert all(arm_features("Darwin").values())
