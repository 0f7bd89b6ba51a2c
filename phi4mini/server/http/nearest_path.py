"""The path that a client probably meant by an unknown one.

Promise: a suggestion is always a known path. It knows no HTTP.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator

_NEAR = 0.85  # ratio of difflib: `/v1/chat/completion` is near enough, `/v2/chat` is not
_MOST = 200  # characters; a longer path gets no suggestion


def meant(path: str, known: Callable[[str], bool], listed: Collection[str]) -> str | None:
    """The known path that `path` stands for, or None.

    Tried: one slash where it has several or ends in one, /v1 in front or one of several, lower case, without what comes
    before /v1; else the nearest of `listed`.
    """
    if len(path) > _MOST:
        return None
    for form in _forms(path):
        if form != path and known(form):
            return form
    near = difflib.get_close_matches(next(_forms(path)), listed, 1, _NEAR)
    return near[0] if near else None


def _forms(path: str) -> Iterator[str]:
    """Corrections of the path, the smallest first."""
    bare = re.sub("/+", "/", path.strip()).rstrip("/") or "/"
    for form in (bare, bare.lower()):
        yield form
        yield f"/v1{form}"
        inner = re.sub("^(/v1)+(?=/)", "", form)
        yield f"/v1{inner}"
        yield inner
        _, mark, rest = form.rpartition("/v1/")
        if mark:
            yield f"/v1/{rest}"
            yield f"/{rest}"
