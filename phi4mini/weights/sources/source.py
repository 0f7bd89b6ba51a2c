"""`Source`: the meaning of a model's name, as a kind and a place, before any file is opened.

Promises: a source is a value; equal sources mean the same model. This file does not know how names are parsed
(resolve.py).
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
    """The meaning of a name. `path`: the file or folder, if it is one; `layers`: of a synthetic model; `variant`: the
    quantisation or file of a hub repository's GGUF (in `name` it follows a colon).
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
        """True for Phi-4-mini-instruct on the hub, whose config and tokenizer this package ships."""
        return self.kind == "hub" and self.name == DEFAULT

    @property
    def full_name(self) -> str:
        """The name for headers and messages: a path is made absolute, so that it cannot be taken for a hub id."""
        return self.name if self.path is None else os.path.abspath(self.path)

    @property
    def label(self) -> str:
        """The name as part of a file name, for people; not unique."""
        label = self.name
        if self.path is not None:
            label = self.path.stem if self.kind == "gguf" else self.path.resolve().name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", label.replace("/", "--").replace(":", "-"))[:80].strip("-.") or "model"
