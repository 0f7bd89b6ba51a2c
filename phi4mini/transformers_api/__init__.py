"""Code written for Hugging Face transformers, with nothing but its import line changed; torch is not needed.

    from phi4mini import AutoModelForCausalLM, AutoTokenizer, pipeline

Promises: the names, arguments and shapes of results are those of transformers 5; an argument that cannot be honoured is
refused by name with the reason, one that changes nothing here is listed in `docs/python.md` (both from `tables.py`);
code and templates from a model repository are never executed. Arrays are NumPy's, or torch's where torch's came in or
were asked for. It does not know weights or kernels: everything goes through the room `llm`.
"""

from __future__ import annotations

from phi4mini.transformers_api.configs import AutoConfig, BitsAndBytesConfig, ModelConfig
from phi4mini.transformers_api.encodings import BatchEncoding
from phi4mini.transformers_api.generation import GenerationConfig, set_seed
from phi4mini.transformers_api.model import AutoModelForCausalLM, CausalLM
from phi4mini.transformers_api.pipelines import TextGenerationPipeline, pipeline
from phi4mini.transformers_api.rendered import RenderedText
from phi4mini.transformers_api.stopping import MaxTimeCriteria, StoppingCriteria, StoppingCriteriaList
from phi4mini.transformers_api.streamers import BaseStreamer, TextIteratorStreamer, TextStreamer
from phi4mini.transformers_api.tokenizer import AutoTokenizer, PretrainedTokenizer

__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "BaseStreamer",
    "BatchEncoding",
    "BitsAndBytesConfig",
    "CausalLM",
    "GenerationConfig",
    "MaxTimeCriteria",
    "ModelConfig",
    "PretrainedTokenizer",
    "RenderedText",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "TextGenerationPipeline",
    "TextIteratorStreamer",
    "TextStreamer",
    "pipeline",
    "set_seed",
]
