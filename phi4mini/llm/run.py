"""One request between text and engine: keywords become its parameters, its tokens become text up to a stop string.

Promises: an unknown keyword is refused by name with the nearest one; stop strings are found in text however it was cut
into tokens, and never inside a tool call; what is said to be a token of the content was not cut off by one, not even in
part. It does not know conversations or what runs the engine.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from phi4mini.chat import Event, StopMatcher, TextDelta
from phi4mini.engine.request import Request
from phi4mini.engine.sample.params import SamplingParams
from phi4mini.errors import BadInput
from phi4mini.llm.results import Generation, Timings, TokenLogprob, Usage
from phi4mini.tokenizer import Tokenizer
from phi4mini.tokenizer.phi4 import PLACEHOLDERS

if TYPE_CHECKING:
    from phi4mini.engine.request import Token

_OURS = ("stop", "rope", "mask_untrained")  # besides the fields of SamplingParams
_ROPES = ("auto", "short", "long")
KEYWORDS = (*_OURS, *(field.name for field in fields(SamplingParams)))


class Reader(Protocol):
    """Ids to events, one at a time."""

    def push(self, id: int) -> Sequence[Event]: ...
    def finish(self) -> Sequence[Event]: ...


class TextReader:
    """Ids to text, with nothing read into them: control tokens come out as they are spelled."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._stream = tokenizer.stream()

    def push(self, id: int) -> list[Event]:
        text = self._stream.push(id)
        return [TextDelta(text)] if text else []

    def finish(self) -> list[Event]:
        text = self._stream.flush()
        return [TextDelta(text)] if text else []


class ContentTokens:
    """How many of the first tokens are certain to be content: the end token, and what a stop string cut, are not.

    Text may come later than its token, inside a character for instance. So tokens are taken in groups, each ending with
    one that something came of; the text of a group is content when the stop matcher has let all of it go.
    """

    def __init__(self) -> None:
        self.count = 0
        self._groups: deque[tuple[int, int]] = deque()  # (tokens up to its end, characters up to its end)
        self._given = self._released = 0  # characters, to the matcher and from it

    def read(self, tokens: int, events: Iterable[Event]) -> None:
        """Something came of the last of so many tokens, before the matcher sees it."""
        self._given += sum(len(event.text) for event in events if isinstance(event, TextDelta))
        self._groups.append((tokens, self._given))

    def released(self, events: Iterable[Event]) -> None:
        """What the matcher let go."""
        self._released += sum(len(event.text) for event in events if isinstance(event, TextDelta))
        while self._groups and self._groups[0][1] <= self._released:
            self.count, _ = self._groups.popleft()

    def over(self, tokens: int) -> None:
        """Nothing was cut: all of so many tokens are content."""
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
        """`sampling` as `parameters` takes it. `untrained`: ids never drawn unless mask_untrained is False. `reader`:
        default plain text. `who`: salt, owner and constraint of the `Request`.
        """
        params, self.matcher = parameters(sampling)
        if sampling.get("mask_untrained", True):
            params = replace(params, banned_ids=(*params.banned_ids, *untrained))
        self.request = Request(ids_of(ids), params, rope=sampling.get("rope", "auto"), **who)
        self.tokens: list[Token] = []
        self.scores_only = False  # the prompt is all that is asked for: what the engine draws after it is dropped
        self._content = ContentTokens() if params.logprobs is not None else None
        self._told = 0  # tokens of the content that `new_logprobs` has given
        self._reader: Reader = reader or TextReader(tokenizer)
        self._tokenizer = tokenizer

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text, so that no more tokens are wanted."""
        return self.matcher.matched is not None

    def events(self, tokens: Iterable[Token]) -> Iterator[Event]:
        """What the reader makes of all the tokens, with text cut at the first stop string; none is taken after that."""
        for token in tokens:
            yield from self.push(token)
            if self.stopped:
                break
        yield from self.finish()

    def push(self, token: Token) -> list[Event]:
        """What became certain with this token; nothing any more once `stopped`."""
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
        """The tokens are over: what was held back."""
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
        """The result, `text` being what the events spelled."""
        request, params = self.request, self.request.params
        ended = "stop" if self.stopped else "length" if self.scores_only else request.finish_reason or "abort"
        return Generation(
            ids=[token.id for token in self.tokens],
            text=text,
            finish_reason=ended,
            usage=Usage(request.num_prompt, len(self.tokens), request.cached_tokens),
            seed=request.seed,
            timings=Timings(request.timings.prefill_seconds, request.timings.decode_seconds),
            logprobs=self._logprobs(self.tokens) if params.logprobs is not None else None,
            prompt_logprobs=self._logprobs(request.prompt_logprobs) if request.prompt_logprobs is not None else None,
        )

    def content_logprobs(self) -> list[TokenLogprob] | None:
        """Of the tokens that are content for certain; None where log-probabilities were not asked for. Their texts,
        joined, are what the content begins with: all of it, unless a stop string cut a token in two.
        """
        return None if self._content is None else self.logprobs_from(0)

    def logprobs_from(self, start: int) -> list[TokenLogprob]:
        """Of the content's tokens from that one on, where log-probabilities were asked for."""
        return [] if self._content is None else self._logprobs(self.tokens[start : self._content.count])

    def new_logprobs(self) -> list[TokenLogprob]:
        """The part of `content_logprobs` that has come since the last call."""
        new = self.logprobs_from(self._told)
        self._told += len(new)
        return new

    def _logprobs(self, noted: Iterable[Any]) -> list[TokenLogprob]:
        """From tokens or prompt log-probabilities; None stands for the first prompt token, which nothing predicts."""
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
    """Rows that no text has trained: free and unused ones, and Phi's placeholders, which no text is encoded to."""
    placeholders = set(PLACEHOLDERS.values()) if tokenizer.is_phi4 else set()
    added = {token.id for token in tokenizer.added_tokens}
    return (*sorted((placeholders | tokenizer.unused_ids) - added), *range(len(tokenizer), vocab_size))


def parameters(sampling: Mapping[str, Any]) -> tuple[SamplingParams, StopMatcher]:
    """What the keywords mean: fields of SamplingParams; stop, a text or a list; rope; mask_untrained, a bool.

    Raises `BadInput` naming what is unknown or out of range, before there is a model.
    """
    for name in sampling:
        if name not in KEYWORDS:
            near = difflib.get_close_matches(name, KEYWORDS, 1, 0.0)[0]
            raise BadInput(f"unknown keyword {name!r}; the nearest there is: {near!r}")
    if sampling.get("rope", "auto") not in _ROPES:
        raise BadInput(f"rope must be {', '.join(_ROPES)}, not {sampling['rope']!r:.40}")
    if not isinstance(sampling.get("mask_untrained", True), bool):
        raise BadInput(f"mask_untrained must be true or false, not {sampling['mask_untrained']!r:.40}")
    params = SamplingParams(**{name: value for name, value in sampling.items() if name not in _OURS})
    return params, StopMatcher(sampling.get("stop") or ())


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
