"""What a model's name stands for, before anything is looked at: a kind, and where it is.

Promises: a source is a value; two that are equal mean the same model. It does not know how names are read
(`resolve.py`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT = "microsoft/Phi-4-mini-instruct"
Kind = Literal["hub", "folder", "gguf", "store", "demo", "synthetic"]


@dataclass(frozen=True)
class Source:
    """What a name stands for. `path`: the file or folder, where it is one; `layers`: of a synthetic model; `variant`:
    of a hub id, which of its GGUFs, a quantisation or a file (`name` has it after a colon).
    """

    kind: Kind
    name: str
    path: Path | None = None
    layers: int = 0
    variant: str = ""

    @property
    def repo(self) -> str:
        """The hub id alone."""
        return self.name.partition(":")[0]

    @property
    def is_default(self) -> bool:
        """Whether it is Phi-4-mini-instruct on the hub, whose config and tokenizer are known without its files."""
        return self.kind == "hub" and self.name == DEFAULT

    @property
    def full_name(self) -> str:
        """The name wherever it is said: a path is absolute, so that it is no hub id."""
        return self.name if self.path is None else os.path.abspath(self.path)

    @property
    def label(self) -> str:
        """The name as part of a file name, for people: other models may have the same."""
        label = self.name
        if self.path is not None:
            label = self.path.stem if self.kind == "gguf" else self.path.resolve().name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", label.replace("/", "--").replace(":", "-"))[:80].strip("-.") or "model"
