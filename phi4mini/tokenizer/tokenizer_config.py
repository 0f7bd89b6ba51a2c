"""The added tokens that tokenizer_config.json and added_tokens.json list, with their flags.

Promises HF transformers' precedence: flags in tokenizer_config.json override those in tokenizer.json, and
added_tokens.json counts only where tokenizer_config.json lists no tokens. Knows no vocabulary.
"""

from __future__ import annotations

from typing import Any

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import phi4
from phi4mini.tokenizer.added_token import AddedToken


def with_flags(added: list[AddedToken], config: dict[str, Any]) -> list[AddedToken]:
    """`added`, with flags overridden and missing tokens supplied by the config's `added_tokens_decoder`; sorted by id.

    Raises BadCheckpoint for a list that is none, or a token that has another id there.
    """
    entries = config.get("added_tokens_decoder") or {}
    if not isinstance(entries, dict) or not all(str(id).isdecimal() for id in entries):
        raise BadCheckpoint("tokenizer_config.json: added_tokens_decoder must map ids to tokens")
    by_content = {token.content: token for token in added}
    for id, entry in entries.items():
        token = AddedToken.from_json({**entry, "id": int(id)} if isinstance(entry, dict) else entry)
        known = by_content.get(token.content)
        if known is not None and known.id != token.id:
            raise BadCheckpoint(f"the added token {token.content!r} has id {known.id} and, in its settings, {token.id}")
        by_content[token.content] = token
    return sorted(by_content.values(), key=lambda token: token.id)


def names_as_config(names: Any, config: dict[str, Any], special_map: Any) -> dict[str, Any]:
    """`config` with the tokens of an added_tokens.json (name to id) written in as its `added_tokens_decoder`.

    For a config that lists no tokens itself, as in HF. A token is special if `config` or special_tokens_map.json
    (`special_map`) names it as one. Raises BadCheckpoint when `names` does not map tokens to ids.
    """
    if not isinstance(names, dict) or not all(type(id) is int and id >= 0 for id in names.values()):
        raise BadCheckpoint("added_tokens.json must map tokens to ids")
    special = set(_special_names(config)) | set(_special_names(special_map if isinstance(special_map, dict) else {}))
    own = {token.content: token for token in phi4.ADDED}
    entries: dict[str, Any] = {}
    for name, id in names.items():
        if str(id) in entries:
            raise BadCheckpoint(f"added_tokens.json: {entries[str(id)]['content']!r} and {name!r} both have id {id}")
        flags = own[name].to_json() if name in own and own[name].id == id else {"normalized": name not in special}
        entries[str(id)] = {"special": name in special, **flags, "content": name}
    return {**config, "added_tokens_decoder": entries}


def _special_names(config: dict[str, Any]) -> list[str]:
    """Texts of the tokens that a config declares special: `eos_token` and its like, `additional_special_tokens`."""
    listed = [value for key, value in config.items() if key.endswith("_token")]
    more = config.get("additional_special_tokens")
    listed += more if isinstance(more, list) else []
    texts = [item.get("content") if isinstance(item, dict) else item for item in listed]
    return [text for text in texts if isinstance(text, str)]
