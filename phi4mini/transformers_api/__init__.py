"""The interface of Hugging Face transformers: code written for it runs with its import line changed, without torch.

    from phi4mini import AutoModelForCausalLM, AutoTokenizer, pipeline

Promises: names, arguments and shapes of results are those of transformers 5; an argument that cannot be honoured is an
error with the reason, an argument without effect is listed in `docs/python.md` (both from `tables.py`); code and
templates of a model repository are never executed. Arrays are NumPy's, or torch's if torch tensors came in or were
asked for. It does not know weights or kernels: it uses `phi4mini.llm` only.
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
