"""How many prompt rows a pass may take beside requests that draw tokens, so that their tokens are hardly delayed.

Decoding reads every weight once a pass and hardly computes; a prompt row costs arithmetic. So each prompt row makes the
pass longer for all requests that draw. How much longer is estimated from measured passes: the time of a pass that only
draws, and the time that each prompt row adds. Passes of at most 8 rows run on kernels of their own (kernels/matmul.py)
where a row costs less than in the smallest chunk. Where even the smallest chunk would take too long, a few prompt rows
ride along in the rows that those kernels leave free.

The number of rows differs from run to run. It decides when a prompt's rows are computed, never their values.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

from phi4mini.kernels.matmul import FEW

LONGER = 1.6  # how many times as long a pass with prompt rows may take as one without
LEAST = 8  # prompt rows of the smallest chunk
_RIDE = 4  # least number of prompt rows that ride along; below it a chunk of 8 is taken instead
_PROBE = 256  # passes with riding rows after which a chunk is tried again: it may cost less now. 1 in 256 moves no p99
_SEEN = 7  # measurements kept of each kind; their median ignores a pass that another program held up


class Pace:
    """Call `begin` and `end` around each pass, and `rows` before the next. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = 0.0
        self._drawing: dict[int, deque[float]] = {}  # seconds of passes without prompt rows, by their number of rows
        self._alone: deque[float] = deque(maxlen=_SEEN)  # seconds a prompt row in passes where no request draws
        self._beside: deque[float] = deque(maxlen=_SEEN)  # seconds that each row of a chunk added to a pass
        self._last = LEAST  # rows of the last chunk beside drawing rows
        self._rides = 0  # passes with riding rows since then

    def begin(self) -> None:
        """A pass begins now."""
        self._began = self._clock()

    def end(self, drawing: int, prompt: int) -> None:
        """The pass is over; it had `drawing` rows of requests that draw and `prompt` rows of prompts."""
        seconds = self._clock() - self._began
        if not drawing:
            self._alone.append(seconds / max(prompt, 1))
        elif not prompt:
            self._note(drawing, seconds)
        elif drawing + prompt <= FEW:
            self._rides += 1
        else:
            if not self._drawing and self._alone:  # no pass only drew yet: subtract the known cost of the prompt rows
                self._note(drawing, max(seconds - prompt * median(self._alone), 0.0))
            self._beside.append(max(seconds - self.seconds(drawing), 0.0) / prompt)
            self._last, self._rides = prompt, 0

    def seconds(self, drawing: int) -> float:
        """Seconds of a pass of `drawing` rows without prompts, from the nearest number measured; 0 if none was."""
        if not self._drawing:
            return 0.0
        return median(self._drawing[min(self._drawing, key=lambda rows: abs(rows - drawing))])

    def rows(self, drawing: int) -> int:
        """Prompt rows allowed beside `drawing` rows. At most twice as many as the last time: the cost of a row depends
        on their number, so a measured cost says little about far larger chunks.
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
