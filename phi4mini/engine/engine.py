"""Ids in, ids out: requests are added, computed in passes, and their tokens handed out. Knows no text.

    engine = Engine(weights)
    for token in engine.generate(ids, SamplingParams(max_new_tokens=20)): ...

`step()` is the whole engine: schedule, compute, verify, hand out. Any number of requests may be read at once, in one
thread or several (dispatch.py). Promise: a request's tokens depend only on its ids, parameters and seed and on the
weights, not on the requests beside it, nor on where its prompt is cut, nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from phi4mini.engine.cache.budget import kv_budget
from phi4mini.engine.cache.disk import CacheFolder, Disk
from phi4mini.engine.cache.pages import Content, Pages
from phi4mini.engine.collate import collate, wanted_rows
from phi4mini.engine.compute.buffers import MAX_OUTPUTS, MAX_ROWS, rows_that_fit
from phi4mini.engine.compute.forward import Network
from phi4mini.engine.dispatch import Dispatcher
from phi4mini.engine.request import Finish, Request, Token
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.sample.sampling import token_logprobs
from phi4mini.engine.schedule.pace import Pace
from phi4mini.engine.schedule.prefix import Prefix
from phi4mini.engine.schedule.scheduler import Scheduler
from phi4mini.engine.scoring import Rows, score
from phi4mini.engine.status import EngineFacts, Load
from phi4mini.engine.verify import Verifier, note_prompt
from phi4mini.errors import BadInput, NumericalError, Phi4MiniError, TooLong
from phi4mini.kernels.kv import PAGE
from phi4mini.kernels.threads.count import thread_count
from phi4mini.kernels.threads.pool import Pool
from phi4mini.model.arrays import Weights
from phi4mini.model.longrope import RopeMode


class Engine:
    """A model ready to compute.

    `kv`: how the KV cache stores values, int8 or f32. `ctx`: the most tokens, prompt and answer, of one request;
    `kv_tokens`: the most tokens of all requests together in the KV cache; `places`: the most requests that run at once.
    `speculate`: guess tokens. `reuse`: a request begins with the cached pages of earlier requests with the same first
    tokens; with `disk` they outlive the process.

    The parts below the star are made from the rest when left out. `pool` runs the kernels, on its own number of
    threads, and is closed with the engine; `pages` is the exact size of the KV cache, whatever memory allows; `pace`
    and `rows_that_fit` bound the rows of a pass (schedule/pace.py, compute/buffers.py).
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
        kv_tokens: int | None = None,
        places: int | None = None,
        *,
        pool: Pool | None = None,
        pages: int | None = None,
        pace: Pace | None = None,
        rows_that_fit: Callable[[int], int] = rows_that_fit,
    ) -> None:
        if kv not in ("int8", "f32"):
            raise BadInput(f"kv must be int8 or f32, got {kv!r}")
        if places is not None and not 1 <= places <= MAX_OUTPUTS:
            raise BadInput(f"places must be from 1 to {MAX_OUTPUTS}, got {places}")
        self.config = weights.config
        count = pool.threads if pool else thread_count(threads)
        self.ctx, affordable = kv_budget(self.config, kv, weights.nbytes, ctx, kv_tokens, places)
        self.pool = pool or Pool(count)
        self.pages = Pages(affordable if pages is None else pages)
        self.network = Network(weights, kv, self.pages.count, self.pool)
        self.facts = _facts(weights, kv, self.pool, self.pages)
        content = Content(self.network.cache, self.network.layout)
        self.disk = Disk(disk, content) if disk else None
        prefix = Prefix(self.pages, content, self.disk) if reuse or disk else None
        self.scheduler = Scheduler(
            self.config, self.pages, self.ctx, speculate, places or MAX_OUTPUTS, prefix, pace, rows_that_fit
        )
        self.verifier = Verifier(self.config, self.ctx)
        self.dispatcher = Dispatcher(self._pass, self.add, self.abort)
        self._drawn = self._prompt_tokens = 0

    # requests --------------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> Request:
        """Queue a request. Raises TooLong for a prompt that leaves no room for a new token, BadInput for ids that
        are not in the vocabulary, or for an adapter.
        """
        self._check(request)
        with self.dispatcher.lock:
            self.scheduler.add(request)
        return request

    def abort(self, request: Request) -> None:
        """End a request now; it yields no more tokens."""
        with self.dispatcher.lock:
            if request.finish_reason is None:
                self._end(request, "abort")

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def step(self) -> list[Token]:
        """One pass: schedule, compute, verify, hand out. A running request gets one token, or more where its guess was
        right or its constraint leaves no choice. Readers of `tokens` and `generate` get their tokens as well.
        """
        return self.dispatcher.step()

    def _pass(self) -> list[Token]:
        pace = self.scheduler.pace
        pace.begin()
        chosen = self.scheduler.schedule()
        if not chosen:
            return []
        wanted, outputs = wanted_rows(chosen)
        logits = self.network.run(collate(self.config, chosen, wanted))
        tokens = []
        for (request, rows), output in zip(chosen, outputs, strict=True):
            tokens += self._settle(request, rows, logits[output])
        pace.end(self.scheduler.drawing_rows, self.scheduler.prompt_rows)
        return tokens

    def load(self) -> Load:
        """What the engine is doing now and has done so far. May be called from any thread."""
        scheduler, pages = self.scheduler, self.pages
        return Load(
            len(scheduler.running), len(scheduler.waiting), pages.count, pages.free, pages.idle,
            scheduler.preemptions, scheduler.passes, self._drawn, self._prompt_tokens, scheduler.cached_tokens,
        )  # fmt: skip

    def generate(
        self, prompt_ids: Sequence[int], params: SamplingParams | None = None, rope: RopeMode = "auto"
    ) -> Generator[Token, None, None]:
        """The tokens of one request as they come; any number of such loops may be open at once. Raises at once what
        `add` raises. The request is queued when the first token is asked for; leaving the loop early aborts it.
        """
        return self.tokens(Request(list(prompt_ids), params or SamplingParams(), rope))

    def tokens(self, request: Request, stopped: Callable[[], bool] = lambda: False) -> Generator[Token, None, None]:
        """As `generate`, for a request that was not added yet. `stopped()` being true aborts it, as leaving does.
        Raises the request's error if it ends in one.
        """
        self._check(request)
        return self.dispatcher.tokens(request, stopped)

    # scoring ---------------------------------------------------------------------------------------------------------

    def logits(self, ids: Sequence[int], rope: RopeMode = "auto") -> np.ndarray:
        """Logits after each of `ids`: float32 (n, vocab)."""
        with self.dispatcher.lock:  # a part is valid until the next pass, which another thread could make
            return np.concatenate([part.copy() for _, part in self.score(ids, rope)])

    def logprobs(self, ids: Sequence[int], rope: RopeMode = "auto") -> np.ndarray:
        """Log-probability of each token given those before it: float32 (n - 1,). Never holds all logits at once."""
        with self.dispatcher.lock:
            return np.concatenate([np.zeros(0, np.float32), *self.score_logprobs(ids, rope)])

    def score(self, ids: Sequence[int], rope: RopeMode = "auto") -> Rows:
        """`logits` pass by pass: (index of the first row, float32 (rows, vocab)), a view until the next pass. Between
        two passes the engine may step. Raises NumericalError for NaN or infinite logits.
        """
        return self._scored(ids, rope, head=True)

    def score_logprobs(self, ids: Sequence[int], rope: RopeMode = "auto") -> Iterator[np.ndarray]:
        """`logprobs` pass by pass, float32 (rows,); the last has a row less. Between two passes the engine may step."""
        passes = self.score(ids, rope)  # outside the generator below: bad ids raise now, not at the first pass
        return (_logprobs_of(part, ids[start + 1 : start + 1 + len(part)]) for start, part in passes)

    def hidden(self, ids: Sequence[int], rope: RopeMode = "auto") -> Rows:
        """Hidden states of `ids` after the final norm, the head's input, pass by pass: (index of the first row,
        float32 (rows, hidden_size)). Between two passes the engine may step. Raises NumericalError as `score` does.
        """
        return self._scored(ids, rope, head=False)

    def _scored(self, ids: Sequence[int], rope: RopeMode, head: bool) -> Rows:
        self._check_ids(ids)
        self.config.rope_set(len(ids), rope)
        if len(ids) > self.ctx:
            raise TooLong(len(ids), self.ctx, self.config.max_position_embeddings)
        request = Request(list(ids), SamplingParams(), rope)
        return score(self.network, self.pages, request, self._slice_rows, head)

    def _slice_rows(self) -> int:
        """Rows of a pass of scoring: as many as a prompt would get beside the requests that run."""
        running = len(self.scheduler.running)
        return self.scheduler.pace.rows(running) if running else MAX_ROWS

    def close(self) -> None:
        """End the threads; pages that are to stay on disk are written first. The engine cannot be used afterwards."""
        self.pool.close()
        if self.disk:
            self.disk.close()

    # the parts of a step ---------------------------------------------------------------------------------------------

    def _settle(self, request: Request, rows: int, logits: np.ndarray) -> list[Token]:
        """Account for a request's computed rows and draw its next tokens. An error ends this request alone; the tokens
        drawn before it are handed out.
        """
        guess, request.guess = request.guess, []
        self._count(request, rows - len(guess))
        request.seat.cached += rows - len(guess)
        tokens: list[Token] = []
        try:
            if request.wants_prompt_logprobs:
                note_prompt(request, rows, logits)
            if not request.pending:
                for token in self.verifier.draw(request, guess, logits[-1 - len(guess) :]):
                    tokens.append(token)
        except Phi4MiniError as error:
            self._fail(request, error)
        else:
            self._verified(request, guess, tokens)
        self._drawn += len(tokens)
        return tokens

    def _verified(self, request: Request, guess: list[int], tokens: list[Token]) -> None:
        """Count the rows of right guesses as computed; those of wrong ones are overwritten by the next pass."""
        right = 0
        while right < min(len(guess), len(tokens) - 1) and tokens[right].id == guess[right]:
            right += 1
        request.seat.cached += right
        self.scheduler.keep(request)
        if guess:
            request.guesser.learn(len(guess), right)
        if tokens and (reason := tokens[-1].finish):
            self._end(request, reason)

    def _count(self, request: Request, rows: int) -> None:
        self._prompt_tokens += max(min(request.cached + rows, request.num_prompt) - request.cached, 0)

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

    def _check(self, request: Request) -> None:
        self._check_ids(request.ids)
        request.params.check_vocabulary(self.config.vocab_size)
        self.config.rope_set(request.num_prompt, request.rope)  # raises for an unknown mode
        if request.adapter is not None:
            raise BadInput(f"adapter {request.adapter!r}: this engine computes no adapters")
        if request.num_prompt >= self.ctx:
            raise TooLong(request.num_prompt, self.ctx, self.config.max_position_embeddings)

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not len(ids):
            raise BadInput("the prompt is empty: at least one token is needed")
        for i in ids:
            if not 0 <= i < self.config.vocab_size:
                raise BadInput(f"token id {i} is not in the vocabulary of {self.config.vocab_size}")


def _facts(weights: Weights, kv: str, pool: Pool, pages: Pages) -> EngineFacts:
    looked_up = 0 if weights.head is weights.embed else weights.embed.nbytes
    token = weights.config.kv_bytes_per_token("int8" if kv == "int8" else "f32")
    return EngineFacts(kv, pool.threads, pages.count * PAGE, token, weights.nbytes - looked_up)


def _logprobs_of(rows: np.ndarray, following: Sequence[int]) -> np.ndarray:
    return token_logprobs(rows[: len(following)], list(following))
