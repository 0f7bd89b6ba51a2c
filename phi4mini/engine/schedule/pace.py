"""How many rows of prompts a pass may take beside requests that are drawing tokens, so that those hardly notice.

A running estimate from measured passes: how long one takes that only draws, and how much longer each row of a prompt
makes it. Passes of at most 8 rows run on kernels of their own (kernels/matmul.py) on which a row costs less than in
the smallest chunk: where a chunk would take too long, prompts ride along in what those 8 leave free.

The answer may differ from run to run; it decides when a prompt's rows are computed, never what comes out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

from phi4mini.kernels.matmul import FEW

LONGER = 1.6  # how many times as long a pass with prompt rows may take as one without
LEAST = 8  # prompt rows of the smallest chunk
_RIDE = 4  # or so many, where the kernels for few rows leave them free: the least by which a prompt moves in a pass
_PROBE = 256  # passes after which a chunk is tried again, in case it has become cheaper; no percentile notices
_SEEN = 7  # measurements of a kind; their median forgives the pass that something else on the machine held up


class Pace:
    """`begin` and `end` around each pass; `rows` before the next."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = 0.0
        self._drawing: dict[int, deque[float]] = {}  # seconds of passes that only draw, by their rows
        self._alone: deque[float] = deque(maxlen=_SEEN)  # seconds a prompt row when nobody draws
        self._beside: deque[float] = deque(maxlen=_SEEN)  # seconds more for each row of a chunk beside drawing ones
        self._last = LEAST  # rows of the last such chunk
        self._rides = 0  # passes since then

    def begin(self) -> None:
        """A pass begins now."""
        self._began = self._clock()

    def end(self, drawing: int, prompt: int) -> None:
        """It is over, with so many rows of requests that draw and so many of prompts."""
        seconds = self._clock() - self._began
        if not drawing:
            self._alone.append(seconds / max(prompt, 1))
        elif not prompt:
            self._note(drawing, seconds)
        elif drawing + prompt <= FEW:
            self._rides += 1
        else:
            if not self._drawing and self._alone:  # nothing better is known: what the prompt's rows leave of it
                self._note(drawing, max(seconds - prompt * median(self._alone), 0.0))
            self._beside.append(max(seconds - self.seconds(drawing), 0.0) / prompt)
            self._last, self._rides = prompt, 0

    def seconds(self, drawing: int) -> float:
        """What a pass takes that only draws, as far as it is known; 0 if it is not."""
        if not self._drawing:
            return 0.0
        return median(self._drawing[min(self._drawing, key=lambda rows: abs(rows - drawing))])

    def rows(self, drawing: int) -> int:
        """Prompt rows allowed beside `drawing` rows: at most twice those of the last time, since what a row costs
        depends on how many there are.
        """
        if not self._beside or self._rides >= _PROBE:
            return LEAST
        spare, row = (LONGER - 1) * self.seconds(drawing), median(self._beside)
        most = 2 * self._last
        rows = most if spare >= most * row else int(spare / row)
        if rows >= LEAST:
            return rows
        return FEW - drawing if drawing + _RIDE <= FEW else LEAST

    def _note(self, drawing: int, seconds: float) -> None:
        self._drawing.setdefault(drawing, deque(maxlen=_SEEN)).append(seconds)
