"""A tiny checkpoint that can chat: a golden twin whose tokenizer has Phi's control tokens and the official template.

Made of the golden files alone, so that it needs neither torch nor network; transformers opens it too.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.golden import twins

TWIN = "phi3_longrope"
TEMPLATES = Path(__file__).parent / "chat" / "templates.json"
ROLES = ("<|assistant|>", "<|end|>", "<|user|>", "<|system|>")
TOOLS = ("<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>")
END_OF_TEXT, FIRST = 319, 320  # the twin's own control token, and the first of ours
ID = {token: FIRST + i for i, token in enumerate((*ROLES, *TOOLS))} | {"<|endoftext|>": END_OF_TEXT}
ROWS = 330  # one row is free


def write(folder: Path) -> Path:
    """The checkpoint's files; ids are those of `ID`. Rows of control tokens are small: no greedy answer meets one."""
    source = twins.HERE / TWIN
    folder.mkdir(parents=True, exist_ok=True)
    tensors = twins.arrays(source / "model.safetensors")
    rows = np.random.default_rng(3).standard_normal((ROWS - FIRST, 128)).astype(np.float32) * 0.025
    tensors["model.embed_tokens.weight"] = np.concatenate([tensors["model.embed_tokens.weight"], rows])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    _put(folder, "config.json", config | {"vocab_size": ROWS, "dtype": "float32"})
    ends = {"eos_token_id": [ID["<|end|>"], END_OF_TEXT], "bos_token_id": END_OF_TEXT, "pad_token_id": END_OF_TEXT}
    _put(folder, "generation_config.json", ends)
    tree = json.loads((source / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": True, "normalized": False}
    tree["added_tokens"] += [
        {"id": ID[token], "content": token, **flags, "special": token in ROLES} for token in (*ROLES, *TOOLS)
    ]
    _put(folder, "tokenizer.json", tree)
    named = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    template = json.loads(TEMPLATES.read_text())["phi"]
    _put(folder, "tokenizer_config.json", named | {"chat_template": template})
    return folder


def _put(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
