"""A tokenizer with the methods of transformers'. Text that spells control tokens stays text unless asked otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from phi4mini.transformers_api.arguments import LOADING, check_on_cpu, refuse_unknown
from phi4mini.transformers_api.ids import flat, tensor

if TYPE_CHECKING:
    from phi4mini.tokenizer import Tokenizer


class AutoTokenizer:
    """`from_pretrained` gives a `PretrainedTokenizer`."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str, *, local_files_only: bool = False, **others: Any
    ) -> PretrainedTokenizer:
        """A tokenizer by the model's name; Phi-4-mini-instruct's own is inside this package and needs no file."""
        from phi4mini.llm import load_tokenizer

        refuse_unknown("from_pretrained", others, LOADING)
        return PretrainedTokenizer(*load_tokenizer(str(pretrained_model_name_or_path), offline=local_files_only))


class BatchEncoding(dict[str, Any]):
    """`input_ids` and `attention_mask`, as items and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device: Any) -> BatchEncoding:
        """Itself: everything is on the CPU."""
        check_on_cpu(device)
        return self


class PretrainedTokenizer:
    """A tokenizer as transformers has it. Plain text never becomes a control token unless `parse_special=True`."""

    def __init__(self, tokenizer: Tokenizer, chat_format: str) -> None:
        self.backend = tokenizer
        self.chat_format = chat_format

    def __len__(self) -> int:
        return len(self.backend)

    @property
    def vocab_size(self) -> int:
        return self.backend.vocab_size

    @property
    def bos_token_id(self) -> int | None:
        return self.backend.bos_id

    @property
    def eos_token_id(self) -> int | None:
        """The end of a text; Phi-4-mini's is `<|endoftext|>`, as its tokenizer_config says, not the turn's end."""
        if self.backend.is_phi4:
            return self.backend.pad_id
        return self.backend.eos_ids[0] if self.backend.eos_ids else None

    @property
    def pad_token_id(self) -> int | None:
        return self.backend.pad_id

    @property
    def bos_token(self) -> str | None:
        return self._name(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        return self._name(self.eos_token_id)

    @property
    def pad_token(self) -> str | None:
        return self._name(self.pad_token_id)

    def _name(self, id: int | None) -> str | None:
        return None if id is None else self.backend.token_text(id)

    def __call__(
        self, text: str | Sequence[str], *, return_tensors: str | None = None, parse_special: bool = False
    ) -> BatchEncoding:
        """Ids and mask of one text, or of several; `return_tensors="np"` wants one length, gives arrays (rows, n)."""
        if not isinstance(text, str):
            ids: Any = [self.encode(each, parse_special) for each in text]
            mask: Any = [[1] * len(row) for row in ids]
        else:
            ids = self.encode(text, parse_special)
            mask = [1] * len(ids)
        if return_tensors is None:
            return BatchEncoding(input_ids=ids, attention_mask=mask)
        return BatchEncoding(input_ids=tensor(ids, return_tensors), attention_mask=tensor(mask, return_tensors))

    def encode(self, text: str, parse_special: bool = False) -> list[int]:
        """Ids of `text`, nothing added; `parse_special=True` reads control tokens in it, as transformers does."""
        return self.backend.encode(text, parse_special)

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """Text of an id, a list or a one-dimensional array of ids."""
        return self.backend.decode(flat(ids), skip_special_tokens)

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        """Text of every row."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or of each; None where there is none."""
        look_up = self.backend.id_of
        return look_up(tokens) if isinstance(tokens, str) else list(map(look_up, tokens))

    def add_tokens(self, new_tokens: str | Sequence[str], special_tokens: bool = False) -> int:
        """Give tokens the next free rows of the model; returns how many were new. Raises `BadInput` if none is left."""
        before = len(self)
        self.backend.add_tokens([new_tokens] if isinstance(new_tokens, str) else list(new_tokens), special_tokens)
        return len(self) - before

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Any = None,
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
    ) -> Any:
        """A conversation as list of ids, as text (`tokenize=False`), as array (1, n) or as a dict of those."""
        from phi4mini import chat

        rendered = chat.render(
            conversation,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            tokenizer=self.backend,
            format=self.chat_format,
        )
        if not tokenize:
            return rendered.text
        ids: Any = rendered.ids
        mask: Any = [1] * len(ids)
        if return_tensors is not None:
            ids, mask = tensor(ids, return_tensors), tensor(mask, return_tensors)
        return BatchEncoding(input_ids=ids, attention_mask=mask) if return_dict else ids
