"""A causal language model with the methods of transformers': `from_pretrained`, `generate`, a call for logits.

Promises: results are arrays of the kind that was given (NumPy, torch, lists); rows are computed together, and each
row's tokens are those it has alone. It does not know text (`pipelines.py` does).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import check_on_cpu, not_here, quant_of_dtype, taken, whole
from phi4mini.transformers_api.configs import ModelConfig
from phi4mini.transformers_api.generation import GenerationConfig, ends_of
from phi4mini.transformers_api.ids import as_kind, kind_of, masks_of, rows_of, without_padding
from phi4mini.transformers_api.outputs import ModelOutput, mean_loss
from phi4mini.transformers_api.rows import generate
from phi4mini.transformers_api.special import end_of_text

if TYPE_CHECKING:
    import numpy as np

    from phi4mini.llm.model import Model


class AutoModelForCausalLM:
    """`from_pretrained` gives a `CausalLM`."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str,
        *,
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
        from phi4mini.llm.model import generation_defaults, load

        taken("AutoModelForCausalLM.from_pretrained", others)
        name = str(pretrained_model_name_or_path)
        chosen = quant or quant_of_dtype(torch_dtype if dtype is None else dtype)
        model = load(name, quant=chosen, kv=kv, threads=threads, ctx=ctx, offline=local_files_only)
        return CausalLM(model, generation_defaults(name))


class Device(str):
    """The CPU: the text "cpu", with the type that torch's device has."""

    type = "cpu"


class CausalLM:
    """A loaded model as transformers has it: `generate`, and a call for logits. `llm` is ours."""

    device = Device("cpu")
    training = False

    def __init__(self, model: Model, defaults: dict[str, Any] | None = None) -> None:
        """`defaults`: the checkpoint's generation_config.json, special ids left out."""
        self.llm = model
        self.config = ModelConfig(model.config, model.name, end_of_text(model.tokenizer))
        self.generation_config = GenerationConfig.from_file(defaults or {})
        self.generation_config.update(**ends_of(model.config))

    def __getattr__(self, name: str) -> Any:
        raise not_here(self, name)

    # ---- methods of torch's modules that have nothing to do here

    @property
    def dtype(self) -> Any:
        """The type of all computation: float32, torch's if torch is imported, else NumPy's."""
        import numpy as np

        return getattr(sys.modules.get("torch"), "float32", np.dtype("float32"))

    @property
    def name_or_path(self) -> str:
        return self.llm.name

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Weights of the model; a tied head counts once."""
        config = self.llm.config
        tables = (1 if config.tie_word_embeddings else 2) * config.vocab_size * config.hidden_size
        return config.num_parameters - tables * exclude_embeddings

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the weights as they lie in memory."""
        return self.llm.store.nbytes

    def eval(self) -> CausalLM:
        """Itself: there is nothing to switch."""
        return self

    def train(self, mode: bool = True) -> CausalLM:
        """Itself for `train(False)`. Raises `BadInput` else: nothing is trained here."""
        if mode:
            raise BadInput("train is not here: nothing is trained here")
        return self

    def requires_grad_(self, requires_grad: bool = True) -> CausalLM:
        """Itself for False. Raises `BadInput` else: nothing is trained here."""
        return self.train(requires_grad)

    def to(self, device: Any = None, **others: Any) -> CausalLM:
        """Itself: everything is on the CPU, in float32. Raises `BadInput` for another device or dtype."""
        check_on_cpu(device, **others)
        return self

    def cpu(self) -> CausalLM:
        """Itself."""
        return self

    def float(self) -> CausalLM:
        """Itself: numbers are computed in float32, whatever the weights are packed in."""
        return self

    # ---- logits and answers

    def __call__(
        self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **others: Any
    ) -> ModelOutput:
        """`.logits` float32 (rows, n, vocab) for ids (n,) or (rows, n), and `.loss` where there are labels."""
        import numpy as np

        used = taken("model", others)
        if input_ids is None:
            raise BadInput("a model is called with ids: pass them first or as input_ids")
        rows, kind = rows_of(input_ids), kind_of(input_ids)
        masks = [[1] * len(row) for row in rows] if attention_mask is None else masks_of(rows, attention_mask)
        if len({len(row) for row in rows}) > 1:
            raise BadInput("rows of different lengths: encode them with padding=True, and pass the attention_mask")
        logits = np.zeros((len(rows), len(rows[0]), self.llm.config.vocab_size), np.float32)
        for i, real in enumerate(without_padding(rows, masks)):
            logits[i, np.flatnonzero(masks[i])] = self.llm.logits(real)
        loss = None if labels is None else self._loss(logits, labels, kind)
        last = whole("logits_to_keep", used.get("logits_to_keep", used.get("num_logits_to_keep", 0)))
        return ModelOutput(loss=loss, logits=as_kind(logits[:, -last:], kind))

    @staticmethod
    def _loss(logits: np.ndarray, labels: Any, kind: str) -> Any:
        import numpy as np

        wanted = np.array(rows_of(labels), np.int64)
        if wanted.shape != logits.shape[:2]:
            raise BadInput(f"labels are of shape {wanted.shape}, input_ids of {logits.shape[:2]}")
        if wanted.max() >= logits.shape[2] or wanted[wanted != -100].min(initial=0) < 0:
            raise BadInput(f"labels must be ids from 0 to {logits.shape[2] - 1}, or -100 for none")
        loss = mean_loss(logits, wanted)
        return loss if kind == "np" else as_kind(np.array(loss), kind)

    def generate(self, inputs: Any = None, *, input_ids: Any = None, **arguments: Any) -> Any:
        """Continue each row of ids: int64 (rows, longest), prompts included, shorter rows filled with the pad id.

        Greedy unless `do_sample=True`; then `temperature` 1.0, `top_k` 50 and `top_p` 1.0 unless given, as in
        transformers. Without `max_new_tokens` or `max_length` it goes on to the model's end or the end of the context.
        `return_dict_in_generate=True` gives a `ModelOutput`. `docs/python.md` lists all arguments.
        """
        return generate(self, inputs if input_ids is None else input_ids, arguments)

    def compute_transition_scores(
        self, sequences: Any, scores: Sequence[Any], beam_indices: None = None, normalize_logits: bool = False
    ) -> Any:
        """The score of each new token (rows, steps) of `generate`'s sequences; normalised, its log-probability."""
        import numpy as np

        kind, ids = kind_of(sequences), np.array(rows_of(sequences))[:, -len(scores) :]
        table = np.stack([np.asarray(step, np.float64) for step in scores], axis=1)  # (rows, steps, vocab)
        if normalize_logits:
            table = table - table.max(-1, keepdims=True)
            table = table - np.log(np.exp(table).sum(-1, keepdims=True))
        return as_kind(np.take_along_axis(table, ids[..., None], -1)[..., 0].astype(np.float32), kind)
