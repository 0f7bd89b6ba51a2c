"""One request between text and engine: keywords become its parameters, its tokens become text up to a stop string.

Promises: an unknown keyword is an error that names the nearest known one; `SamplingParams` is built once for a request;
a stop string is found however the text was cut into tokens, and never inside a tool call; a token counts as content
only if no stop string cut any part of it. It does not know conversations, or who steps the engine.
"""

from __future__ import annotations

import difflib
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, get_args

from phi4mini.chat import Event, StopMatcher, TextDelta
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import RANDOM_SEED, SamplingParams, random_seed
from phi4mini.errors import BadInput
from phi4mini.llm.keywords import BY_NAME, Rope
from phi4mini.llm.results import Generation, Seconds, TokenLogprob, Usage
from phi4mini.tokenizer import Tokenizer
from phi4mini.tokenizer.phi4 import PLACEHOLDERS

if TYPE_CHECKING:
    from phi4mini.engine.request import Token

_log = logging.getLogger(__name__)
_NOT_PARAMS = ("stop", "rope", "mask_untrained")  # keywords that are no field of SamplingParams
_ROPES: tuple[str, ...] = get_args(Rope)


class Reader(Protocol):
    """Turns ids into events, one id at a time; `phi4mini.chat.ReplyReader` is one."""

    def push(self, id: int) -> Sequence[Event]: ...
    def finish(self) -> Sequence[Event]: ...


class TextReader:
    """Turns ids into plain text; a control token comes out as it is spelled."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._stream = tokenizer.stream()

    def push(self, id: int) -> list[Event]:
        text = self._stream.push(id)
        return [TextDelta(text)] if text else []

    def finish(self) -> list[Event]:
        text = self._stream.flush()
        return [TextDelta(text)] if text else []


class ContentTokens:
    """Counts the leading tokens that are content for certain: not the end token, and none that a stop string cut.

    A token may give its text late: the first bytes of a character give none. So tokens are counted in groups, each
    ending with a token that gave events. A group is content once the stop matcher has released all of its text.
    """

    def __init__(self) -> None:
        self.count = 0
        self._groups: deque[tuple[int, int]] = deque()  # (tokens, characters) up to the group's end
        self._given = self._released = 0  # characters that went into the matcher, and that came out

    def read(self, tokens: int, events: Iterable[Event]) -> None:
        """Token number `tokens` gave these events; the matcher has not seen them yet."""
        self._given += sum(len(event.text) for event in events if isinstance(event, TextDelta))
        self._groups.append((tokens, self._given))

    def released(self, events: Iterable[Event]) -> None:
        """The matcher released these events."""
        self._released += sum(len(event.text) for event in events if isinstance(event, TextDelta))
        while self._groups and self._groups[0][1] <= self._released:
            self.count, _ = self._groups.popleft()

    def over(self, tokens: int) -> None:
        """The answer ended without a cut: all `tokens` are content."""
        self.count = tokens
        self._groups.clear()


class Run:
    """A request, its stop strings, and the tokens that have come so far."""

    def __init__(
        self,
        ids: Iterable[int],
        sampling: Mapping[str, Any],
        tokenizer: Tokenizer,
        untrained: Sequence[int],
        reader: Reader | None = None,
        **who: Any,
    ) -> None:
        """`sampling`: the keywords of `llm/keywords.py`. `untrained`: ids never drawn unless mask_untrained is False.
        `reader`: default plain text. `who`: salt, owner and constraint of the `Request`. Raises `BadInput`.
        """
        params = sampling_params(sampling, untrained)
        self.matcher = StopMatcher(sampling.get("stop") or ())
        self.request = Request(ids_of(ids), params, rope=sampling.get("rope", "auto"), **who)
        self.tokens: list[Token] = []
        self.scores_only = False  # only the prompt is scored; the token that the engine draws after it is dropped
        self._content = ContentTokens() if params.logprobs is not None else None
        self._told = 0  # content tokens that `new_logprobs` has returned
        self._reader: Reader = reader or TextReader(tokenizer)
        self._tokenizer = tokenizer

    @property
    def stopped(self) -> bool:
        """True once a stop string has ended the text; no more tokens are needed."""
        return self.matcher.matched is not None

    def events(self, tokens: Iterable[Token]) -> Iterator[Event]:
        """The events of all tokens, text cut at the first stop string; no token is taken after that."""
        for token in tokens:
            yield from self.push(token)
            if self.stopped:
                break
        yield from self.finish()

    def push(self, token: Token) -> list[Event]:
        """The events that are certain after this token; none once `stopped`."""
        if self.stopped or self.scores_only:
            return []
        self.tokens.append(token)
        if token.finish == "stop" and not token.complete:
            return []  # the id that ends an answer is not part of its text
        read = self._reader.push(token.id)
        if self._content is None:
            return list(self._before_stop(read))
        if read:
            self._content.read(len(self.tokens), read)
        events = list(self._before_stop(read))
        self._content.released(events)
        return events

    def finish(self) -> list[Event]:
        """The tokens are over: the events that were held back."""
        counts = (self.request.num_prompt, self.request.cached_tokens, len(self.tokens))
        _log.debug("%d prompt tokens, %d of them from cached pages, %d new; seed %d", *counts, self.request.seed)
        if self.stopped:
            return []
        last = list(self._before_stop(self._reader.finish()))
        if not self.stopped and self._content is not None:
            ended = bool(self.tokens) and self.tokens[-1].finish == "stop" and not self.tokens[-1].complete
            self._content.over(len(self.tokens) - ended)
        held = self.matcher.flush()
        return [*last, TextDelta(held)] if held else last

    def _before_stop(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, TextDelta):
                if text := self.matcher.push(event.text):
                    yield TextDelta(text)
            elif self.matcher.matched is None:
                if held := self.matcher.flush():
                    yield TextDelta(held)
                yield event

    def generation(self, text: str) -> Generation:
        """The result; `text` is the joined text of the events."""
        request, params = self.request, self.request.params
        ended = "stop" if self.stopped else "length" if self.scores_only else request.finish_reason or "abort"
        return Generation(
            ids=[token.id for token in self.tokens],
            text=text,
            finish_reason=ended,
            usage=Usage(request.num_prompt, len(self.tokens), request.cached_tokens),
            seed=request.seed,
            timings=Seconds(request.timings.prefill_seconds, request.timings.decode_seconds),
            logprobs=self._logprobs(self.tokens) if params.logprobs is not None else None,
            prompt_logprobs=self._logprobs(request.prompt_logprobs) if request.prompt_logprobs is not None else None,
        )

    def content_logprobs(self) -> list[TokenLogprob] | None:
        """Log-probabilities of the content's tokens; None if the request did not ask for them. The tokens' texts,
        joined, are a prefix of the content: all of it, unless a stop string cut a token in two.
        """
        return None if self._content is None else self.logprobs_from(0)

    def logprobs_from(self, start: int) -> list[TokenLogprob]:
        """As `content_logprobs`, from token `start` on; empty if the request did not ask for them."""
        return [] if self._content is None else self._logprobs(self.tokens[start : self._content.count])

    def new_logprobs(self) -> list[TokenLogprob]:
        """The entries of `content_logprobs` that are new since the last call."""
        new = self.logprobs_from(self._told)
        self._told += len(new)
        return new

    def _logprobs(self, noted: Iterable[Any]) -> list[TokenLogprob]:
        """Entries for tokens or prompt log-probabilities; None is the first prompt token, which nothing predicts."""
        named = self._tokenizer.token_text
        return [
            TokenLogprob(self.request.ids[0], named(self.request.ids[0]), None)
            if note is None
            else TokenLogprob(
                note.id,
                named(note.id),
                note.logprob,
                tuple(TokenLogprob(id, named(id), value) for id, value in note.top or ()),
            )
            for note in noted
        ]


def untrained_ids(tokenizer: Tokenizer, vocab_size: int) -> tuple[int, ...]:
    """Ids that no text has trained: free and unused rows, and Phi's placeholders, which no text encodes to."""
    placeholders = set(PLACEHOLDERS.values()) if tokenizer.is_phi4 else set()
    added = {token.id for token in tokenizer.added_tokens}
    return (*sorted((placeholders | tokenizer.unused_ids) - added), *range(len(tokenizer), vocab_size))


def check_keywords(sampling: Mapping[str, Any]) -> None:
    """Raise `BadInput` naming the keyword that is unknown or out of range; for callers that have no request yet."""
    sampling_params(sampling)
    StopMatcher(sampling.get("stop") or ())


def sampling_params(sampling: Mapping[str, Any], untrained: Sequence[int] = ()) -> SamplingParams:
    """The parameters of one request, built once: `untrained` ids are banned unless mask_untrained is False, and a seed
    is drawn if none is given. Raises `BadInput` naming the keyword that is unknown or out of range.
    """
    for name in sampling:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, 1, 0.0)[0]
            raise BadInput(f"unknown keyword {name!r}; the nearest there is: {near!r}")
    if sampling.get("rope", "auto") not in _ROPES:
        raise BadInput(f"rope must be {', '.join(_ROPES)}, not {sampling['rope']!r:.40}")
    masked = sampling.get("mask_untrained", True)
    if not isinstance(masked, bool):
        raise BadInput(f"mask_untrained must be true or false, not {masked!r:.40}")
    given = {name: value for name, value in sampling.items() if name not in _NOT_PARAMS}
    if masked:
        given["banned_ids"] = _with_untrained(given.get("banned_ids", ()), untrained)
    if given.get("seed") is None or _is(given["seed"], RANDOM_SEED):
        given["seed"] = random_seed()
    if _is(given.get("top_k"), -1):
        given["top_k"] = 0  # off, as in vLLM, llama.cpp and Ollama
    return SamplingParams(**given)


def _is(value: object, number: int) -> bool:
    """Only a plain integer is compared: an array would be compared element by element."""
    return type(value) is int and value == number


def _with_untrained(banned: Any, untrained: Sequence[int]) -> Any:
    """Both together; a value that is no list stays as it is, so that `SamplingParams` names it in its error."""
    is_list = isinstance(banned, Iterable) and not isinstance(banned, (str, bytes))
    return (*banned, *untrained) if is_list else banned


def ids_of(ids: Iterable[int]) -> list[int]:
    """Ids as plain integers. Raises `BadInput` for anything else, or none."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise BadInput(f"token ids must be a list of integers, got {ids!r:.60}")
    listed: list[Any] = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    bad = [i for i in listed if type(i) is not int]
    if bad:
        raise BadInput(f"token ids must be integers, got {bad[0]!r:.60}")
    if not listed:
        raise BadInput("the prompt is empty: there is no token to start from")
    return listed
