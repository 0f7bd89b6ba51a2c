"""An opened checkpoint: config, tokenizer, chat format, and a reader for every array.

Promises: an opened checkpoint has exactly the tensors that its config implies, each of the right shape; otherwise one
`BadCheckpoint` line lists all differences. Opening reads no tensor. This file does not know file formats.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from phi4mini.errors import BadCheckpoint
from phi4mini.model.config import Config
from phi4mini.weights.checkpoints import tensor_names
from phi4mini.weights.checkpoints.chat_template import Chat, check_chosen, recognise, with_stops
from phi4mini.weights.checkpoints.row_reader import Fused, Rows

if TYPE_CHECKING:
    from phi4mini.tokenizer import Tokenizer

_MOST_NAMED = 6  # tensors a line names of each kind


@dataclass
class Checkpoint:
    """`arrays`: our name -> rows, a vector being one row. `where` names it in messages."""

    where: str
    config: Config
    tokenizer: Tokenizer
    chat: Chat
    arrays: dict[str, Fused]

    @property
    def chat_format(self) -> str:
        """The name of the chat format; "none" if it is not known."""
        return self.chat.name

    def in_format(self, chat_format: str) -> Checkpoint:
        """The same model in a chat format that the user names. Raises `BadInput` if its tokenizer lacks the tokens."""
        check_chosen(chat_format, self.tokenizer)
        config = with_stops(self.config, self.tokenizer, chat_format)
        return replace(self, config=config, chat=Chat(chat_format))


def assemble(
    where: str,
    config: Config,
    dialect: tensor_names.Dialect,
    shapes: Mapping[str, Sequence[int]],
    open_part: Callable[[str, int, str], Rows],
    ignored: Collection[str] = (),
) -> dict[str, Fused]:
    """Our arrays from a checkpoint's tensors (`shapes`). open_part(our name, which part, their name) reads one.

    Raises `BadCheckpoint` with all missing, unexpected and misshapen tensors in one line.
    """
    wanted = tensor_names.parts(config, dialect, shapes)
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


def finish(config: Config, tokenizer: Tokenizer, template: object, where: str) -> tuple[Config, Chat]:
    """The config with all stop ids (`with_stops`), and the recognised chat format."""
    if tokenizer.vocab_size > config.vocab_size:
        raise BadCheckpoint(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size} rows"
        )
    chat = recognise(template, tokenizer, where)
    return with_stops(config, tokenizer, chat.name), chat


def _listed(what: str, some: list[str]) -> str:
    if not some:
        return ""
    more = f" and {len(some) - _MOST_NAMED} more" if len(some) > _MOST_NAMED else ""
    return f"{len(some)} {what} ({', '.join(some[:_MOST_NAMED])}{more})"
