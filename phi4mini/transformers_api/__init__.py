"""The model card's own sample, with nothing but its import line changed; torch is not needed.

    from phi4mini import AutoModelForCausalLM, AutoTokenizer, pipeline

Promises: the names, arguments and shapes of results are those of Hugging Face transformers; an argument that cannot be
honoured is refused by name, one that changes nothing here is listed in `docs/python.md`; code from a model repository
is never executed. Arrays are NumPy. It does not know weights or kernels: everything goes through `llm.py`.
"""

from __future__ import annotations

from phi4mini.transformers_api.model import AutoModelForCausalLM, CausalLM
from phi4mini.transformers_api.pipelines import TextGenerationPipeline, pipeline
from phi4mini.transformers_api.tokenizer import AutoTokenizer, BatchEncoding, PretrainedTokenizer

__all__ = [
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "BatchEncoding",
    "CausalLM",
    "PretrainedTokenizer",
    "TextGenerationPipeline",
    "pipeline",
]
