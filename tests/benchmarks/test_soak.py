"""The soak against a small real server for a few seconds: it passes what is well, and names what is not."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.server.mixed import BAD, LEAVES, WEIGHTS, Mix
from benchmarks.server.vitals import LIMITS, Verdict, Vitals, gauges, held_pages, process, untouched_pages, verdicts
from benchmarks.server.wire import Target, WireError
from tests.benchmarks.tiny_server import tiny_server, url_of

SECONDS = 3.0
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def soaked(leak: int, disconnects: float = 0.3) -> soak.Soaked:
    with tiny_server(leak=leak) as server:
        target = Target.parse(url_of(server))
        return asyncio.run(soak.soak(target, os.getpid(), SECONDS / 60, disconnects, users=4, every=0.1))


def test_a_server_that_is_well_passes():
    found = soaked(leak=0)
    # this process is client and server in one, so the figures of the process hold the load itself
    kept = [p for p in found.problems if not p.startswith(("rss_mb", "descriptors", "threads"))]
    assert kept == [] and found.mix.failed == [] and found.mix.changed == []
    assert set(found.mix.answered) == set(WEIGHTS) and set(found.mix.left) == set(LEAVES)
    assert found.mix.refused == {"tools"}
    assert len(found.samples) > 10 and found.canaries[0] == found.canaries[1] != ""


def test_a_leak_is_found():
    problems = " ".join(soaked(leak=2, disconnects=0.9).problems)
    assert "kv_pages at rest: " in problems


def test_a_failure_and_a_changed_answer_are_found(monkeypatch):
    monkeypatch.setattr("benchmarks.server.mixed.SHIPPED", ("fail", "together"))
    with tiny_server() as server:
        mix = Mix(Target.parse(url_of(server)), "tiny/model", 4096, 0.0, 0)
        with pytest.raises(WireError, match="status 500"):
            asyncio.run(mix.probe())

        async def users() -> None:
            end = asyncio.get_running_loop().time() + 1
            await asyncio.gather(*(mix.user(end) for _ in range(4)))

        asyncio.run(users())
    assert any("status 500" in line for line in mix.failed)
    assert mix.changed and "otherwise" in " ".join(mix.changed)


def test_the_same_seed_asks_the_same():
    one, two = (Mix(Target("h", 1), "m", 2048, 0.2, 7) for _ in range(2))
    drawn = [one.draw() for _ in range(400)]
    assert drawn == [two.draw() for _ in range(400)]
    assert {asked.kind for asked in drawn} == {*WEIGHTS, "leaving"}
    assert {asked.which for asked in drawn if asked.kind == "bad"} == set(range(len(BAD)))
    leaving = sum(asked.leave is not None for asked in drawn) / sum(asked.kind != "bad" for asked in drawn)
    assert 0.1 < leaving < 0.3


def test_a_line_through_the_samples_decides():
    def samples(pages: list[int]) -> list[Vitals]:
        return [Vitals(float(i), 100.0, 10, 5, count) for i, count in enumerate(pages)]

    def pages(values: list[int]) -> Verdict:
        return next(v for v in verdicts(samples(values)) if v.name == "kv_pages")

    assert {v.name for v in verdicts(samples([1] * 9))} == set(LIMITS)
    assert pages([0, 50, 60] + [60, 40] * 10).flat  # fills in the warm-up, then moves up and down
    growing = pages([2 * i for i in range(30)])
    assert (growing.flat, growing.rise) == (False, pytest.approx(38))
    with pytest.raises(ValueError, match="too few"):
        verdicts(samples([1, 2]))


def test_vitals_of_a_process_are_the_kernel_s():
    rss, descriptors, threads = process(os.getpid())
    with open(os.devnull):
        assert process(os.getpid())[1] == descriptors + 1
    assert 10 < rss < 10_000 and threads >= 1
    with pytest.raises(FileNotFoundError):
        process(2**22 + 1)


def test_gauges_are_read_from_prometheus_text():
    found = gauges('# HELP a b\nphi4mini_kv_pages 128.0\nphi4mini_kv_pages_free 100.0\nb{c="d"} 1.0\n')
    assert held_pages(found) == 28
    assert untouched_pages({**found, "phi4mini_kv_pages_idle": 60.0}) == 40
    assert set(found) == {"phi4mini_kv_pages", "phi4mini_kv_pages_free"}
    with pytest.raises(KeyError):
        held_pages({})


def test_the_page_and_the_json_say_what_was_found(tmp_path):
    found = soaked(leak=0)
    a = soak._parse(["--url", "http://h", "--pid", "1", "--minutes", "0.05"])
    result = soak.result_of(found, a)
    json.dumps(result)
    page = soak.report(found, result)
    assert "| kv_pages " in page and "this model does not do that" in page
    with pytest.raises(SystemExit):
        soak._parse(["--url", "http://h"])
    assert soak._parse([]).serve == "demo"
