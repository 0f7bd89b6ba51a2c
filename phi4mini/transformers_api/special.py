"""A tokenizer's special tokens and vocabulary by the names of transformers; setting them names tokens that exist.

Promises: `tok.pad_token = tok.eos_token` and its like change what this tokenizer calls by that name, and never a token
of a text. It does not know texts (`tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.tokenizer import Tokenizer
from phi4mini.transformers_api.ids import flat

NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """The end of a text; Phi-4-mini's is `<|endoftext|>`, as its tokenizer_config says, not the turn's end."""
    if tokenizer.is_phi4:
        return tokenizer.pad_id
    return tokenizer.eos_ids[0] if tokenizer.eos_ids else None


class _Id:
    """`tok.pad_token_id`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: SpecialTokens, kind: Any = None) -> int | None:
        return owner._special[self.name]

    def __set__(self, owner: SpecialTokens, id: int | None) -> None:
        if id is not None and not (type(id) is int and 0 <= id < owner.backend.vocab_size):
            raise BadInput(f"{self.name}_token_id {id!r:.40} is not an id from 0 to {owner.backend.vocab_size - 1}")
        owner._special[self.name] = id


class _Token:
    """`tok.pad_token`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: SpecialTokens, kind: Any = None) -> str | None:
        id = owner._special[self.name]
        return None if id is None else owner.backend.token_text(id)

    def __set__(self, owner: SpecialTokens, token: str | None) -> None:
        owner.name_token(self.name, token)


class SpecialTokens:
    """The part of a tokenizer that knows its tokens by name."""

    bos_token_id, eos_token_id, unk_token_id = _Id("bos"), _Id("eos"), _Id("unk")
    sep_token_id, pad_token_id, cls_token_id, mask_token_id = _Id("sep"), _Id("pad"), _Id("cls"), _Id("mask")
    bos_token, eos_token, unk_token = _Token("bos"), _Token("eos"), _Token("unk")
    sep_token, pad_token, cls_token, mask_token = _Token("sep"), _Token("pad"), _Token("cls"), _Token("mask")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend = tokenizer
        self._special: dict[str, int | None] = dict.fromkeys(NAMES)
        self._special |= {"bos": tokenizer.bos_id, "eos": end_of_text(tokenizer), "pad": tokenizer.pad_id}
        self._special["unk"] = tokenizer.pad_id if tokenizer.is_phi4 else None  # as its tokenizer_config says

    def name_token(self, name: str, token: str | None) -> None:
        """Make a token of the vocabulary the one called `name` ("pad"). Raises `BadInput` if there is none."""
        id = None if token is None else self.backend.id_of(str(token))
        if token is not None and id is None:
            raise BadInput(
                f"{name}_token: {str(token)!r:.60} is no token of this vocabulary; "
                f"add_special_tokens({{'{name}_token': ...}}) gives it a free row"
            )
        self._special[name] = id

    # ---- how many, and which

    def __len__(self) -> int:
        return len(self.backend)

    @property
    def vocab_size(self) -> int:
        """Rows of the model's embedding: every id is below it."""
        return self.backend.vocab_size

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The names that are given: "eos_token" to its text."""
        named = {f"{name}_token": getattr(self, f"{name}_token") for name in NAMES}
        return {name: token for name, token in named.items() if token is not None}

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of the named ones, then of all others that are special."""
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
        """Every token, as the vocabulary writes it, and its id."""
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

    # ---- new ones

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Give tokens the next free rows of the model; returns how many were new. Raises `BadInput` if none is left."""
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
