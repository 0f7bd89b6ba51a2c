"""Where tokenizers come from: the shipped vocabulary, a checkpoint's tokenizer.json, a GGUF's lists.

Promises that a checkpoint which carries Phi-4-mini's vocabulary becomes the shipped one (a tiny blob in a model file),
that flags in tokenizer_config.json win over those in tokenizer.json as in HF transformers, and that a kind which would
be tokenised wrongly is refused by name. Knows no text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from phi4mini.errors import BadCheckpoint
from phi4mini.tokenizer import phi4, ranks
from phi4mini.tokenizer.added import AddedToken
from phi4mini.tokenizer.core import BackendCore, Phi4Core
from phi4mini.tokenizer.tokenizer import Tokenizer

_CONTROL, _USER_DEFINED = 3, 4  # GGUF token types that become added tokens
_UNUSED = 5  # a row that stands for nothing, named [PAD7] or so
_BPE_OPTIONS = (
    *("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
    *("fuse_unk", "byte_fallback", "ignore_merges"),
)
_LLAMA3_TOKENS = {"<|begin_of_text|>": 128_000, "<|end_of_text|>": 128_001, "<|eot_id|>": 128_009}
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def phi4_mini(extra: Sequence[AddedToken] = (), rows: int = phi4.ROWS) -> Tokenizer:
    """The shipped tokenizer, with tokens added to its free rows; one of its own in `extra` has other flags there."""
    added = {token.id: token for token in (*phi4.ADDED, *extra)}
    return Tokenizer(
        Phi4Core(),
        tuple(added.values()),
        rows=rows,
        bos_id=phi4.ENDOFTEXT,
        eos_ids=(phi4.END, phi4.ENDOFTEXT),
        pad_id=phi4.ENDOFTEXT,
        is_phi4=True,
    )


def phi4_mini_with(config: dict[str, Any], rows: int) -> Tokenizer:
    """The shipped tokenizer with the added tokens that a tokenizer_config.json lists, where there is no tokenizer.json.

    Raises BadCheckpoint for one whose id is neither its own nor that of a free row.
    """
    extra = phi4.extra(_with_flags(list(phi4.ADDED), config))
    taken = {token.content: token.id for token in phi4.ADDED} | phi4.PLACEHOLDERS
    for token in extra:
        if taken.get(token.content) != token.id and not phi4.FIRST_FREE <= token.id < rows:
            raise BadCheckpoint(
                f"the added token {token.content!r} has id {token.id}; "
                f"free are {phi4.FIRST_FREE} to {rows - 1} of Phi-4-mini's vocabulary"
            )
    new = [token for token in extra if token.content not in taken]
    for next_free, token in enumerate(new, phi4.FIRST_FREE):
        if token.id != next_free:  # HF numbers added tokens on end, whatever a file says
            raise BadCheckpoint(
                f"the added token {token.content!r} has id {token.id}, the next free row is {next_free}"
            )
    return phi4_mini(extra, rows)


def names_as_config(names: Any, config: dict[str, Any], special_map: Any) -> dict[str, Any]:
    """`config` with the added tokens of an added_tokens.json (name to id), for one that lists none itself, as in HF.

    Special are those that `config` or special_tokens_map.json call so. Raises BadCheckpoint for names that are none.
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
    """Texts of the tokens that a config calls special: `eos_token` and its like, `additional_special_tokens`."""
    listed = [value for key, value in config.items() if key.endswith("_token")]
    more = config.get("additional_special_tokens")
    listed += more if isinstance(more, list) else []
    texts = [item.get("content") if isinstance(item, dict) else item for item in listed]
    return [text for text in texts if isinstance(text, str)]


# ---- tokenizer.json


def from_json(data: bytes | str | dict[str, Any], config: dict[str, Any] | None, rows: int | None) -> Tokenizer:
    """See `Tokenizer.from_json`."""
    tree = _parse(data)
    config = config or {}
    added = _with_flags(added_tokens(tree), config)
    if _is_phi4(tree, added):
        return phi4_mini(phi4.extra(added), rows or phi4.ROWS)
    backend = _backend_of(tree)
    ids = {token.content: token.id for token in added}

    def named(key: str) -> int | None:
        token = config.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        return None if not isinstance(text, str) else ids.get(text, backend.token_to_id(text))

    eos = named("eos_token")
    return Tokenizer(
        BackendCore(backend),
        added,
        rows=rows or max([backend.get_vocab_size() - 1, *ids.values()]) + 1,
        bos_id=named("bos_token"),
        eos_ids=() if eos is None else (eos,),
        pad_id=named("pad_token"),
        byte_level=is_byte_level(tree),
    )


def _parse(data: bytes | str | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data, dict):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadCheckpoint(f"tokenizer.json is not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise BadCheckpoint("tokenizer.json has no model")
    kind = data["model"].get("type", "BPE")
    if kind != "BPE":
        raise BadCheckpoint(f"tokenizer.json: model type {kind!r} is not supported, only BPE")
    return data


def added_tokens(tree: dict[str, Any]) -> list[AddedToken]:
    """The `added_tokens` of a tokenizer.json."""
    items = tree.get("added_tokens") or []
    if not isinstance(items, list):
        raise BadCheckpoint("tokenizer.json: added_tokens must be a list")
    return [AddedToken.from_json(item) for item in items]


def _with_flags(added: list[AddedToken], config: dict[str, Any]) -> list[AddedToken]:
    """`added_tokens_decoder` of tokenizer_config.json overrides flags and brings tokens that tokenizer.json lacks."""
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


def _backend_of(tree: dict[str, Any]) -> Backend:
    """HF's tokenizer without the added tokens and without a template that would add BOS or EOS."""
    # the vocabulary is handed over as objects, which takes half the time of writing it as JSON once more
    empty = {**tree["model"], "vocab": {}, "merges": [], "unk_token": None}
    bare = {**tree, "model": empty, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    try:
        backend = Backend.from_str(json.dumps(bare))
        options = {key: tree["model"][key] for key in _BPE_OPTIONS if tree["model"].get(key) is not None}
        merges = [_pair(merge) for merge in tree["model"].get("merges") or ()]
        backend.model = models.BPE(tree["model"]["vocab"], merges, **options)
        return backend
    except Exception as error:  # the Rust library raises bare Exception
        raise BadCheckpoint(f"tokenizer.json cannot be used: {str(error)[:200]}") from None


def is_byte_level(tree: dict[str, Any]) -> bool:
    """True for byte-level, False for SentencePiece with byte fallback. Raises BadCheckpoint for another decoder."""
    decoder = tree.get("decoder") or {}
    steps = decoder.get("decoders", [decoder]) if decoder.get("type") == "Sequence" else [decoder]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return True
    if kinds == ["Replace", "ByteFallback", "Fuse", "Strip"]:
        return False
    raise BadCheckpoint(f"tokenizer.json: decoder {kinds} is not supported, only ByteLevel and SentencePiece's")


def _is_phi4(tree: dict[str, Any], added: list[AddedToken]) -> bool:
    """Whether this is Phi-4-mini's own tokenizer, perhaps with tokens in its free rows."""
    model, patterns = tree["model"], _patterns(tree.get("pre_tokenizer"))
    if tree.get("normalizer") or model.get("ignore_merges") or phi4.SPLIT not in patterns:
        return False
    if not set(phi4.ADDED) <= set(added):
        return False
    vocabulary, merges = ranks.vocabulary_and_merges()
    known = vocabulary | phi4.PLACEHOLDERS | {token.content: token.id for token in phi4.ADDED}
    given, listed = model.get("vocab"), model.get("merges")
    if not isinstance(given, dict) or not isinstance(listed, list):
        return False
    if not vocabulary.items() <= given.items() <= (known | {token.content: token.id for token in added}).items():
        return False
    return [_pair(merge) for merge in listed] == merges


def _pair(merge: Any) -> Any:
    """A merge of a tokenizer.json: "left right" in old files, a list of two in new ones."""
    return tuple(merge.split(" ") if isinstance(merge, str) else merge) if isinstance(merge, (str, list)) else None


def _patterns(pre_tokenizer: Any) -> list[str]:
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer]) if isinstance(pre_tokenizer, dict) else []
    patterns = [step.get("pattern") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    return [pattern["Regex"] for pattern in patterns if isinstance(pattern, dict) and "Regex" in pattern]


# ---- GGUF


def from_bpe(
    tokens: Sequence[str],
    merges: Sequence[str],
    types: Sequence[int] | None,
    *,
    pre: str | None,
    bos_id: int | None,
    eos_ids: Sequence[int],
    pad_id: int | None,
    rows: int | None,
) -> Tokenizer:
    """See `Tokenizer.from_bpe`."""
    tokens = list(tokens)
    pre = _pre_of(tokens) if pre in (None, "", "default") else pre
    split = _split_named(pre)
    kinds = [int(kind) for kind in types] if types is not None else [1] * len(tokens)
    if len(kinds) != len(tokens):
        raise BadCheckpoint(f"the GGUF has {len(tokens)} tokens but {len(kinds)} token types")
    added = [
        AddedToken(id, token, special=kind == _CONTROL)
        for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    if pre == "gpt-4o" and _has_phi4_tokens(tokens):
        return phi4_mini([token for token in added if token.id >= phi4.FIRST_FREE], rows or phi4.ROWS)
    unused = {id for id, kind in enumerate(kinds) if kind == _UNUSED}
    used = max((id for id in range(len(tokens)) if id not in unused), default=-1) + 1  # the rest are free rows
    backend = Backend(_bpe(tokens[:used], merges, ignore_merges=pre == "llama-bpe"))
    backend.pre_tokenizer, backend.decoder = split, decoders.ByteLevel()
    ids: dict[str, Any] = {"bos_id": bos_id, "eos_ids": eos_ids, "pad_id": pad_id}
    unused = {id for id in unused if id < used}
    return Tokenizer(BackendCore(backend), added, rows=rows or len(tokens), **ids, unused=unused)


def _pre_of(tokens: list[str]) -> str:
    """The split of a vocabulary that is known, for a GGUF that does not name it. Raises BadCheckpoint for others."""
    if _has_phi4_tokens(tokens):
        return "gpt-4o"
    if len(tokens) >= 128_256 and all(tokens[id] == text for text, id in _LLAMA3_TOKENS.items()):
        return "llama-bpe"
    raise BadCheckpoint(
        "the GGUF does not name its pre-tokenizer (tokenizer.ggml.pre), and its vocabulary is neither Phi-4-mini's nor "
        "Llama 3's, whose split would be known"
    )


def _bpe(tokens: list[str], merges: Sequence[str], ignore_merges: bool) -> models.BPE:
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise BadCheckpoint(f"the GGUF has {len(tokens)} tokens, only {len(vocabulary)} of them different")
    odd = next((merge for merge in merges if merge.count(" ") != 1), None)
    if odd is not None:
        raise BadCheckpoint(f"the GGUF has a merge that is not two tokens: {odd!r}")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        return models.BPE(vocabulary, pairs, ignore_merges=ignore_merges)
    except Exception as error:  # the Rust library raises bare Exception
        raise BadCheckpoint(f"the GGUF's merges do not fit its tokens: {str(error)[:200]}") from None


def _has_phi4_tokens(tokens: list[str]) -> bool:
    named = [*phi4.PLACEHOLDERS.items(), *((token.content, token.id) for token in phi4.ADDED)]
    if len(tokens) < phi4.FIRST_FREE or any(tokens[id] != text for text, id in named):
        return False
    return tokens[: ranks.COUNT] == ranks.token_strings()[0]


def _split_named(pre: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer behind a GGUF's `tokenizer.ggml.pre`; GPT-2's own regex is inside ByteLevel."""
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    to_chars = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if pre == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    if pre == "gpt-2":
        return gpt2
    if pre == "gpt-4o":
        return phi4.pre_tokenizer()
    if pre == "llama-bpe":
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), "isolated"), to_chars])
    raise BadCheckpoint(f"the GGUF's pre-tokenizer {pre!r} is not supported (known: smollm, gpt-2, gpt-4o, llama-bpe)")
