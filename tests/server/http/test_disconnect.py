"""A client's disconnect: its work is cancelled at once, and nothing is left behind; work that is over is left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from phi4mini.server.http.disconnect import unless_disconnected


async def stays() -> dict[str, Any]:
    """A client that waits for its answer."""
    await asyncio.Event().wait()
    raise AssertionError


class Leaving:
    """A client that disconnects once its work has begun, after more messages of its body."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.messages = ["http.request", "http.request", "http.disconnect"]

    async def __call__(self) -> dict[str, Any]:
        await self.begun.wait()
        return {"type": self.messages.pop(0)}


def test_work_that_is_over_first_is_whole():
    done = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    async def main() -> tuple[bool, int]:
        return await unless_disconnected(work(), stays), len(asyncio.all_tasks())

    assert asyncio.run(main()) == (True, 1) and done == [1]


def test_work_is_cancelled_when_its_client_leaves_and_may_tidy_up():
    seen: list[str] = []

    async def main() -> tuple[bool, int]:
        client = Leaving()

        async def work() -> None:
            client.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                seen.append("tidied")

        return await unless_disconnected(work(), client), len(asyncio.all_tasks())

    assert asyncio.run(main()) == (False, 1) and seen == ["tidied"]


def test_what_the_work_raises_is_raised():
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(unless_disconnected(work(), stays))


def test_a_cancelled_request_cancels_its_work():
    ended = []

    async def main() -> None:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        request = asyncio.ensure_future(unless_disconnected(work(), stays))
        await begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert ended == [1]
