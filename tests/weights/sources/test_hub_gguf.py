"""GGUFs of the hub by quantisation or file: which one a name means, and real downloads from a hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mini.errors import BadInput, NotFound
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints.gguf_split import part_names
from phi4mini.weights.resolve import resolve
from phi4mini.weights.sources.hub_gguf import choose, models, parse
from tests.weights.fake_hub import FakeHub
from tests.weights.twins import config_json, small_folder, write_gguf

# ---- what a name says

NAMES = {
    "o/n:Q4_K_M": ("o/n", "Q4_K_M"),
    "o/n:q4_k_m": ("o/n", "Q4_K_M"),
    "hf.co/o/n:Q8_0": ("o/n", "Q8_0"),
    "hf.co/o/n": ("o/n", ""),
    "hf.co/o/n:latest": ("o/n", ""),
    "huggingface.co/o/n:IQ4_XS": ("o/n", "IQ4_XS"),
    "https://huggingface.co/o/n": ("o/n", ""),
    "https://huggingface.co/o/n/": ("o/n", ""),
    "https://hf.co/o/n:UD-Q4_K_XL": ("o/n", "UD-Q4_K_XL"),
    "https://huggingface.co/o/n/tree/main": ("o/n", ""),
    "https://huggingface.co/o/n/blob/main/M-Q4_0.gguf": ("o/n", "M-Q4_0.gguf"),
    "https://huggingface.co/o/n/resolve/main/sub/M.gguf?download=true": ("o/n", "sub/M.gguf"),
    "o/n:M-Q4_0.gguf": ("o/n", "M-Q4_0.gguf"),
    "o/n:sub/M-Q4_0.gguf": ("o/n", "sub/M-Q4_0.gguf"),
    "o/n:M-00002-of-00003.gguf": ("o/n", "M-00001-of-00003.gguf"),
}
NO_NAMES = [
    "o/n:",
    "o/n:a b",
    "o/n:../x.gguf",
    "o/n:/x.gguf",
    "o:Q4_0",
    "hf.co/o",
    "a/b/c:Q4_0",
    "o/n:Q4_0:Q8_0",
    "o/n:x/",
]


@pytest.mark.parametrize("name", NAMES)
def test_GG8_names_of_llama_cpp_and_ollama_users(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repo, variant = NAMES[name]
    assert parse(name) == NAMES[name]
    source = resolve(name)
    assert (source.kind, source.repo, source.variant) == ("hub", repo, variant)
    assert source.name == (f"{repo}:{variant}" if variant else repo)


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_names_nothing_on_the_hub_says_what_a_name_can_be(name):
    assert parse(name) is None
    with pytest.raises(NotFound, match=r"owner/name:Q4_K_M or owner/name:file\.gguf"):
        resolve(name)


def test_a_page_of_another_revision_is_refused():
    with pytest.raises(BadInput, match="only main can be named, not v2"):
        resolve("https://huggingface.co/o/n/blob/v2/M.gguf")


def test_a_short_name_may_have_a_quantisation():
    assert resolve("phi-4-mini:Q4_K_M").name == "microsoft/Phi-4-mini-instruct:Q4_K_M"


# ---- which file it means: listings as publishers have them

P = "Phi-4-mini-instruct"
UNSLOTH = [
    ".gitattributes", "README.md", "config.json", f"{P}-BF16.gguf", f"{P}-Q2_K.gguf", f"{P}-Q4_K_M.gguf",
    f"{P}-Q4_K_S.gguf", f"{P}.Q8_0.gguf", f"{P}-UD-Q4_K_XL.gguf", f"{P}-UD-Q4_K_M.gguf", "imatrix_unsloth.gguf",
    "mmproj-F16.gguf",
]  # fmt: skip
BARTOWSKI = [f"microsoft_{P}-{q}.gguf" for q in ("IQ4_NL", "IQ4_XS", "Q4_0", "Q4_K_M", "Q5_K_L", "bf16")]
SPLIT = [f"Q8_0/{name}" for name in part_names(f"{P}-Q8_0-00001-of-00003.gguf")] + [f"{P}-Q4_K_M-00001-of-00002.gguf"]
OLD = ["ggml-model-i2_s.gguf", "ggml-model-q4_0.gguf", "phi.q4_k_m.gguf", "q5_1.gguf"]
MEANT = [
    (UNSLOTH, "Q4_K_M", f"{P}-Q4_K_M.gguf"),
    (UNSLOTH, "UD-Q4_K_M", f"{P}-UD-Q4_K_M.gguf"),
    (UNSLOTH, "UD-Q4_K_XL", f"{P}-UD-Q4_K_XL.gguf"),
    (UNSLOTH, "Q4_K_XL", f"{P}-UD-Q4_K_XL.gguf"),
    (UNSLOTH, "Q8_0", f"{P}.Q8_0.gguf"),
    (UNSLOTH, "BF16", f"{P}-BF16.gguf"),
    (UNSLOTH, f"{P.lower()}-q2_k.gguf", f"{P}-Q2_K.gguf"),
    (UNSLOTH, "", f"{P}-Q4_K_M.gguf"),
    (BARTOWSKI, "IQ4_XS", f"microsoft_{P}-IQ4_XS.gguf"),
    (BARTOWSKI, "BF16", f"microsoft_{P}-bf16.gguf"),
    (BARTOWSKI, "Q4_0", f"microsoft_{P}-Q4_0.gguf"),
    (SPLIT, "Q8_0", f"Q8_0/{P}-Q8_0-00001-of-00003.gguf"),
    (SPLIT, f"Q8_0/{P}-Q8_0-00001-of-00003.gguf", f"Q8_0/{P}-Q8_0-00001-of-00003.gguf"),
    (OLD, "Q4_0", "ggml-model-q4_0.gguf"),
    (OLD, "I2_S", "ggml-model-i2_s.gguf"),
    (OLD, "Q5_1", "q5_1.gguf"),
    (OLD, "", "phi.q4_k_m.gguf"),
    (["only-Q5_K_M.gguf", "README.md", "mmproj.gguf"], "", "only-Q5_K_M.gguf"),
]


@pytest.mark.parametrize(("files", "wanted", "meant"), MEANT, ids=[f"{w or 'any'}-{m}" for _, w, m in MEANT])
def test_GG8_one_file_is_meant(files, wanted, meant):
    chosen = choose("o/n", files, wanted)
    assert chosen[0] == meant and chosen == models(files)[meant] and set(chosen) <= set(files)


REFUSED = [
    (UNSLOTH, "Q6_K", NotFound, f"o/n has no GGUF 'Q6_K'; there are {P}-BF16.gguf, {P}-Q2_K.gguf"),
    (UNSLOTH, "K_M", NotFound, "o/n has no GGUF 'K_M'; there are"),
    (UNSLOTH, "Q4", NotFound, "no GGUF 'Q4'"),
    (UNSLOTH, "4_K_M", NotFound, "no GGUF '4_K_M'"),
    (UNSLOTH, "F16", NotFound, "no GGUF 'F16'"),
    (UNSLOTH, "none.gguf", NotFound, "no GGUF 'none.gguf'"),
    (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "Q4_K_M", BadInput, "o/n:Q4_K_M could be a-Q4_K_M.gguf, b-Q4_K_M.gguf; name"),
    (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "", BadInput, "could be"),
    (["x/a.gguf", "y/a.gguf"], "a.gguf", BadInput, "could be x/a.gguf, y/a.gguf"),
    (["a-Q8_0.gguf", "a-Q6_K.gguf"], "", NotFound, "no Q4_K_M among its GGUFs, so one must be named; there are a-Q6_K"),
    (SPLIT, "Q4_K_M", NotFound, f"of the 2 parts of {P}-Q4_K_M-00001-of-00002.gguf there is no {P}-Q4_K_M-00002"),
    (["model.safetensors", "config.json"], "Q4_K_M", NotFound, "o/n has no GGUF; without :Q4_K_M its safetensors run"),
    ([f"m-Q{i}_K.gguf" for i in range(30)], "Q4_K_M", NotFound, "and 18 more"),
]


@pytest.mark.parametrize(("files", "wanted", "error", "told"), REFUSED, ids=[f"{w}-{t[:40]}" for _, w, _, t in REFUSED])
def test_GG9_no_file_or_several_are_listed(files, wanted, error, told):
    with pytest.raises(error) as caught:
        choose("o/n", files, wanted)
    assert told in str(caught.value) and "\n" not in str(caught.value)


WORDS = ("Q4_0", "Q4_K_M", "Q4_K_S", "Q8_0", "IQ4_XS", "IQ4_NL", "BF16", "F16", "UD-Q4_K_XL", "Q2_K", "Q5_K_M")


@given(
    words=st.sets(st.sampled_from(WORDS), min_size=1),
    joint=st.sampled_from("-._"),
    lower=st.booleans(),
    count=st.sampled_from([1, 2, 12]),
    folder=st.sampled_from(["", "sub/"]),
    data=st.data(),
)
def test_GG8_whatever_a_publisher_calls_them_the_word_finds_its_own(words, joint, lower, count, folder, data):
    named = {
        word: [folder + name for name in (part_names(f"Model{joint}{word.lower() if lower else word}{tail}"))]
        for word in words
        for tail in [f"-00001-of-{count:05}.gguf" if count > 1 else ".gguf"]
    }
    files = data.draw(st.permutations([file for some in named.values() for file in some] + ["mmproj-F16.gguf"]))
    for word, own in named.items():
        assert choose("o/n", files, word) == choose("o/n", files, word.lower()) == own


# ---- from a hub

REPO = "someone/tiny-GGUF"
NOWHERE = "http://127.0.0.1:9"  # nobody listens on the discard port
MODEL = Config.from_json(config_json("Llama", hidden_size=256, intermediate_size=256))
CODE = """
import json, logging, sys
logging.basicConfig(format="%(message)s")
from phi4mini.errors import Phi4MiniError
from phi4mini.weights import library, load
from phi4mini.weights.sources import hub_gguf
from phi4mini.weights.store.store import open_store
def opened(name, **how):
    made = open_store(load.ensure_store(name, **how))
    return [str(made.path), made.header["source"]["name"], made.weights.layers[0].o.format.name]
def removed(name):
    return [model.path.name for model in library.remove(name)]
doors = {"fetch": lambda *a, **k: str(hub_gguf.fetch(*a, **k)), "open": opened, "rm": removed,
         "ls": lambda: [[m.name, m.recipe] for m in library.list_models()]}
try:
    print(json.dumps(doors[sys.argv[1]](*json.loads(sys.argv[2]), **json.loads(sys.argv[3]))))
except Phi4MiniError as error:
    print(json.dumps(f"{type(error).__name__} {error}"))
"""


@pytest.fixture
def server(tmp_path) -> Iterator[FakeHub]:
    folder = tmp_path / "repo"
    folder.mkdir()
    for kind in ("Q4_K", "Q8_0"):
        write_gguf(folder / f"tiny-{'Q4_K_M' if kind == 'Q4_K' else kind}.gguf", MODEL, default=kind)
    (folder / "Q5_K_M").mkdir()
    write_gguf(folder / "Q5_K_M" / "tiny-Q5_K_M.gguf", MODEL, default="Q5_K", split=7)
    (folder / "config.json").write_text("{}")
    (folder / "mmproj-F16.gguf").write_bytes(b"GGUF")
    made = FakeHub(folder, REPO)
    yield made
    made.close()


@pytest.fixture
def ask(tmp_path) -> Callable[..., Any]:
    """ask(door, *arguments, endpoint, **arguments): called in a process whose hub and caches are ours."""

    def call(door: str, *args: Any, at: str, environment: dict[str, str] | None = None, **named: Any) -> Any:
        places = {"HF_HOME": str(tmp_path / "hf"), "PHI4MINI_HOME": str(tmp_path / "ours"), "HF_ENDPOINT": at}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PHI4MINI_"))}
        done = subprocess.run(
            [sys.executable, "-c", CODE, door, json.dumps(args), json.dumps(named)],
            env=inherited | places | (environment or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (tmp_path / "stderr").write_text(done.stderr)
        return json.loads(done.stdout)

    return call


def fetched(server: FakeHub) -> list[str]:
    return sorted(
        {path.rsplit("/", 1)[-1] for method, path, _ in server.requests if method == "GET" and "/resolve/" in path}
    )


def test_GG8_a_quantisation_is_fetched_alone_and_then_needs_no_network(server, ask):
    path, name, form = ask("open", f"hf.co/{REPO}:q4_k_m", at=server.url)
    assert fetched(server) == ["tiny-Q4_K_M.gguf"] and (name, form) == (f"{REPO}:Q4_K_M", "q4k")
    assert "someone--tiny-GGUF-Q4_K_M-q4-" in path
    assert ask("open", f"{REPO}:Q4_K_M", at=NOWHERE)[0] == path
    assert ask("open", f"{REPO}:Q4_K_M", at=NOWHERE, quant="q8")[2] == "q8", "another recipe takes the cached file"
    assert ask("open", f"{REPO}:tiny-q4_k_m.gguf", at=NOWHERE, environment={"HF_HUB_OFFLINE": "1"})[2] == "q4k"
    told = ask("open", f"{REPO}:Q8_0", at=server.url, offline=True)
    assert told.startswith(f"NotFound offline: {REPO}:Q8_0 is not in the hub's cache; of it there are tiny-Q4_K_M.gguf")


def test_GG8_two_quantisations_are_two_models_that_are_listed_and_removed(server, ask):
    first, second = (ask("open", f"{REPO}:{word}", at=server.url) for word in ("Q4_K_M", "Q8_0"))
    assert (first[2], second[2]) == ("q4k", "q8") and first[0] != second[0]
    assert ask("ls", at=NOWHERE) == [[f"{REPO}:Q4_K_M", "q4"], [f"{REPO}:Q8_0", "q4"]]
    assert ask("rm", f"https://huggingface.co/{REPO}:q8_0", at=NOWHERE) == [Path(second[0]).name]
    assert ask("ls", at=NOWHERE) == [[f"{REPO}:Q4_K_M", "q4"]]


def test_GG8_a_split_file_is_fetched_whole(server, ask):
    _, name, form = ask("open", f"{REPO}:Q5_K_M", at=server.url)
    assert fetched(server) == [f"tiny-Q5_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert (name, form) == (f"{REPO}:Q5_K_M", "q5k")
    assert ask("open", f"{REPO}:Q5_K_M", at=NOWHERE, quant="q8")[2] == "q8"


def test_GG8_a_broken_download_is_resumed(server, ask):
    big = server.folder / "tiny-Q6_K.gguf"  # larger than the 10 MB the client takes at a time
    big.write_bytes(os.urandom(1 << 20) * 30)
    server.cut[big.name] = 25 << 20
    got = ask("fetch", REPO, "Q6_K", at=server.url)
    if got.startswith("NotFound"):  # the client may give up at the first break: what came is kept
        got = ask("fetch", REPO, "Q6_K", at=server.url)
    assert Path(got).read_bytes() == big.read_bytes()
    ranges = [wanted for _, path, wanted in server.requests if path.endswith(big.name) and wanted]
    assert any(int(wanted.removeprefix("bytes=").split("-")[0]) >= 10 << 20 for wanted in ranges), "only the rest"


def test_GG8_nothing_but_ggufs_means_the_usual_one(server, ask, tmp_path):
    path, name, form = ask("open", REPO, at=server.url)
    assert (name, form) == (REPO, "q4k") and "tiny-Q4_K_M.gguf" in fetched(server)
    assert ask("open", REPO, at=NOWHERE)[0] == path
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}, {"PHI4MINI_OFFLINE": "1"}):
        ask("rm", REPO, at=NOWHERE)
        assert ask("open", REPO, at=NOWHERE, environment=environment)[0] == path
        assert "the hub cannot be asked; tiny-Q4_K_M.gguf from its cache is used" in (tmp_path / "stderr").read_text()


def test_GG9_a_quantisation_that_is_not_there_is_answered_with_those_that_are(server, ask):
    told = ask("open", f"{REPO}:Q3_K_M", at=server.url)
    assert told.startswith(
        f"NotFound {REPO} has no GGUF 'Q3_K_M'; there are Q5_K_M/tiny-Q5_K_M-00001-of-00003.gguf, tiny-Q4"
    )
    assert "mmproj" not in told and fetched(server) == [] and "\n" not in told
    (server.folder / "tiny-Q4_K_M.gguf").unlink()
    told = ask("open", REPO, at=server.url)
    assert told.startswith(f"NotFound {REPO} has no Q4_K_M among its GGUFs, so one must be named; there are ")


def test_GG9_a_repository_or_a_network_that_is_not_there(server, ask):
    assert ask("open", "someone/other:Q4_0", at=server.url).startswith(
        "NotFound someone/other: the hub has no such model"
    )
    told = ask("open", f"{REPO}:Q4_K_M", at=NOWHERE)
    assert told.startswith("NotFound no network: the Hugging Face hub cannot be reached") and "\n" not in told


def test_safetensors_stay_what_a_plain_name_means(tmp_path, ask):
    folder = small_folder(tmp_path / "both")
    write_gguf(folder / "tiny-Q4_K_M.gguf", MODEL, default="Q4_K")
    both = FakeHub(folder, REPO)
    try:
        assert ask("open", REPO, at=both.url)[2] == "q4"
        assert "tiny-Q4_K_M.gguf" not in fetched(both)
        assert ask("open", f"{REPO}:Q4_K_M", at=both.url)[2] == "q4k"
        assert ask("fetch", REPO, at=NOWHERE, environment={"HF_HUB_OFFLINE": "1"}).split("/")[-2] == "snapshots"
    finally:
        both.close()
