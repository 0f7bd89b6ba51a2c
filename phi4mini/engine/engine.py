"""Ids in, ids out: requests added, stepped and handed out. Knows no text.

    engine = Engine(weights)
    for token in engine.generate(ids, SamplingParams(max_new_tokens=20)): ...

`step()` is the whole engine: schedule, run, sample, hand out. Requests may be read in turns or from several threads: a
token reaches the reader of its request, whoever made the pass (dispatch.py). A request's tokens depend on its ids,
parameters and seed and on the weights alone: whatever else runs beside it, however its prompt is cut, on any number of
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from phi4mini.engine.batch import gather, wanted_rows
from phi4mini.engine.cache.budget import kv_budget
from phi4mini.engine.cache.disk import CacheFolder, Disk
from phi4mini.engine.cache.pages import Content, Pages, Prefix
from phi4mini.engine.compute.buffers import MAX_OUTPUTS, MAX_ROWS
from phi4mini.engine.compute.forward import Network
from phi4mini.engine.dispatch import Dispatcher
from phi4mini.engine.request import Finish, PromptLogprob, Request, Token
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.engine.sample.sampling import token_logprobs, top_logprobs
from phi4mini.engine.schedule.scheduler import Scheduler
from phi4mini.engine.scoring import Rows, score
from phi4mini.engine.status import Load
from phi4mini.engine.verify import draw
from phi4mini.errors import BadInput, NumericalError, Phi4MiniError, TooLong
from phi4mini.kernels.threads.count import thread_count
from phi4mini.kernels.threads.pool import Pool
from phi4mini.model.arrays import Weights
from phi4mini.model.config import RopeMode


class Engine:
    """A model ready to compute. `ctx` is the most tokens (prompt and answer) that one request may have, `kv_tokens` the
    most that all requests together may have in the KV cache, `places` how many requests run at once. `reuse`: a
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
        kv_tokens: int | None = None,
        places: int | None = None,
    ) -> None:
        if kv not in ("int8", "f32"):
            raise BadInput(f"kv must be int8 or f32, got {kv!r}")
        if places is not None and not 1 <= places <= MAX_OUTPUTS:
            raise BadInput(f"places must be from 1 to {MAX_OUTPUTS}, got {places}")
        self.config, self.kv = weights.config, kv
        self.threads = thread_count(threads)
        self.ctx, pages = kv_budget(self.config, kv, weights.nbytes, ctx, kv_tokens, places)
        self.pool = Pool(self.threads)
        self.network = Network(weights, kv, pages, self.pool)
        self.pages = Pages(pages)
        content = Content(self.network.cache, self.network.layout)
        self.disk = Disk(disk, content) if disk else None
        prefix = Prefix(self.pages, content, self.disk) if reuse or disk else None
        self.scheduler = Scheduler(self.config, self.pages, self.ctx, speculate, places or MAX_OUTPUTS, prefix)
        self.dispatcher = Dispatcher(self._pass, self.add, self.abort)
        self._drawn = self._prompt_tokens = 0

    # requests --------------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> Request:
        """Queue a request. Raises TooLong for a prompt that leaves no room for a new token, BadInput for ids the
        model lacks.
        """
        self._check(request)
        with self.dispatcher.lock:
            self.scheduler.add(request)
        return request

    def abort(self, request: Request) -> None:
        """End a request now; no more tokens of it come."""
        with self.dispatcher.lock:
            if request.finish_reason is None:
                self._end(request, "abort")

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def step(self) -> list[Token]:
        """One pass: schedule, run, sample, hand out. A running request gets one token, or more where its guess was
        right or its constraint leaves no choice. Readers of `tokens` and `generate` get theirs as well.
        """
        return self.dispatcher.step()

    def _pass(self) -> list[Token]:
        pace = self.scheduler.pace
        pace.begin()
        chosen = self.scheduler.schedule()
        if not chosen:
            return []
        wanted, outputs = wanted_rows(chosen)
        logits = self.network.run(gather(self.config, chosen, wanted))
        tokens = []
        for (request, rows), its in zip(chosen, outputs, strict=True):
            tokens += self._settle(request, rows, logits[its])
        pace.end(self.scheduler.drawing_rows, self.scheduler.prompt_rows)
        return tokens

    def load(self) -> Load:
        """What the engine is doing now and has done so far; from any thread."""
        its, pages = self.scheduler, self.pages
        return Load(
            len(its.running), len(its.waiting), pages.count, pages.free, pages.idle,
            its.preemptions, its.passes, self._drawn, self._prompt_tokens, its.cached_tokens,
        )  # fmt: skip

    def generate(
        self, prompt_ids: Sequence[int], params: SamplingParams | None = None, rope: RopeMode = "auto"
    ) -> Generator[Token, None, None]:
        """The tokens of one request as they come; any number may be read in turns. What `add` refuses is refused here;
        the request begins with the first token that is asked for, and leaving the loop early ends it.
        """
        return self.tokens(Request(list(prompt_ids), params or SamplingParams(), rope))

    def tokens(self, request: Request, stopped: Callable[[], bool] = lambda: False) -> Generator[Token, None, None]:
        """As `generate`, for a request that was not added yet; `stopped` becoming true ends it as leaving does. Raises
        the request's error if it ends in one.
        """
        self._check(request)
        return self.dispatcher.tokens(request, stopped)

    # scoring ---------------------------------------------------------------------------------------------------------

    def logits(self, ids: Sequence[int], rope: RopeMode = "auto") -> np.ndarray:
        """Logits after each of ids (n,): float32 (n, vocab)."""
        with self.dispatcher.lock:  # a part is a view until the next pass, which another thread may make
            return np.concatenate([part.copy() for _, part in self.score(ids, rope)])

    def logprobs(self, ids: Sequence[int], rope: RopeMode = "auto") -> np.ndarray:
        """Log-probability of each token given those before it: float32 (n - 1,). Never holds all logits at once."""
        with self.dispatcher.lock:
            return np.concatenate([np.zeros(0, np.float32), *self.score_logprobs(ids, rope)])

    def score(self, ids: Sequence[int], rope: RopeMode = "auto") -> Rows:
        """The passes of `logits`: (index of the first row, float32 (rows, vocab)), a view until the next pass.
        Between two of them the engine may step. Raises NumericalError for NaN or infinite logits.
        """
        return self._scored(ids, rope, head=True)

    def score_logprobs(self, ids: Sequence[int], rope: RopeMode = "auto") -> Iterator[np.ndarray]:
        """The passes of `logprobs`, each float32 (rows,); the last has a row less. Between them the engine may step."""
        passes = self.score(ids, rope)  # refuses at once what it refuses
        return (_logprobs_of(part, ids[start + 1 : start + 1 + len(part)]) for start, part in passes)

    def hidden(self, ids: Sequence[int], rope: RopeMode = "auto") -> Rows:
        """Hidden states of ids after the final norm, what the head multiplies, in passes: (index of the first row,
        float32 (rows, hidden_size)). Between two of them the engine may step. Raises NumericalError as `score` does.
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
        """Rows of a pass of scoring: what a prompt would get beside the requests that run."""
        running = len(self.scheduler.running)
        return self.scheduler.pace.rows(running) if running else MAX_ROWS

    def close(self) -> None:
        """End the threads, after what is to stay on disk is written. The engine cannot be used after."""
        self.pool.close()
        if self.disk:
            self.disk.close()

    # the parts of a step ---------------------------------------------------------------------------------------------

    def _settle(self, request: Request, rows: int, logits: np.ndarray) -> list[Token]:
        """Account for a request's rows; draw its next token, and those after it as long as the guess holds. An error
        ends this request alone, with the tokens drawn before it handed out.
        """
        guess, request.guess = request.guess, []
        self._count(request, rows - len(guess))
        request.cached += rows - len(guess)
        tokens: list[Token] = []
        try:
            if request.wants_prompt_logprobs:
                self._note_prompt(request, rows, logits)
            if not request.pending:
                for token in draw(request, guess, logits[-1 - len(guess) :], self.config, self.ctx):
                    tokens.append(token)
        except Phi4MiniError as error:
            self._fail(request, error)
        else:
            self._verified(request, guess, tokens)
        self._drawn += len(tokens)
        return tokens

    def _verified(self, request: Request, guess: list[int], tokens: list[Token]) -> None:
        """Keep what was computed, of the guess as much as was drawn."""
        right = 0
        while right < min(len(guess), len(tokens) - 1) and tokens[right].id == guess[right]:
            right += 1
        request.cached += right  # K and V of the guessed tokens that were right
        self.scheduler.keep(request)
        if guess:
            request.guesser.learn(len(guess), right)
        if tokens and (reason := tokens[-1].finish):
            self._end(request, reason)

    def _count(self, request: Request, rows: int) -> None:
        self._prompt_tokens += max(min(request.cached + rows, request.num_prompt) - request.cached, 0)

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

    def _check(self, request: Request) -> None:
        self._check_ids(request.ids)
        request.params.check_vocabulary(self.config.vocab_size)
        self.config.rope_set(request.num_prompt, request.rope)  # refuses a mode that is none
        if request.num_prompt >= self.ctx:
            raise TooLong(request.num_prompt, self.ctx, self.config.max_position_embeddings)

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not len(ids):
            raise BadInput("the prompt is empty: at least one token is needed")
        for i in ids:
            if not 0 <= i < self.config.vocab_size:
                raise BadInput(f"token id {i} is not in the vocabulary of {self.config.vocab_size}")


def _logprobs_of(rows: np.ndarray, following: Sequence[int]) -> np.ndarray:
    return token_logprobs(rows[: len(following)], list(following))
