"""doctor: a sound machine is exit code 0; each thing that is wrong is named."""

from __future__ import annotations

import json

from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.threads.count import most_threads


def test_a_sound_machine(phi4mini):
    done = phi4mini("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["ok"] is True and found["threads"]["threads"] == most_threads()
    assert found["processor"]["isa"] == cpu().isa and found["kernels"]["count"] > 0
    people = phi4mini("doctor").stdout.splitlines()
    assert len(people) == len(found) - 1 and all(line.startswith("ok ") for line in people)


def test_the_ceilings_are_measured_when_asked(phi4mini):
    found = json.loads(phi4mini("doctor", "--measure", "--json").stdout)["ceilings"]
    assert found["read_gb_s"] > 0.5 and found["dot_gops"] > 1


def test_a_broken_store_is_wrong(phi4mini, home):
    (home / "stores" / "bad.phi4").write_bytes(b"PHI4MINI" + bytes(100))
    done = phi4mini("doctor", PHI4MINI_HOME=str(home))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    assert done.returncode == 2 and "models" in line and "phi4mini rm bad.phi4" in line


def test_a_cache_that_cannot_be_written_is_wrong(phi4mini, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    done = phi4mini("doctor", "--json", PHI4MINI_HOME=str(file / "home"))
    assert done.returncode == 2
    assert str(file) in json.loads(done.stdout)["cache"]["wrong"]


def test_an_instruction_set_the_cpu_lacks_is_wrong(phi4mini):
    done = phi4mini("doctor", "--json", PHI4MINI_ISA="neon" if cpu().isa != "neon" else "avx2")
    assert done.returncode == 2 and "PHI4MINI_ISA" in json.loads(done.stdout)["processor"]["wrong"]
