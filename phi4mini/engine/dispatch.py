"""Who gets the tokens of a pass: an inbox for each request that has a reader.

Promises: a token reaches the reader of its own request, whoever made the pass and from whichever thread; none is lost
and none comes twice. A reader that finds nothing makes the next pass, for all. It knows no text and nothing of a pass.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator

from phi4mini.engine.request import Request, Token


class Dispatcher:
    """`lock` is held during a pass, and by whoever changes what the next pass will do."""

    def __init__(
        self,
        run_pass: Callable[[], list[Token]],
        add: Callable[[Request], Request],
        abort: Callable[[Request], None],
    ) -> None:
        self.lock = threading.RLock()
        self._run_pass, self._add, self._abort = run_pass, add, abort
        self._inboxes: dict[Request, deque[Token]] = {}

    def step(self) -> list[Token]:
        """Make one pass and hand its tokens out; all of them are returned as well."""
        with self.lock:
            tokens = self._run_pass()
            for token in tokens:
                inbox = self._inboxes.get(token.request)
                if inbox is not None:
                    inbox.append(token)
            return tokens

    def open(self, request: Request) -> deque[Token]:
        """Add a request to the engine and give it an inbox, whose reader takes from the left until `close`."""
        with self.lock:  # both at once: another thread's pass between the two would draw tokens for no one
            self._add(request)
            return self._inboxes.setdefault(request, deque())

    def close(self, request: Request) -> None:
        """No one reads the request any more: it ends if it has not."""
        with self.lock:
            self._inboxes.pop(request, None)
            self._abort(request)

    def tokens(self, request: Request, stopped: Callable[[], bool]) -> Generator[Token, None, None]:
        """Add a request and yield its tokens as they come, those of passes that others make as well. Raises its error
        if it ends in one. Leaving the loop, or `stopped` becoming true, ends the request.
        """
        inbox = self.open(request)
        try:
            while not stopped():
                with self.lock:
                    if not inbox and request.finish_reason is None:
                        self.step()
                    ended = request.finish_reason is not None
                while inbox:
                    yield inbox.popleft()
                if ended:
                    if request.error is not None:
                        raise request.error
                    return
        finally:
            self.close(request)
