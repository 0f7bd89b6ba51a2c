"""Ids in, ids out: requests added, stepped and handed out. Knows no text.

    engine = Engine(weights)
    for token in engine.generate(ids, SamplingParams(max_new_tokens=20)): ...

`step()` is the whole engine: schedule, run, sample, hand out. A request's tokens depend on its ids, parameters and
seed and on the weights alone: whatever else runs beside it, however its prompt is cut, on any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from phi4mini.config import RopeMode
from phi4mini.engine.buffers import MAX_OUTPUTS, rows_that_fit
from phi4mini.engine.cache import Content, Pages, Prefix, pages_for
from phi4mini.engine.disk import CacheFolder, Disk
from phi4mini.engine.forward import Batch, Network
from phi4mini.engine.params import SamplingParams
from phi4mini.engine.request import Finish, PromptLogprob, Request, TopLogprobs
from phi4mini.engine.sampling import sample, token_logprobs, top_logprobs
from phi4mini.engine.scheduler import Scheduler
from phi4mini.errors import BadInput, NoSpace, NumericalError, Phi4MiniError, TooLong
from phi4mini.kernels.cpu import cpu
from phi4mini.kernels.kv import PAGE, KVLayout
from phi4mini.kernels.pool import Pool
from phi4mini.weights.arrays import Weights

_KV_SHARE = 0.8  # of the memory that is free beside the weights when the engine starts, what the KV cache may grow to


@dataclass(frozen=True)
class Token:
    """One drawn token of one request; the last one carries why the request ended."""

    request: Request
    id: int
    logprob: float | None
    top: TopLogprobs | None
    finish: Finish | None


class Engine:
    """A model ready to compute. `ctx` is the most tokens (prompt and answer) that one request may have. `reuse`: a
    request begins with what earlier ones have computed of the same tokens; with `disk`, after a restart too.
    """

    def __init__(
        self,
        weights: Weights,
        kv: str = "int8",
        threads: int | None = None,
        ctx: int | None = None,
        speculate: bool = True,
        reuse: bool = False,
        disk: CacheFolder | None = None,
    ) -> None:
        if kv not in ("int8", "f32"):
            raise BadInput(f"kv must be int8 or f32, got {kv!r}")
        self.config, self.kv = weights.config, kv
        self.threads = cpu().threads(threads)
        self.ctx, pages = self._budget(ctx, weights.nbytes)
        self.pool = Pool(self.threads)
        self.network = Network(weights, kv, pages, self.pool)
        self.pages = Pages(pages)
        content = Content(self.network.cache, self.network.layout)
        self.disk = Disk(disk, content) if disk else None
        prefix = Prefix(self.pages, content, self.disk) if reuse or disk else None
        self.scheduler = Scheduler(self.config, self.pages, self.ctx, speculate, prefix=prefix)

    # requests --------------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> Request:
        """Queue a request. Raises TooLong for a prompt that leaves no room for a new token, BadInput for ids the
        model lacks.
        """
        self._check_ids(request.ids)
        request.params.check_vocabulary(self.config.vocab_size)
        self.config.rope_set(request.num_prompt, request.rope)  # refuses a mode that is none
        if request.num_prompt >= self.ctx:
            raise TooLong(request.num_prompt, self.ctx)
        self.scheduler.add(request)
        return request

    def abort(self, request: Request) -> None:
        """End a request now; no more tokens of it come."""
        if request.finish_reason is None:
            self._end(request, "abort")

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def step(self) -> list[Token]:
        """One pass: schedule, run, sample, hand out. A running request gets one token, or more where its guess was
        right.
        """
        chosen = self.scheduler.schedule()
        if not chosen:
            return []
        batch, outputs = self._batch(chosen)
        logits = self.network.run(batch)
        tokens = []
        for (request, rows), wanted in zip(chosen, outputs, strict=True):
            tokens += self._settle(request, rows, logits[wanted])
        return tokens

    def generate(
        self, prompt_ids: Sequence[int], params: SamplingParams | None = None, rope: RopeMode = "auto"
    ) -> Iterator[Token]:
        """The tokens of one request as they come. Leaving the loop early ends the request."""
        request = self.add(Request(list(prompt_ids), params or SamplingParams(), rope))
        return self.tokens(request)

    def tokens(self, request: Request) -> Iterator[Token]:
        """The tokens of a request that was added, as they come; raises its error if it ends in one."""
        try:
            while request.finish_reason is None:
                yield from (t for t in self.step() if t.request is request)
            if request.error:
                raise request.error
        finally:
            self.abort(request)

    # scoring ---------------------------------------------------------------------------------------------------------

    def logits(self, ids: Sequence[int], rope: RopeMode = "auto") -> np.ndarray:
        """Logits after each of ids (n,): float32 (n, vocab)."""
        parts = [part.copy() for _, part in self._score(ids, rope)]
        return np.concatenate(parts)

    def logprobs(self, ids: Sequence[int], rope: RopeMode = "auto") -> np.ndarray:
        """Log-probability of each token given those before it: float32 (n - 1,). Never holds all logits at once."""
        parts = [np.zeros(0, np.float32)]
        for start, part in self._score(ids, rope):
            following = list(ids[start + 1 : start + 1 + len(part)])
            parts.append(token_logprobs(part[: len(following)], following))
        return np.concatenate(parts)

    def _score(self, ids: Sequence[int], rope: RopeMode) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first row, its logits) in passes of at most MAX_OUTPUTS rows, for a sequence of its own."""
        self._check_ids(ids)
        if len(ids) > self.ctx:
            raise TooLong(len(ids), self.ctx)
        request = Request(list(ids), SamplingParams(), rope)
        request.choose_rope(self.config)
        try:
            while request.pending:
                rows = min(request.pending, MAX_OUTPUTS, rows_that_fit(len(ids)))
                self.pages.grow(request.table, request.cached + rows)
                start = request.cached
                batch = self._gather([(request, rows)], np.arange(rows))
                request.cached += rows
                yield start, self.network.run(batch)
        finally:
            self.pages.release(request.table)

    def close(self) -> None:
        """End the threads, after what is to stay on disk is written. The engine cannot be used after."""
        self.pool.close()
        if self.disk:
            self.disk.close()

    # the parts of a step ---------------------------------------------------------------------------------------------

    def _batch(self, chosen: list[tuple[Request, int]]) -> tuple[Batch, list[slice]]:
        """The pass as arrays, and which rows of its logits are each request's."""
        wanted: list[int] = []
        outputs: list[slice] = []
        first = 0
        for request, rows in chosen:
            before = len(wanted)
            if request.wants_prompt_logprobs:
                wanted += range(first, first + rows)
            elif rows >= request.pending:  # the row of the last certain token, and those of the guess
                wanted += range(first + request.pending - 1, first + rows)
            outputs.append(slice(before, len(wanted)))
            first += rows
        return self._gather(chosen, np.array(wanted, np.int64)), outputs

    def _gather(self, chosen: list[tuple[Request, int]], wanted: np.ndarray) -> Batch:
        ids, positions, pages, cos, sin, runs, first = [], [], [], [], [], [], 0
        for request, rows in chosen:
            at = request.next_positions(rows)
            table = np.array(request.table, np.int32)
            ids.append(request.next_ids(rows))
            positions.append(at)
            pages.append(table[at // PAGE])
            c, s = self.config.rope_table(at, request.rope_set or "short")
            cos.append(c)
            sin.append(s)
            runs.append((first, rows, table))
            first += rows
        at = np.concatenate(positions)
        join = np.concatenate
        return Batch(join(ids), at, join(pages), at % PAGE, join(cos), join(sin), runs, wanted)

    def _settle(self, request: Request, rows: int, logits: np.ndarray) -> list[Token]:
        """Account for a request's rows; draw its next token, and those after it as long as the guess holds."""
        guess, request.guess = request.guess, []
        request.cached += rows - len(guess)
        try:
            if request.wants_prompt_logprobs:
                self._note_prompt(request, rows, logits)
            if request.pending:
                self.scheduler.keep(request)
                return []
            return self._draw(request, guess, logits[-1 - len(guess) :])
        except Phi4MiniError as error:
            self._fail(request, error)
            return []

    def _draw(self, request: Request, guess: list[int], logits: np.ndarray) -> list[Token]:
        """Tokens drawn row by row: each row's logits are right for as long as all tokens before it were drawn as
        guessed.
        """
        held = () if request.params.ignore_eos else self.config.eos_token_ids
        tokens: list[Token] = []
        for row in logits:
            choice = sample(row, request.params, request.history, len(request.ids), request.seed, held)
            finish = request.take(choice.id, self.config, self.ctx)
            tokens.append(Token(request, choice.id, choice.logprob, choice.top, finish))
            if finish or len(tokens) > len(guess) or choice.id != guess[len(tokens) - 1]:
                break
        request.cached += len(tokens) - 1  # K and V of the guessed tokens that were right
        self.scheduler.keep(request)
        if guess:
            request.guesser.learn(len(guess), len(tokens) - 1)
        if tokens[-1].finish:
            self._end(request, tokens[-1].finish)
        return tokens

    def _note_prompt(self, request: Request, rows: int, logits: np.ndarray) -> None:
        """Log-probabilities of the prompt's tokens that these rows predict; the row of the last one predicts the
        answer. Rows that are computed again, after the request stepped back, predict what is noted already.
        """
        count = request.params.prompt_logprobs or 0
        notes = request.prompt_logprobs or []
        first = request.cached - rows + 1  # the token that row 0 predicts
        for at in range(len(notes), min(first + rows, request.num_prompt)):
            row, following = at - first, request.ids[at]
            value = float(token_logprobs(logits[row : row + 1], [following])[0])
            notes.append(PromptLogprob(following, value, top_logprobs(logits[row], count)))

    def _fail(self, request: Request, error: Phi4MiniError) -> None:
        if isinstance(error, NumericalError):
            for page in self.scheduler.disown(request):
                self.network.drop(page)
        request.error = error
        self._end(request, "error")

    def _end(self, request: Request, reason: Finish) -> None:
        self.scheduler.remove(request)
        request.finish(reason, request.error)

    # limits ----------------------------------------------------------------------------------------------------------

    def _budget(self, ctx: int | None, weight_bytes: int) -> tuple[int, int]:
        """(ctx, pages): the model's longest context unless asked for less, and the pages that memory allows for it."""
        most = self.config.max_position_embeddings
        if ctx is not None and not 2 <= ctx <= most:
            raise BadInput(f"ctx must be from 2 to {most}, the model's longest context, got {ctx}")
        layout = KVLayout(self.kv, self.config.head_dim, self.config.num_kv_heads)
        page = layout.page_bytes * self.config.num_layers
        fits = max(int((cpu().memory_available - weight_bytes) * _KV_SHARE), 0) // page
        if ctx is not None and pages_for(ctx) > fits:
            raise BadInput(
                f"a context of {ctx} tokens takes {pages_for(ctx) * page / 1e9:.2f} GB of KV cache; "
                f"{fits * page / 1e9:.2f} GB are available, enough for {fits * PAGE} tokens"
            )
        if fits < 1:
            raise NoSpace(
                f"{cpu().memory_available / 1e9:.2f} GB of memory are available, not enough for "
                f"{weight_bytes / 1e9:.2f} GB of weights and a KV cache; close other programs or quantise to fewer bits"
            )
        pages = min(fits, pages_for(ctx or most))
        return min(ctx or most, pages * PAGE), pages

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not len(ids):
            raise BadInput("the prompt is empty: at least one token is needed")
        for i in ids:
            if not 0 <= i < self.config.vocab_size:
                raise BadInput(f"token id {i} is not in the vocabulary of {self.config.vocab_size}")
