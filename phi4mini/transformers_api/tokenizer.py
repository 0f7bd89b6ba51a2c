"""A tokenizer with the methods of transformers'. Text that spells a control token stays text by default.

Promises: a plain text gives control tokens only with `parse_special=True`; the first time a text spells one, a warning
is logged. The text of `apply_chat_template` keeps its control tokens (`rendered.py`). Nothing is added to a text.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import not_here, taken, whole
from phi4mini.transformers_api.encodings import BatchEncoding, ids_and_dict
from phi4mini.transformers_api.ids import filled, flat, is_batch, rows_of, tensor
from phi4mini.transformers_api.rendered import RenderedText
from phi4mini.transformers_api.special import SpecialTokens

if TYPE_CHECKING:
    from phi4mini.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
_SIDES = ("left", "right")
_NO_LIMIT = int(1e30)  # transformers' value for a tokenizer without a limit


class AutoTokenizer:
    """`from_pretrained` gives a `PretrainedTokenizer`."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str, *, local_files_only: bool = False, **others: Any
    ) -> PretrainedTokenizer:
        """A tokenizer by the model's name; Phi-4-mini-instruct's own is inside this package and needs no file."""
        from phi4mini.llm.model import load_config, load_tokenizer

        used = taken("AutoTokenizer.from_pretrained", others)
        name = str(pretrained_model_name_or_path)
        made = PretrainedTokenizer(*load_tokenizer(name, offline=local_files_only))
        made.name_or_path = name
        made.model_max_length = load_config(name, offline=local_files_only).max_position_embeddings
        for attribute, value in used.items():
            setattr(made, attribute, value)
        return made


class PretrainedTokenizer(SpecialTokens):
    """A tokenizer with transformers' interface; `backend` is our own."""

    is_fast = True
    model_input_names = ("input_ids", "attention_mask")

    def __init__(self, tokenizer: Tokenizer, chat_format: str) -> None:
        super().__init__(tokenizer)
        self.chat_format = chat_format
        self.name_or_path = ""
        self.padding_side = self.truncation_side = "right"
        self.model_max_length = _NO_LIMIT
        self._said: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        raise not_here(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Raises `BadInput` for an unknown side, and for a template."""
        if name in ("padding_side", "truncation_side") and value not in _SIDES:
            raise BadInput(f"{name} is 'left' or 'right', not {value!r:.40}")
        if name == "chat_template" and value is not None:
            taken("apply_chat_template", {name: value})
        object.__setattr__(self, name, value)

    # ---- text to ids

    def __call__(
        self, text: Any, text_pair: Any = None, *, return_tensors: str | None = None, **others: Any
    ) -> BatchEncoding:
        """Ids and mask of one text, or of several; with `return_tensors` arrays (rows, n)."""
        used = taken("tokenizer", others | {"text_pair": text_pair})
        parse = _parsing(used)
        if isinstance(text, str):
            rows = [self._ids(text, parse)]
        elif isinstance(text, Sequence) and all(isinstance(each, str) for each in text):
            rows = [self._ids(each, parse) for each in text]
        else:
            raise BadInput(f"a tokenizer takes a text or a list of texts, not {text!r:.60}")
        return self._encoding(rows, isinstance(text, str), return_tensors, used)

    def encode(self, text: str, parse_special: bool | None = None, **others: Any) -> Any:
        """Ids of one text; nothing is added. Takes the arguments of a call. With `return_tensors` an array (1, n)."""
        if not isinstance(text, str):
            raise BadInput(f"encode takes one text, not {text!r:.60}; call the tokenizer with a list")
        return self(text, parse_special=parse_special, **others)["input_ids"]

    def tokenize(self, text: str, **others: Any) -> list[str]:
        """The tokens of a text as the vocabulary writes them."""
        return list(self.convert_ids_to_tokens(self.encode(text, **others)))

    def _ids(self, text: str, parse: bool | None) -> list[int]:
        if parse is None and isinstance(text, RenderedText):
            from phi4mini import chat

            return chat.encode_segments(text.segments, self.backend, self.chat_format)[0]
        if parse is None:
            self._say_control_tokens(text)
        return self.backend.encode(str(text), bool(parse))

    def _say_control_tokens(self, text: str) -> None:
        """Warn once about each control token that a text spells and that stays text."""
        from phi4mini import chat

        written = () if self.chat_format == "none" else chat.format_named(self.chat_format).tokens
        for token in self.backend.added_tokens:
            control = token.special or token.content in written
            if control and token.content in text and token.content not in self._said:
                self._said.add(token.content)
                _log.warning(
                    "the text spells %r, which stays text; parse_special=True makes it a control token", token.content
                )

    # ---- rows of one length

    def _encoding(
        self, rows: list[list[int]], single: bool, tensors: str | None, used: Mapping[str, Any], **more: Any
    ) -> BatchEncoding:
        """The rows truncated and padded, with their mask, as lists or tensors."""
        rows, cut = self._cut(rows, used), self._most(used)
        parts: dict[str, Any] = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
        parts |= {name: self._cut(value, used) for name, value in more.items()}
        if used.get("return_attention_mask", True) is False:
            del parts["attention_mask"]
        self._pad(parts, used, cut)
        if tensors is not None:
            return BatchEncoding({name: tensor(value, tensors) for name, value in parts.items()})
        return BatchEncoding({name: value[0] if single else value for name, value in parts.items()})

    def _most(self, used: Mapping[str, Any]) -> int:
        return whole("max_length", used.get("max_length", self.model_max_length))

    def _cut(self, rows: list[list[int]], used: Mapping[str, Any]) -> list[list[int]]:
        """As transformers: a max_length alone cuts too, unless it is there for the padding."""
        wanted = used.get("truncation", "max_length" in used and used.get("padding", False) is False)
        if wanted not in (True, False, "longest_first", "only_first", "do_not_truncate"):
            raise BadInput(f"truncation {wanted!r:.40} is not here; there are True and False")
        if wanted in (False, "do_not_truncate"):
            return rows
        most = self._most(used)
        return [row[-most:] if self.truncation_side == "left" else row[:most] for row in rows]

    def _pad(self, parts: dict[str, Any], used: Mapping[str, Any], most: int) -> None:
        how = used.get("padding", False)
        if how not in (True, False, "longest", "max_length", "do_not_pad"):
            raise BadInput(f"padding {how!r:.40} is not here; there are True, 'max_length' and False")
        side = used.get("padding_side", self.padding_side)
        if side not in _SIDES:
            raise BadInput(f"padding_side is 'left' or 'right', not {side!r:.40}")
        if how in (False, "do_not_pad"):
            return
        if self.pad_token_id is None:
            raise BadInput("padding needs a pad token; set tokenizer.pad_token = tokenizer.eos_token")
        if how == "max_length" and most == _NO_LIMIT:
            raise BadInput("padding='max_length' needs max_length")
        length = most if how == "max_length" else max(map(len, parts["input_ids"]), default=0)
        step = whole("pad_to_multiple_of", used.get("pad_to_multiple_of", 1), least=1)
        length = -(-length // step) * step
        for name, rows in parts.items():
            parts[name] = filled(rows, self.pad_token_id if name == "input_ids" else 0, length, left=side == "left")

    def pad(
        self, encoded_inputs: Any, padding: bool | str = True, return_tensors: str | None = None, **others: Any
    ) -> BatchEncoding:
        """Encodings, as a dict of rows or a list of dicts, filled to one length."""
        used = taken("tokenizer", {"padding": padding} | others)
        given = encoded_inputs
        rows = rows_of(given["input_ids"]) if isinstance(given, Mapping) else [flat(e["input_ids"]) for e in given]
        return self._encoding(rows, False, return_tensors, used | {"truncation": False})

    # ---- ids to text

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **others: Any) -> Any:
        """Text of an id, or of ids; of rows of ids a list of texts, as in transformers 5."""
        taken("decode", others)
        given = token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids
        if is_batch(given):
            return [self.backend.decode(row, skip_special_tokens) for row in rows_of(given)]
        return self.backend.decode(flat(given), skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **others: Any) -> list[str]:
        """Text of every row; ids alone are one row, as in transformers 5."""
        if not len(sequences):
            return []
        text = self.decode(sequences, skip_special_tokens, **others)
        return [text] if isinstance(text, str) else text

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text that tokens spell."""
        return str(self.decode(self.convert_tokens_to_ids(list(tokens))))

    # ---- conversations

    def apply_chat_template(
        self,
        conversation: Any,
        tools: Any = None,
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_tensors: str | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> Any:
        """A conversation, or a list of them, as ids or as text (`tokenize=False`); see `docs/python.md`.

        Left alone, `return_dict` gives ids that also answer as the dict that transformers 5 gives.
        """
        used = taken("apply_chat_template", others)
        if continue_final_message and add_generation_prompt:
            raise BadInput("continue_final_message goes on in a message, add_generation_prompt begins one; give one")
        batch = _is_batch_of_conversations(conversation)
        rendered = [
            self._render(each, tools, add_generation_prompt, continue_final_message, used)
            for each in (conversation if batch else [conversation])
        ]
        if not tokenize:
            texts = [RenderedText(each.segments) for each in rendered]
            return texts if batch else texts[0]
        own = {"assistant_masks": [each.mask for each in rendered]} if used.get("return_assistant_tokens_mask") else {}
        encoding = self._encoding([each.ids for each in rendered], not batch, return_tensors, used, **own)
        if return_dict is None:
            return ids_and_dict(encoding)
        return encoding if return_dict else encoding["input_ids"]

    def _render(self, conversation: Any, tools: Any, prompt: bool, go_on: bool, used: Mapping[str, Any]) -> Any:
        from phi4mini import chat

        if self.chat_format == "none":
            raise BadInput("this model's chat template is not known here, and none is ever run; it continues text")
        return chat.render(
            conversation,
            tools=tools,
            add_generation_prompt=prompt,
            tokenizer=self.backend,
            format=self.chat_format,
            parse_special=not used.get("sanitize_control_tokens", True),
            continue_final_message=go_on,
        )


def _parsing(used: Mapping[str, Any]) -> bool | None:
    """`parse_special`, or the opposite of transformers' `split_special_tokens`; None if neither is given."""
    if "parse_special" in used or "split_special_tokens" not in used:
        return used.get("parse_special")
    return not used["split_special_tokens"]


def _is_batch_of_conversations(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], (list, tuple))
