"""Reads demo.json and prose.txt: what transformers answered with the demo model's weights in float32."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Chat:
    """One question and its greedy answer. No margin is below 0.013 nats: float32 rounding cannot overturn one."""

    question: str
    prompt: list[int]  # ids of the whole prompt, system turn and generation prompt included
    greedy: list[int]  # at most 64 ids; the last is the stop id 2 when the model stopped
    logprobs: list[float]  # of each greedy id
    margins: list[float]  # log-probability of each greedy id less that of the best other one


def chats() -> list[Chat]:
    """The twelve chats."""
    return [Chat(**chat) for chat in json.loads((HERE / "demo.json").read_text())["chats"]]


def prose_chunks(encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """prose.txt as eight chunks of 1024 ids by the demo's tokenizer; raises if they are not the golden file's."""
    golden = json.loads((HERE / "demo.json").read_text())["perplexity"]
    ids = list(encode((HERE / "prose.txt").read_text(encoding="utf-8")))[: golden["tokens"]]
    if hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest() != golden["ids_sha256"]:
        raise ValueError("the ids of prose.txt are not those the golden file was made with")
    return [ids[i : i + golden["chunk"]] for i in range(0, len(ids), golden["chunk"])]


def prose_sums() -> list[float]:
    """For each chunk, alone and without a begin-of-text id, the sum of -log p over its 1023 ids after the first."""
    return json.loads((HERE / "demo.json").read_text())["perplexity"]["nll_sums"]
