"""Whose turn it is: requests that wait, in one queue for each of those who asked.

The next turn goes to the owner with the fewest running requests, among equals to the one whose last turn is longest
ago; within an owner requests keep the order they came in. An owner is any hashable value, None included, and nothing
is known of it but that it equals itself.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phi4mini.engine.request import Request

_REMEMBERED = 1024  # owners; one forgotten counts as never served, and the longest unserved is forgotten first


class Turns:
    """When each owner had its last turn."""

    def __init__(self) -> None:
        self._last: OrderedDict[Hashable, int] = OrderedDict()
        self._count = 0

    def note(self, owner: Hashable) -> None:
        """It has had a turn."""
        self._count += 1
        self._last[owner] = self._count
        self._last.move_to_end(owner)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def last(self, owner: Hashable) -> int:
        """A number that grows with every turn of anyone; 0 for who has had none."""
        return self._last.get(owner, 0)


class Waiting:
    """The queues of requests that wait for a place."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Request]] = {}  # by owner, none empty; in the order of their first request
        self._turns = Turns()

    def __len__(self) -> int:
        return sum(len(queue) for queue in list(self._queues.values()))

    def __contains__(self, request: Request) -> bool:
        return request in self._queues.get(request.owner, ())

    @property
    def owners(self) -> Iterator[Hashable]:
        """Those who have a request waiting."""
        return iter(self._queues)

    def add(self, request: Request) -> None:
        """Behind all others of its owner."""
        self._queues.setdefault(request.owner, deque()).append(request)

    def put_back(self, request: Request) -> None:
        """Before all others of its owner."""
        self._queues.setdefault(request.owner, deque()).appendleft(request)

    def remove(self, request: Request) -> None:
        """Take a request out wherever it stands."""
        queue = self._queues[request.owner]
        queue.remove(request)
        if not queue:
            del self._queues[request.owner]

    def next(self, running: Counter[Hashable]) -> Request | None:
        """Whose turn it is, given how many requests of each owner run; it stays in its queue."""
        if not self._queues:
            return None
        owner = min(self._queues, key=lambda o: (running[o], self._turns.last(o)))
        return self._queues[owner][0]

    def take(self, request: Request) -> None:
        """The request had its turn."""
        self.remove(request)
        self._turns.note(request.owner)
