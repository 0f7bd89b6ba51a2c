"""Which path was meant by one that there is not.

Promises: a suggestion is a path that there is. It knows no HTTP.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator

_NEAR = 0.85  # of difflib; `/v1/chat/completion` is as near as that, `/v2/chat` is not
_MOST = 200  # characters of a path that is looked at


def meant(path: str, known: Callable[[str], bool], listed: Collection[str]) -> str | None:
    """The path that `path` stands for, or None.

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
    """The path as it may have been meant, what changes least first."""
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
