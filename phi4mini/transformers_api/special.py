"""A tokenizer's special tokens and vocabulary under transformers' names.

Promises: `tok.pad_token = tok.eos_token` changes which token has that name, and never how a text is encoded. It does
not encode texts (`tokenizer.py` does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.tokenizer import Tokenizer
from phi4mini.transformers_api.ids import flat

NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """The id that ends a text; for Phi-4-mini `<|endoftext|>`, as its tokenizer_config says, not the end of a turn."""
    if tokenizer.is_phi4:
        return tokenizer.pad_id
    return tokenizer.eos_ids[0] if tokenizer.eos_ids else None


class _NamedId:
    """Descriptor for `tok.pad_token_id` and its like."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: SpecialTokens, kind: Any = None) -> int | None:
        return owner._special[self.name]

    def __set__(self, owner: SpecialTokens, id: int | None) -> None:
        if id is not None and not (type(id) is int and 0 <= id < owner.backend.vocab_size):
            raise BadInput(f"{self.name}_token_id {id!r:.40} is not an id from 0 to {owner.backend.vocab_size - 1}")
        owner._special[self.name] = id


class _NamedToken:
    """Descriptor for `tok.pad_token` and its like."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: SpecialTokens, kind: Any = None) -> str | None:
        id = owner._special[self.name]
        return None if id is None else owner.backend.token_text(id)

    def __set__(self, owner: SpecialTokens, token: str | None) -> None:
        owner.name_token(self.name, token)


class SpecialTokens:
    """The part of a tokenizer that names special tokens and looks tokens up."""

    bos_token_id, eos_token_id, unk_token_id = _NamedId("bos"), _NamedId("eos"), _NamedId("unk")
    sep_token_id, pad_token_id = _NamedId("sep"), _NamedId("pad")
    cls_token_id, mask_token_id = _NamedId("cls"), _NamedId("mask")
    bos_token, eos_token, unk_token = _NamedToken("bos"), _NamedToken("eos"), _NamedToken("unk")
    sep_token, pad_token = _NamedToken("sep"), _NamedToken("pad")
    cls_token, mask_token = _NamedToken("cls"), _NamedToken("mask")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend = tokenizer
        self._special: dict[str, int | None] = dict.fromkeys(NAMES)
        self._special |= {"bos": tokenizer.bos_id, "eos": end_of_text(tokenizer), "pad": tokenizer.pad_id}
        self._special["unk"] = tokenizer.pad_id if tokenizer.is_phi4 else None  # as its tokenizer_config says

    def name_token(self, name: str, token: str | None) -> None:
        """Give a token of the vocabulary the name `name` ("pad"). Raises `BadInput` if the vocabulary lacks it."""
        id = None if token is None else self.backend.id_of(str(token))
        if token is not None and id is None:
            raise BadInput(
                f"{name}_token: {str(token)!r:.60} is no token of this vocabulary; "
                f"add_special_tokens({{'{name}_token': ...}}) gives it a free row"
            )
        self._special[name] = id

    # ---- the vocabulary

    def __len__(self) -> int:
        return len(self.backend)

    @property
    def vocab_size(self) -> int:
        """Rows of the model's embedding: every id is below it."""
        return self.backend.vocab_size

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The names in use: "eos_token" to the token's text."""
        named = {f"{name}_token": getattr(self, f"{name}_token") for name in NAMES}
        return {name: token for name, token in named.items() if token is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of all named tokens, then of all other special tokens."""
        others = [token.content for token in self.backend.added_tokens if token.special]
        return list(dict.fromkeys([*self.special_tokens_map.values(), *others]))

    @property
    def all_special_ids(self) -> list[int]:
        return self.convert_tokens_to_ids(self.all_special_tokens)

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        return {token.id: token for token in self.backend.added_tokens}

    @property
    def vocab(self) -> dict[str, int]:
        return self.get_vocab()

    def get_vocab(self) -> dict[str, int]:
        """Every token, as the vocabulary spells it, to its id."""
        return dict(self.backend.parsing_backend.get_vocab(with_added_tokens=True))

    def get_added_vocab(self) -> dict[str, int]:
        """The added tokens and their ids."""
        return {token.content: token.id for token in self.backend.added_tokens}

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or of each; None where there is none (Phi's unknown token would be its end of text)."""
        look_up = self.backend.id_of
        return look_up(tokens) if isinstance(tokens, str) else list(map(look_up, tokens))

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each, as the vocabulary writes it; None for a free row."""
        name = self.backend.parsing_backend.id_to_token
        if isinstance(ids, int):
            return name(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [name(id) for id in flat(ids) if id not in skipped]

    # ---- new tokens

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Give new tokens free rows of the model; returns how many were new. Raises `BadInput` if no row is free."""
        before = len(self)
        tokens = [new_tokens] if isinstance(new_tokens, str) else [str(token) for token in new_tokens]
        self.backend.add_tokens(tokens, special_tokens)
        return len(self) - before

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any], **others: Any) -> int:
        """Name tokens ({"pad_token": "<pad>"}, "additional_special_tokens": a list); new ones take free rows."""
        added = 0
        for key, token in special_tokens_dict.items():
            name = key.removesuffix("_token")
            if key in ("additional_special_tokens", "extra_special_tokens"):
                added += self.add_tokens(list(token), special_tokens=True)
            elif name in NAMES and key != name:
                added += self.add_tokens([str(token)], special_tokens=True)
                self.name_token(name, str(token))
            else:
                raise BadInput(f"add_special_tokens does not take {key!r:.40}; it takes eos_token, pad_token, ...")
        return added
