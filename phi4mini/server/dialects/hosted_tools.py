"""Tools as requests offer them: functions, which can be called, and what only other servers run.

Promise: beside a function, a tool of another kind is named as ignored and changes nothing; alone, it is left for the
dialect to refuse, since nothing of what was asked for would be there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi4mini.server.http.endpoint import Call

Tools = Sequence[Mapping[str, Any]]


def callable_tools(tools: Tools | None, call: Call, kinds: Collection[str] = ("function",)) -> Tools:
    """The tools whose `type` is one of `kinds` or missing, if there are any; else all of them."""
    given = tools or ()
    others = [tool["type"] for tool in given if isinstance(tool.get("type"), str) and tool["type"] not in kinds]
    if len(others) == len(given):
        return given
    call.ignore([f"tools.{kind}" for kind in dict.fromkeys(others)])
    return [tool for tool in given if not isinstance(tool.get("type"), str) or tool["type"] in kinds]
