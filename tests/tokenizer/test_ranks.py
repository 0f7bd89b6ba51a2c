"""The shipped vocabulary is o200k_base, byte for byte, and the script that packs it makes the same file."""

from __future__ import annotations

import base64
import hashlib

import pytest

from phi4mini.tokenizer import ranks
from scripts import build_ranks
from tests.shared import SHARED, needs_shared


def test_sha256_of_the_rebuilt_file():
    expected = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    assert hashlib.sha256(ranks.tiktoken_file()).hexdigest() == expected


def test_shipped_file_stays_small():
    assert ranks.PATH.stat().st_size < 900_000


def test_packing_again_gives_the_shipped_file():
    tokens = [base64.b64decode(line.split()[0]) for line in ranks.tiktoken_file().splitlines()]
    assert build_ranks.pack(tokens) == ranks.PATH.read_bytes()


def test_merges_are_one_for_every_token_that_is_not_a_byte():
    vocabulary, merges = ranks.vocabulary_and_merges()
    assert len(vocabulary) == ranks.COUNT and len(merges) == ranks.COUNT - 256
    assert [vocabulary[left + right] for left, right in merges] == sorted(vocabulary[a + b] for a, b in merges)


@needs_shared
def test_script_reads_the_official_file(tmp_path, capsys):
    build_ranks.main([str(SHARED / "facts" / "o200k_base.tiktoken.xz"), str(tmp_path / "packed")])
    assert (tmp_path / "packed").read_bytes() == ranks.PATH.read_bytes()
    assert "893320 bytes" in capsys.readouterr().out


def test_script_refuses_another_file(tmp_path):
    (tmp_path / "x.tiktoken").write_bytes(b"IQ== 0\n")
    with pytest.raises(SystemExit, match="sha256 is"):
        build_ranks.main([str(tmp_path / "x.tiktoken")])
