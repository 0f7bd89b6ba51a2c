"""Tools that a request offers: functions, which the model can call, and hosted tools, which only other servers run.

Promises: beside a function, a hosted tool is named as ignored and changes nothing; alone, it is left for the dialect to
refuse. Every tool keeps the index at which it was sent, so that an error about it names that index.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from phi4mini.server.http.call import Call

Tools = Mapping[int, Mapping[str, Any]]  # each tool by the index at which it was sent, in their order


def numbered(tools: Sequence[Mapping[str, Any]] | None) -> Tools:
    """All tools of a list."""
    return dict(enumerate(tools or ()))


def callable_tools(
    tools: Sequence[Mapping[str, Any]] | None, call: Call[Any], kinds: Collection[str] = ("function",)
) -> Tools:
    """The tools whose `type` is in `kinds` or missing; all tools where there is none of those."""
    given = numbered(tools)
    hosted = {at: tool["type"] for at, tool in given.items() if _kind(tool) not in (None, *kinds)}
    if len(hosted) == len(given):
        return given
    call.ignore([f"tools.{kind}" for kind in dict.fromkeys(hosted.values())])
    return {at: tool for at, tool in given.items() if at not in hosted}


def _kind(tool: Mapping[str, Any]) -> str | None:
    """The type of a tool; None where it is missing or no text."""
    kind = tool.get("type")
    return kind if isinstance(kind, str) else None
