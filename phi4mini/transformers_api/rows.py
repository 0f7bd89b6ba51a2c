"""`generate`: rows of ids in, rows of ids out. Rows are computed together; each row's tokens are those it has alone.

Promises: every argument goes through `arguments.py`; a streamer is ended even after an error, so that its reader does
not wait for ever; criteria are called once for each token of each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import generation_arguments, taken, whole
from phi4mini.transformers_api.generation import GenerationConfig, layered, next_seed
from phi4mini.transformers_api.ids import (
    Kind,
    as_kind,
    filled,
    flat,
    kind_of,
    masks_of,
    rows_of,
    without_padding,
)
from phi4mini.transformers_api.outputs import ModelOutput
from phi4mini.transformers_api.stopping import MaxTimeCriteria, StoppingCriteriaList, criteria_of

if TYPE_CHECKING:
    import numpy as np

    from phi4mini.llm.model import Model
    from phi4mini.llm.results import Generation, Stream
    from phi4mini.transformers_api.configs import ModelConfig

_SEEDS = 2**64
_CHANGE_LOGITS = ("repetition_penalty", "banned_ids", "min_new_tokens", "temperature")


class Generator(Protocol):
    """The three parts of a `CausalLM` that are needed here."""

    llm: Model
    config: ModelConfig
    generation_config: GenerationConfig


@dataclass
class _Row:
    """One answer to make: its prompt as given, the prompt without padding, and the sampling keywords."""

    given: list[int]
    real: list[int]
    sampling: dict[str, Any]


@dataclass
class _Watchers:
    """The streamer and the criteria: both get each token, a criterion may end the row with it."""

    kind: Kind
    streamer: Any
    criteria: StoppingCriteriaList

    def begin(self, row: _Row) -> None:
        if self.streamer is not None:
            self.streamer.put(self._array([row.given]))

    def ends(self, row: _Row, new: list[int]) -> bool:
        """Hand on the last of `new`; True if a criterion ends the row with it."""
        if self.streamer is not None:
            self.streamer.put(self._array(new[-1:]))
        return bool(self.criteria) and self.criteria(self._array([row.given + new]), None)

    def _array(self, ids: Any) -> Any:
        import numpy as np

        return as_kind(np.array(ids, np.int64), self.kind)


def generate(model: Generator, prompts: Any, arguments: Mapping[str, Any]) -> Any:
    """`CausalLM.generate`, which documents it."""
    streamer = arguments.get("streamer")
    if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise BadInput(f"generate: streamer must have put() and end(), {type(streamer).__name__} has not")
    try:
        return _generate(model, prompts, arguments)
    finally:
        if streamer is not None:
            streamer.end()


def _generate(model: Generator, prompts: Any, arguments: Mapping[str, Any]) -> Any:
    import numpy as np

    if prompts is None:
        raise BadInput("generate needs ids: pass them first or as input_ids")
    used = _told(model, arguments)
    rows = _rows(model, rows_of(prompts), used)
    kind = kind_of(prompts, used.get("attention_mask"))
    _check_scores(rows, used)
    new = _answers(model, rows, _watchers(rows, used, kind))
    made = [row.given + ids for row, ids in zip(rows, new, strict=True)]
    sequences = as_kind(np.array(filled(made, _fill(model, used), max(map(len, made))), np.int64), kind)
    if not used.get("return_dict_in_generate"):
        return sequences
    return ModelOutput(sequences=sequences, **_steps(model, rows, new, used, kind))


def continuations(model: Generator, prompts: list[list[int]], arguments: Mapping[str, Any]) -> list[list[list[int]]]:
    """The new ids alone: `num_return_sequences` answers for each prompt. Takes the arguments of `generate`."""
    used = _told(model, arguments)
    rows = _rows(model, prompts, used)
    new = _answers(model, rows, _watchers(rows, used, "np"))
    copies = len(rows) // len(prompts)
    return [new[i : i + copies] for i in range(0, len(new), copies)]


def _told(model: Generator, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in force: the call's own over the configs'."""
    return taken("generate", layered(model.generation_config, arguments.get("generation_config"), arguments))


def _watchers(rows: list[_Row], used: Mapping[str, Any], kind: Kind) -> _Watchers:
    watchers = _Watchers(kind, used.get("streamer"), criteria_of(used.get("stopping_criteria", ())))
    if "max_time" in used:
        if not isinstance(used["max_time"], (int, float)):
            raise BadInput(f"max_time is in seconds, not {used['max_time']!r:.40}")
        watchers.criteria.append(MaxTimeCriteria(used["max_time"]))
    if watchers.streamer is not None and len(rows) > 1:
        raise BadInput(f"generate: a streamer takes one row, got {len(rows)}")
    return watchers


def _rows(model: Generator, given: list[list[int]], used: dict[str, Any]) -> list[_Row]:
    """The answers to make; the copies that `num_return_sequences` asks for stand beside their original."""
    masks = masks_of(given, used["attention_mask"]) if "attention_mask" in used else _inferred(model, given, used)
    copies = whole("num_return_sequences", used.get("num_return_sequences", 1), least=1)
    if copies > 1 and not used.get("do_sample"):
        raise BadInput(f"num_return_sequences {copies} without do_sample=True would be {copies} times the same answer")
    plain = {name: value for name, value in used.items() if name != "eos_token_id" or not _own_ends(model, value)}
    rows = []
    for row, real in zip(given, without_padding(given, masks), strict=True):
        sampling = generation_arguments(plain, len(row))
        for copy in range(copies):
            seed = next_seed() if "seed" not in sampling else (whole("seed", sampling["seed"]) + copy) % _SEEDS
            drawn = {"seed": seed} if seed is not None and "temperature" in sampling else {}
            rows.append(_Row(row, real, sampling | drawn))
    return rows


def _own_ends(model: Generator, ends: Any) -> bool:
    """True if these are the model's own end ids, which the engine applies by itself."""
    return set(flat(ends)) == set(model.llm.config.eos_token_ids)


def _inferred(model: Generator, rows: list[list[int]], used: Mapping[str, Any]) -> list[list[int]]:
    """The mask when none is given: as in transformers, a pad id that is no end id is taken for padding."""
    pad = whole("pad_token_id", used.get("pad_token_id", -1), least=-1)
    padding = {pad} - set(flat(used.get("eos_token_id", model.llm.config.eos_token_ids)))
    return [[int(id not in padding) for id in row] for row in rows]


def _fill(model: Generator, used: Mapping[str, Any]) -> int:
    """The id that fills shorter rows: the pad id, else the first end id, as in transformers."""
    ends = (*flat(used.get("eos_token_id", ())), *model.llm.config.eos_token_ids)
    candidates = (used.get("pad_token_id"), model.config.pad_token_id, *ends)
    return next((whole("pad_token_id", id) for id in candidates if id is not None and id != -1), 0)


def _answers(model: Generator, rows: list[_Row], watchers: _Watchers) -> list[list[int]]:
    """New ids of each row. A single row without streamer and criteria needs no stream."""
    if len(rows) == 1 and watchers.streamer is None and not watchers.criteria:
        return [model.llm.generate(rows[0].real, **rows[0].sampling).ids]
    open_rows: list[tuple[_Row, Stream[int, Generation], list[int]]] = []
    for row in rows:
        watchers.begin(row)
        open_rows.append((row, model.llm.stream_ids(row.real, **row.sampling), []))
    new = [ids for _, _, ids in open_rows]
    try:
        while open_rows:  # round-robin, so that one pass of the engine serves all rows
            open_rows = [each for each in open_rows if _goes_on(*each, watchers)]
    finally:
        for _, stream, _ in open_rows:
            stream.close()
    return new


def _goes_on(row: _Row, stream: Stream[int, Generation], new: list[int], watchers: _Watchers) -> bool:
    """Take the next id of a row; False when the row is over."""
    id = next(stream, None)
    if id is None:
        return False
    new.append(id)
    if watchers.ends(row, new):
        stream.close()
        return False
    return True


def _check_scores(rows: list[_Row], used: Mapping[str, Any]) -> None:
    """Refuse `output_scores` where a parameter changes the logits: only the model's own logits can be returned."""
    changing = next((name for name in _CHANGE_LOGITS for row in rows if row.sampling.get(name)), None)
    if used.get("output_scores") and changing is not None:
        raise BadInput(f"generate: output_scores is not here where {changing} changes them; use output_logits")


def _steps(
    model: Generator, rows: list[_Row], new: list[list[int]], used: Mapping[str, Any], kind: Kind
) -> dict[str, Any]:
    """`logits` and `scores` if asked for: for each step float32 (rows, vocab), 0 after a row has ended."""
    import numpy as np

    if not (used.get("output_scores") or used.get("output_logits")):
        return {}
    table = np.zeros((max(map(len, new)), len(rows), model.llm.config.vocab_size), np.float32)
    for i, (row, ids) in enumerate(zip(rows, new, strict=True)):
        table[: len(ids), i] = _logits_of(model, row.real, ids)
    steps = tuple(as_kind(step, kind) for step in table)
    wanted = {"scores": used.get("output_scores"), "logits": used.get("output_logits")}
    return {name: steps for name, asked in wanted.items() if asked}


def _logits_of(model: Generator, prompt: list[int], new: list[int]) -> np.ndarray:
    """The logits that each new id was drawn from, float32 (new, vocab), in passes that end where LongRoPE changes."""
    import numpy as np

    boundary, whole = model.llm.config.rope_boundary, prompt + new[:-1]
    ends = [len(whole)] if boundary is None or not len(prompt) <= boundary < len(whole) else [boundary, len(whole)]
    parts, at = [], len(prompt) - 1
    for end in ends:
        parts.append(model.llm.logits(whole[:end])[at:])
        at = end
    return np.concatenate(parts)
