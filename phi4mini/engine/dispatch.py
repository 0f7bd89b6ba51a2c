"""Handing out tokens: an inbox for each request that has a reader.

Any number of readers, in one thread or several, may each wait for the tokens of their own request. A reader whose inbox
is empty makes the next pass, which computes tokens for all requests, and the tokens go to all inboxes. Promise: every
token reaches the reader of its request exactly once, whichever thread made the pass.

It knows no text, and not how a pass is made.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator

from phi4mini.engine.request import Request, Token


class Dispatcher:
    """`run_pass` makes a pass; `add` and `abort` are the engine's. `lock` is held during a pass, and for every change
    of what the next pass will do.
    """

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
        """Make one pass and put its tokens into the inboxes. Returns them too."""
        with self.lock:
            tokens = self._run_pass()
            for token in tokens:
                inbox = self._inboxes.get(token.request)
                if inbox is not None:
                    inbox.append(token)
            return tokens

    def open(self, request: Request) -> deque[Token]:
        """Add a request to the engine and return its inbox. The reader takes tokens from the left, until `close`."""
        with self.lock:  # add and inbox in one: a pass of another thread between them would draw tokens for no reader
            self._add(request)
            return self._inboxes.setdefault(request, deque())

    def close(self, request: Request) -> None:
        """Give up the inbox; the request is aborted if it has not ended."""
        with self.lock:
            self._inboxes.pop(request, None)
            self._abort(request)

    def tokens(self, request: Request, stopped: Callable[[], bool]) -> Generator[Token, None, None]:
        """Add a request and yield its tokens as they come, also those of passes that other readers make. Raises the
        request's error if it ends in one. Leaving the loop aborts the request, and so does `stopped()` being true.
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
