"""How many tokens the KV cache holds: what was asked for, or what memory allows; told before anything is allocated."""

from __future__ import annotations

from phi4mini.engine.cache.pages import pages_for
from phi4mini.errors import BadInput, NoSpace
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.kv import PAGE, KVLayout
from phi4mini.model.config import Config

_MANY = 131_072  # tokens of KV cache that several requests share unless asked for more
_KV_SHARE = 0.8  # of the memory that is free beside the weights when the engine starts, what the KV cache may grow to


def kv_budget(
    config: Config, kv: str, weight_bytes: int, ctx: int | None, kv_tokens: int | None, places: int | None = None
) -> tuple[int, int]:
    """(ctx, pages). `ctx`, of one request, is the model's longest unless asked for less; `kv_tokens`, of all requests
    together, is `ctx` unless asked for more, or for `places` requests as many, up to 131,072 tokens and to what memory
    allows. Raises BadInput for what is out of range or memory does not hold.
    """
    most = config.max_position_embeddings
    if ctx is not None and not 2 <= ctx <= most:
        raise BadInput(f"ctx must be from 2 to {most}, the model's longest context, got {ctx}")
    if kv_tokens is not None and kv_tokens < (ctx or 2):
        raise BadInput(f"kv_tokens must be at least {ctx or 2}, the context of one request, got {kv_tokens}")
    page = KVLayout(kv, config.head_dim, config.num_kv_heads).page_bytes * config.num_layers
    fits = max(int((cpu().memory_available - weight_bytes) * _KV_SHARE), 0) // page
    asked, what = (ctx, "a context") if kv_tokens is None else (kv_tokens, "a KV cache")
    if asked is not None and pages_for(asked) > fits:
        raise BadInput(
            f"{what} of {asked} tokens takes {pages_for(asked) * page / 1e9:.2f} GB of KV cache; "
            f"{fits * page / 1e9:.2f} GB are available, enough for {fits * PAGE} tokens"
        )
    if fits < 1:
        raise NoSpace(
            f"{cpu().memory_available / 1e9:.2f} GB of memory are available, not enough for "
            f"{weight_bytes / 1e9:.2f} GB of weights and a KV cache; close other programs or quantise to fewer bits"
        )
    pages = min(fits, pages_for(asked or most))
    if places is not None and kv_tokens is None:
        pages = min(fits, max(pages, pages_for(min((ctx or most) * places, _MANY))))
    return min(ctx or most, kv_tokens or most, pages * PAGE), pages
