"""An opened model in someone else's format: config, tokenizer, chat format, and every array readable by rows.

Promises: an opened checkpoint has exactly the tensors its config asks for, each of the right shape; otherwise one
`BadCheckpoint` line lists all differences. No tensor has been read yet. It does not know files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from phi4mini.config import Config
from phi4mini.errors import BadCheckpoint
from phi4mini.weights import names
from phi4mini.weights.chat_format import recognise, turn_end
from phi4mini.weights.rows import Fused, Rows

if TYPE_CHECKING:
    from phi4mini.tokenizer import Tokenizer

_MOST_NAMED = 6  # tensors a line names of each kind


@dataclass
class Checkpoint:
    """`arrays`: our name -> rows, a vector being one row. `where` names it in messages."""

    where: str
    config: Config
    tokenizer: Tokenizer
    chat_format: str
    arrays: dict[str, Fused]


def assemble(
    where: str,
    config: Config,
    dialect: names.Dialect,
    shapes: Mapping[str, Sequence[int]],
    open_part: Callable[[str, int, str], Rows],
    ignored: Collection[str] = (),
) -> dict[str, Fused]:
    """Our arrays from a checkpoint's tensors (`shapes`). open_part(our name, which part, their name) reads one.

    Raises `BadCheckpoint` with all missing, unexpected and misshapen tensors in one line.
    """
    wanted = names.parts(config, dialect, shapes)
    theirs = {part.name: part for parts in wanted.values() for part in parts}
    missing = [name for name in theirs if name not in shapes]
    extra = [name for name in shapes if name not in theirs and name not in ignored]
    wrong = [
        f"{name} {list(shapes[name])} instead of {list(part.shape)}"
        for name, part in theirs.items()
        if name in shapes and tuple(shapes[name]) != part.shape
    ]
    told = [_listed("missing", missing), _listed("unexpected", extra), _listed("of another shape", wrong)]
    if any(told):
        raise BadCheckpoint(f"{where}: tensors do not fit the config: {'; '.join(filter(None, told))}")
    return {
        ours: Fused([open_part(ours, i, part.name) for i, part in enumerate(parts)]) for ours, parts in wanted.items()
    }


def finish(config: Config, tokenizer: Tokenizer, template: object, where: str) -> tuple[Config, str]:
    """The config with every stop id there is reason for, and the chat format.

    Stops are the config's, the tokenizer's eos, and the id that ends a turn in the chat format: conversions are known
    to lose the last one, and a model without it talks on for ever. Phi-4-mini's config.json names only 199999.
    """
    chat_format = recognise(template, tokenizer, where)
    mark = turn_end(chat_format)
    end = None if mark is None else tokenizer.id_of(mark)
    lost = [] if end is None or end in config.eos_token_ids else [end]
    ids = [*lost, *config.eos_token_ids, *tokenizer.eos_ids]
    if tokenizer.vocab_size > config.vocab_size:
        raise BadCheckpoint(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size} rows"
        )
    return replace(config, eos_token_ids=tuple(dict.fromkeys(ids))), chat_format


def _listed(what: str, some: list[str]) -> str:
    if not some:
        return ""
    more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
    return f"{len(some)} {what} ({', '.join(some[:_MOST_NAMED])}{more})"
