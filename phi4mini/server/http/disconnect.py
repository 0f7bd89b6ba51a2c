"""What happens when a client disconnects: the work on its request is cancelled at once, in every phase.

Promise: `unless_disconnected` returns when the work is over or the client has left, whichever is first, and never
leaves a task behind. Cancelled work closes its `Choices` (server/answering.py), which cancels its runs in the engine's
runner, so that none of them takes part in a pass after the current one. It knows no route and no model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from starlette.types import Receive


async def unless_disconnected(work: Coroutine[Any, Any, None], receive: Receive) -> bool:
    """Do the work; False if the client left first, and the work was cancelled. Raises what the work raises.

    `receive`: the request's own channel, of which the whole body has been read: only a disconnect can follow.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        stayed = working.done()
    finally:
        leaving.cancel()
        working.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({working, leaving})
    if not working.cancelled():
        working.result()  # raises what the work raised
    return stayed


async def _disconnected(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
