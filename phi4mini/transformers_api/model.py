"""A causal language model with the methods of transformers': `from_pretrained`, `generate`, a call for logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import (
    LOADING,
    ON_CPU,
    check_on_cpu,
    generation_arguments,
    quant_of_dtype,
    refuse_unknown,
)
from phi4mini.transformers_api.ids import rows_of, without_padding

if TYPE_CHECKING:
    import numpy as np

    from phi4mini.config import Config
    from phi4mini.llm import Model


class AutoModelForCausalLM:
    """`from_pretrained` gives a `CausalLM`."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str,
        *,
        device_map: Any = None,
        torch_dtype: Any = None,
        dtype: Any = None,
        local_files_only: bool = False,
        quant: str | None = None,
        kv: str = "int8",
        threads: int | None = None,
        ctx: int | None = None,
        **others: Any,
    ) -> CausalLM:
        """A model by hub id, folder, .gguf or store.

        `torch_dtype` (or `dtype`): "auto" is our default q4, "float32" f32, "bfloat16" bf16; `quant` names any recipe.
        Raises `BadInput` for arguments that cannot be honoured, and what `phi4mini.load` raises.
        """
        from phi4mini.llm import load

        refuse_unknown("from_pretrained", others, LOADING)
        if device_map not in ON_CPU:
            raise BadInput(f"device_map {device_map!r} is not here: this runs on the CPU; use 'auto' or 'cpu'")
        chosen = quant or quant_of_dtype(torch_dtype if dtype is None else dtype)
        model = load(
            str(pretrained_model_name_or_path), quant=chosen, kv=kv, threads=threads, ctx=ctx, offline=local_files_only
        )
        return CausalLM(model)


class CausalLM:
    """A loaded model as transformers has it: `generate`, and a call for logits. `llm` is ours."""

    device = "cpu"

    def __init__(self, model: Model) -> None:
        self.llm = model

    @property
    def config(self) -> Config:
        return self.llm.config

    def eval(self) -> CausalLM:
        """Itself: there is nothing to switch."""
        return self

    def to(self, device: Any) -> CausalLM:
        """Itself: everything is on the CPU. Raises `BadInput` for another device."""
        check_on_cpu(device)
        return self

    def __call__(self, input_ids: Any) -> SimpleNamespace:
        """`.logits` float32 (1, n, vocab) for ids (n,) or (1, n)."""
        rows = rows_of(input_ids)
        if len(rows) != 1:
            raise BadInput(f"logits are for one row at a time, got {len(rows)}")
        return SimpleNamespace(logits=self.llm.logits(rows[0])[None])

    def generate(
        self, inputs: Any = None, *, input_ids: Any = None, attention_mask: Any = None, **arguments: Any
    ) -> np.ndarray:
        """Continue each row of ids: int64 (rows, longest), prompts included, shorter rows filled with the pad id.

        Greedy unless `do_sample=True`; then `temperature` 1.0, `top_k` 50 and `top_p` 1.0 unless given, as in
        transformers. Without `max_new_tokens` or `max_length` it goes on to the model's end or the end of the context.
        """
        import numpy as np

        prompts = inputs if input_ids is None else input_ids
        if prompts is None:
            raise BadInput("generate needs ids: pass them first or as input_ids")
        pad = arguments.pop("pad_token_id", None)
        rows, kept = rows_of(prompts), without_padding(prompts, attention_mask)
        done = [
            row + self.llm.generate(real, **generation_arguments(arguments, len(row))).ids
            for row, real in zip(rows, kept, strict=True)
        ]
        fill = next((i for i in (pad, self.config.pad_token_id, *self.config.eos_token_ids) if i is not None), 0)
        longest = max(map(len, done))
        return np.array([row + [fill] * (longest - len(row)) for row in done], np.int64)
