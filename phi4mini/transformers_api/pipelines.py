"""`pipeline("text-generation", ...)`: text or messages in, dictionaries with `generated_text` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import LOADING, generation_arguments, refuse_unknown
from phi4mini.transformers_api.model import AutoModelForCausalLM, CausalLM
from phi4mini.transformers_api.tokenizer import AutoTokenizer, PretrainedTokenizer


class TextGenerationPipeline:
    """`pipe(messages)` or `pipe(text)` -> [{"generated_text": ...}]; a list of those -> a list of such lists."""

    task = "text-generation"

    def __init__(self, model: CausalLM, tokenizer: PretrainedTokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    def __call__(self, text_inputs: Any, *, return_full_text: bool = True, **arguments: Any) -> list[Any]:
        """`return_full_text`: the prompt and the answer; for messages, the list with the assistant's message added."""
        if isinstance(text_inputs, str) or _is_conversation(text_inputs):
            return [{"generated_text": self._answer(text_inputs, return_full_text, arguments)}]
        if not isinstance(text_inputs, Sequence) or not text_inputs:
            raise BadInput(f"a pipeline takes a text, a list of messages, or a list of those, not {text_inputs!r:.60}")
        return [self(each, return_full_text=return_full_text, **arguments) for each in text_inputs]

    def _answer(self, prompt: Any, full: bool, arguments: dict[str, Any]) -> Any:
        if isinstance(prompt, str):
            text = self._continue(self.tokenizer.encode(prompt), arguments)
            return prompt + text if full else text
        ids = self.tokenizer.apply_chat_template(prompt, add_generation_prompt=True)
        text = self._continue(ids, arguments)
        return [*prompt, {"role": "assistant", "content": text}] if full else text

    def _continue(self, ids: list[int], arguments: dict[str, Any]) -> str:
        new = self.model.llm.generate(ids, **generation_arguments(arguments, len(ids))).ids
        return self.tokenizer.decode(new, skip_special_tokens=True)


def pipeline(
    task: str,
    model: CausalLM | str | None = None,
    tokenizer: PretrainedTokenizer | str | None = None,
    **loading: Any,
) -> TextGenerationPipeline:
    """A text-generation pipeline. A model given by name is loaded with `loading`, as `from_pretrained` takes it."""
    if task != TextGenerationPipeline.task:
        raise BadInput(f"pipeline {task!r} is not here; there is 'text-generation'")
    if isinstance(model, CausalLM):
        refuse_unknown("pipeline", loading, LOADING)
        loaded = model
    else:
        loaded = AutoModelForCausalLM.from_pretrained(model or "microsoft/Phi-4-mini-instruct", **loading)
    if tokenizer is None:
        tokenizer = PretrainedTokenizer(loaded.llm.tokenizer, loaded.llm.chat_format)
    return TextGenerationPipeline(
        loaded, AutoTokenizer.from_pretrained(tokenizer) if isinstance(tokenizer, str) else tokenizer
    )


def _is_conversation(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Mapping)
