"""How many pages the KV cache gets: as many as asked for, or as memory allows. Decided before anything is allocated."""

from __future__ import annotations

from phi4mini.engine.cache.pages import pages_for
from phi4mini.errors import BadInput, NoSpace
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.kv import PAGE, KVLayout
from phi4mini.model.config import Config

_MANY = 131_072  # most tokens of KV cache that several requests get without asking for more
_KV_SHARE = 0.8  # share of the memory left beside the weights that the KV cache may grow to


def kv_budget(
    config: Config, kv: str, weight_bytes: int, ctx: int | None, kv_tokens: int | None, places: int | None = None
) -> tuple[int, int]:
    """(ctx, pages): the most tokens of one request, and the pages of the KV cache for all requests together.

    `ctx` None asks for the model's longest context, or as much of it as memory allows. `kv_tokens` None asks for one
    request of `ctx` tokens; with `places` for that many such requests, up to 131,072 tokens and to what memory allows.
    Raises BadInput if a number is out of range or memory does not hold it, NoSpace if memory does not hold a page.
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
