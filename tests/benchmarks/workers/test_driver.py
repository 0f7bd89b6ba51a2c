"""The worker protocol with real processes: answers, errors, silence on stdout, and standing still while not asked."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks.workers.driver import Worker, WorkerFailed

WORKER = """
import os, sys, threading, time
from benchmarks.workers.obey import obey

count = 0
def spin():
    global count
    while True:
        count += 1
        time.sleep(0.001)

def load():
    print("chatter")
    os.write(1, b"more chatter")
    threading.Thread(target=spin, daemon=True).start()
    return {"ready": True}, {"double": lambda n: {"n": 2 * n}, "count": lambda: {"count": count}}

obey(load)
"""


@pytest.fixture
def worker():
    made = Worker("test", [sys.executable, "-c", WORKER])
    yield made
    made.close()


def test_answers_come_back_and_chatter_does_not(worker):
    assert worker.facts == {"ready": True}
    assert worker.ask("double", n=21) == {"n": 42}


def test_an_error_is_told_and_the_worker_goes_on(worker):
    with pytest.raises(WorkerFailed, match="KeyError: 'triple'"):
        worker.ask("triple")
    assert worker.ask("double", n=1) == {"n": 2}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_worker_that_is_not_asked_is_stopped(worker):
    before = worker.ask("count")["count"]
    time.sleep(0.4)
    after = worker.ask("count")["count"]
    assert after - before < 100  # 0.4 s of spinning would be about 400


def test_a_worker_that_dies_leaves_its_last_words():
    with pytest.raises(WorkerFailed, match="no such model"):
        Worker("test", [sys.executable, "-c", "import sys; sys.exit('no such model')"])
