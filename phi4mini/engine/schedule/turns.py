"""Round-robin over owners: which of the waiting requests gets the next free place.

There is a queue for each owner. The next place goes to the owner with the fewest running requests; among equals to the
owner whose last turn is longest ago. Within an owner, requests keep the order of their arrival. An owner is any
hashable value, None included; owners are only compared.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterator

from phi4mini.engine.request import Request

_REMEMBERED = 1024  # owners; of more, the one with the oldest last turn is forgotten and counts as never served


class Turns:
    """When each owner had its last turn."""

    def __init__(self) -> None:
        self._last: OrderedDict[Hashable, int] = OrderedDict()
        self._count = 0

    def note(self, owner: Hashable) -> None:
        """The owner has just had a turn."""
        self._count += 1
        self._last[owner] = self._count
        self._last.move_to_end(owner)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def last(self, owner: Hashable) -> int:
        """The number of the owner's last turn, counted over all owners; 0 if it has had none."""
        return self._last.get(owner, 0)


class Waiting:
    """The requests that wait for a place, a queue for each owner."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Request]] = {}  # no queue is empty; in the order of their first requests
        self._turns = Turns()

    def __len__(self) -> int:
        return sum(len(queue) for queue in list(self._queues.values()))  # a copy: another thread may ask for the load

    def __contains__(self, request: Request) -> bool:
        return request in self._queues.get(request.owner, ())

    @property
    def owners(self) -> Iterator[Hashable]:
        """The owners that have a request waiting."""
        return iter(self._queues)

    def add(self, request: Request) -> None:
        """Append to the owner's queue."""
        self._queues.setdefault(request.owner, deque()).append(request)

    def put_back(self, request: Request) -> None:
        """Put before all others of its owner: a preempted request had its turn already."""
        self._queues.setdefault(request.owner, deque()).appendleft(request)

    def remove(self, request: Request) -> None:
        """Take a request out, wherever in its queue it is."""
        queue = self._queues[request.owner]
        queue.remove(request)
        if not queue:
            del self._queues[request.owner]

    def next(self, running: Counter[Hashable]) -> Request | None:
        """The request whose turn it is, given how many requests of each owner run. It stays in its queue."""
        if not self._queues:
            return None
        owner = min(self._queues, key=lambda o: (running[o], self._turns.last(o)))
        return self._queues[owner][0]

    def take(self, request: Request) -> None:
        """Take a request out because it got a place: its owner had a turn."""
        self.remove(request)
        self._turns.note(request.owner)
