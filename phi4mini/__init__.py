"""Phi-4-mini-instruct as one complete system in Python, on your own CPU.

    import phi4mini
    model = phi4mini.load("demo")
    print(model.chat("Why is the sky blue?").content)

Promises: importing this package imports none of its rooms; a name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi4mini import chat, tokenizer
    from phi4mini.errors import Phi4MiniError
    from phi4mini.llm.model import Model, load
    from phi4mini.transformers_api import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        BaseStreamer,
        BitsAndBytesConfig,
        GenerationConfig,
        MaxTimeCriteria,
        StoppingCriteria,
        StoppingCriteriaList,
        TextGenerationPipeline,
        TextIteratorStreamer,
        TextStreamer,
        pipeline,
        set_seed,
    )

__version__ = "0.1.0"

__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "BaseStreamer",
    "BitsAndBytesConfig",
    "GenerationConfig",
    "MaxTimeCriteria",
    "Model",
    "Phi4MiniError",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "TextGenerationPipeline",
    "TextIteratorStreamer",
    "TextStreamer",
    "__version__",
    "chat",
    "load",
    "pipeline",
    "set_seed",
    "tokenizer",
]

_HOMES = {  # exported name -> its module
    "AutoConfig": "transformers_api",
    "AutoModelForCausalLM": "transformers_api",
    "AutoTokenizer": "transformers_api",
    "BaseStreamer": "transformers_api",
    "BitsAndBytesConfig": "transformers_api",
    "GenerationConfig": "transformers_api",
    "MaxTimeCriteria": "transformers_api",
    "Model": "llm.model",
    "Phi4MiniError": "errors",
    "StoppingCriteria": "transformers_api",
    "StoppingCriteriaList": "transformers_api",
    "TextGenerationPipeline": "transformers_api",
    "TextIteratorStreamer": "transformers_api",
    "TextStreamer": "transformers_api",
    "load": "llm.model",
    "pipeline": "transformers_api",
    "set_seed": "transformers_api",
}
_ROOMS = ("chat", "tokenizer")  # usable as phi4mini.chat.render(...) without an import of their own


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"phi4mini.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'phi4mini' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"phi4mini.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_ROOMS])
