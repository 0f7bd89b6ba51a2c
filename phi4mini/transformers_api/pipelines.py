"""`pipeline("text-generation", ...)`: text or messages in, dictionaries with `generated_text` out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import taken
from phi4mini.transformers_api.model import AutoModelForCausalLM, CausalLM, Device
from phi4mini.transformers_api.rows import continuations
from phi4mini.transformers_api.tables import GENERATING, METHODS
from phi4mini.transformers_api.tokenizer import AutoTokenizer, PretrainedTokenizer

_LOADING = "AutoModelForCausalLM.from_pretrained"
_HERE = tuple(name for name in METHODS["pipe"] if name not in GENERATING)  # the pipeline's own, not generate's


class TextGenerationPipeline:
    """`pipe(messages)` or `pipe(text)` -> [{"generated_text": ...}]; a list of those -> a list of such lists."""

    task = "text-generation"
    device = Device("cpu")

    def __init__(self, model: CausalLM, tokenizer: PretrainedTokenizer, **defaults: Any) -> None:
        """`defaults`: arguments for calls that do not give their own."""
        taken("pipe", defaults)
        self.model = model
        self.tokenizer = tokenizer
        self.defaults = defaults

    @property
    def generation_config(self) -> Any:
        return self.model.generation_config

    def __call__(self, text_inputs: Any, **arguments: Any) -> Any:
        """Continue a text or answer messages; a list of them is computed together, a generator one by one.

        A last message of the assistant is continued and comes back merged, as in transformers. `docs/python.md` lists
        all arguments. Raises `BadInput` for what cannot be honoured.
        """
        told = self.defaults | arguments
        used = taken("pipe", told)
        if isinstance(text_inputs, str) or _is_conversation(text_inputs):
            return self._answers([text_inputs], told, used)[0]
        if isinstance(text_inputs, Iterator):
            return (self(each, **arguments) for each in text_inputs)
        if not isinstance(text_inputs, Sequence) or not text_inputs:
            raise BadInput(f"a pipeline takes a text, a list of messages, or a list of those, not {text_inputs!r:.60}")
        wrong = [each for each in text_inputs if not isinstance(each, str) and not _is_conversation(each)]
        if wrong:
            raise BadInput(f"a pipeline takes a text or a list of messages, not {wrong[0]!r:.60}")
        return self._answers(list(text_inputs), told, used)

    def _answers(self, prompts: list[Any], told: Mapping[str, Any], used: Mapping[str, Any]) -> list[list[Any]]:
        """The records of each prompt."""
        ids = [self._ids(prompt, used) for prompt in prompts]
        generating = {name: value for name, value in told.items() if name in GENERATING and name not in _HERE}
        if "stop_sequence" in used:
            generating["stop_strings"] = used["stop_sequence"]
        made = continuations(self.model, ids, generating)
        return [
            [self._record(prompt, row, new, used) for new in answers]
            for prompt, row, answers in zip(prompts, ids, made, strict=True)
        ]

    def _ids(self, prompt: Any, used: Mapping[str, Any]) -> list[int]:
        cut = {name: used[name] for name in ("truncation", "max_length") if name in used and "truncation" in used}
        if isinstance(prompt, str):
            text = used["prefix"] + prompt if "prefix" in used else prompt
            return list(self.tokenizer.encode(text, used.get("parse_special"), **cut))
        go_on = self._goes_on(prompt, used)
        return list(
            self.tokenizer.apply_chat_template(
                prompt,
                used.get("tools"),
                add_generation_prompt=not go_on,
                continue_final_message=go_on,
                sanitize_control_tokens=not used.get("parse_special", False),
                return_dict=False,
                **cut,
            )
        )

    @staticmethod
    def _goes_on(prompt: Any, used: Mapping[str, Any]) -> bool:
        """True if the last message is to be continued: by the argument, else if it is the assistant's."""
        return bool(used.get("continue_final_message", prompt[-1].get("role") == "assistant"))

    def _record(self, prompt: Any, ids: list[int], new: list[int], used: Mapping[str, Any]) -> dict[str, Any]:
        if used.get("return_tensors"):
            return {"generated_token_ids": ids + new}
        text = self.tokenizer.decode(new, skip_special_tokens=used.get("skip_special_tokens", True))
        if not used.get("return_full_text", True):
            return {"generated_text": text}
        if isinstance(prompt, str):
            return {"generated_text": prompt + text}
        if not self._goes_on(prompt, used):
            return {"generated_text": [*prompt, {"role": "assistant", "content": text}]}
        begun = prompt[-1]["content"]
        if not isinstance(begun, str):
            begun = "".join(part["text"] for part in begun)
        return {"generated_text": [*prompt[:-1], {"role": "assistant", "content": begun + text}]}


def pipeline(
    task: str | None = None,
    model: CausalLM | str | None = None,
    tokenizer: PretrainedTokenizer | str | None = None,
    **others: Any,
) -> TextGenerationPipeline:
    """A text-generation pipeline. `others`: arguments for loading a model by name, and defaults of every call."""
    if task is not None and task != TextGenerationPipeline.task:
        raise BadInput(f"pipeline {task!r:.60} is not here; there is 'text-generation'")
    rules = METHODS["pipeline"]
    calling = {name: value for name, value in others.items() if name in METHODS["pipe"] and name not in rules}
    loading = {name: value for name, value in others.items() if name not in calling}
    used = taken("pipeline", loading)
    loading = {name: value for name, value in loading.items() if name in METHODS[_LOADING]}
    loading |= used.get("model_kwargs", {})
    if isinstance(model, CausalLM):
        taken(_LOADING, loading)
        loaded = model
    else:
        loaded = AutoModelForCausalLM.from_pretrained(model or "microsoft/Phi-4-mini-instruct", **loading)
    if tokenizer is None:
        tokenizer = tokenizer_of(loaded)
    return TextGenerationPipeline(
        loaded, AutoTokenizer.from_pretrained(tokenizer) if isinstance(tokenizer, str) else tokenizer, **calling
    )


def tokenizer_of(model: CausalLM) -> PretrainedTokenizer:
    """The tokenizer of a loaded model."""
    made = PretrainedTokenizer(model.llm.tokenizer, model.llm.chat_format)
    made.name_or_path, made.model_max_length = model.llm.name, model.llm.config.max_position_embeddings
    return made


def _is_conversation(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Mapping)
