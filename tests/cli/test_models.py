"""pull, convert, ls, show, rm on a model cache of the test's own."""

from __future__ import annotations

import json

from phi4mini.cli.doctor import tiny_weights
from tests.cli.conftest import as_hf, refused


def test_ls_show_and_rm(phi4mini, home):
    here = {"PHI4MINI_HOME": str(home)}
    (listed,) = json.loads(phi4mini("ls", "--json", **here).stdout)
    assert (listed["name"], listed["quant"], listed["broken"]) == ("demo", "q4", None)
    table = phi4mini("ls", **here)
    assert "demo" in table.stdout and "q4" in table.stdout and str(home) in table.stderr
    shown = json.loads(phi4mini("show", "--json", listed["path"], **here).stdout)
    assert shown["parameters"] == 134515008 and shown["chat_format"] == "smollm" and shown["layers"] == 30
    assert "135" not in shown["path"] and "q4m" in phi4mini("show", listed["path"], **here).stdout
    refused_first = phi4mini("rm", "demo", **here)
    assert refused_first.returncode == 2 and "-y" in refused_first.stderr
    removed = json.loads(phi4mini("rm", "-y", "--json", "demo", **here).stdout)
    assert removed["removed"] == [listed["path"]]
    assert phi4mini("ls", "--json", **here).stdout == "[]\n"
    refused(phi4mini("rm", "-y", "demo", **here), "demo", str(home))


def test_a_broken_store_is_listed_as_broken_and_can_be_removed(phi4mini, home):
    (home / "stores" / "bad.phi4").write_bytes(b"PHI4MINI" + bytes(100))
    here = {"PHI4MINI_HOME": str(home)}
    listed = {model["name"]: model["broken"] for model in json.loads(phi4mini("ls", "--json", **here).stdout)}
    assert listed["demo"] is None and "bad.phi4" in listed["bad"]
    assert "broken" in phi4mini("ls", **here).stdout
    assert phi4mini("rm", "-y", "bad.phi4", **here).returncode == 0
    assert not (home / "stores" / "bad.phi4").exists()


def test_verify_finds_a_changed_byte(phi4mini, demo_store, tmp_path):
    data = bytearray(demo_store("q4").read_bytes())
    path = tmp_path / "changed.phi4"
    path.write_bytes(data)
    assert phi4mini("show", "--verify", str(path)).returncode == 0
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = phi4mini("show", "--verify", str(path))
    assert done.returncode == 2 and done.stdout == "" and "hash" in done.stderr.splitlines()[-1]


def test_convert_writes_a_file_that_runs(phi4mini, demo_gguf, tmp_path):
    done = phi4mini("convert", "-m", str(demo_gguf), "-q", "q8", "-o", "made.phi4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {"path": "made.phi4", "bytes": (tmp_path / "made.phi4").stat().st_size}
    assert "converting" in done.stderr and "100 %" in done.stderr
    answer = phi4mini("run", "-m", str(tmp_path / "made.phi4"), "-n", "2", "--json", "Hi")
    assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 2
    refused(phi4mini("convert", "-m", str(demo_gguf), "-o", str(tmp_path / "no" / "x.phi4")), str(tmp_path / "no"))
    refused(phi4mini("convert", "-m", str(demo_gguf), "-q", "q3"), "q3", "q4")


def test_pull_without_network_says_so_and_offers_the_demo(phi4mini, tmp_path):
    nowhere = {"PHI4MINI_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    refused(phi4mini("pull", "--offline", **nowhere), "offline", "microsoft/Phi-4-mini-instruct", "demo")
    refused(phi4mini("pull", "nonsense", **nowhere), "nonsense", "hub id")


def test_pull_of_what_is_here_names_the_file(phi4mini, demo_store):
    done = phi4mini("pull", "demo", "-q", "q4")
    assert (done.returncode, done.stdout) == (0, f"{demo_store('q4')}\n")


def test_damaged_and_foreign_models_are_refused_in_one_line(phi4mini, demo_store, tmp_path):
    short = tmp_path / "short.phi4"
    short.write_bytes(demo_store("q4").read_bytes()[:-4096])
    refused(phi4mini("run", "-m", str(short), "Hi"), str(short), "truncated")
    text = tmp_path / "notes.txt"
    text.write_text("not a model")
    refused(phi4mini("run", "-m", str(text), "Hi"), str(text), "neither a GGUF nor a store")
    folder = tmp_path / "pickled"
    folder.mkdir()
    refused(phi4mini("run", "-m", str(folder), "Hi"), "config.json")
    (folder / "config.json").write_text(json.dumps(as_hf(tiny_weights().config)))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    refused(phi4mini("run", "-m", str(folder), "Hi"), "pytorch_model.bin", "pickle")
    refused(phi4mini("convert", "-m", str(folder), "-o", str(tmp_path / "out.phi4")), "pickle")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))
