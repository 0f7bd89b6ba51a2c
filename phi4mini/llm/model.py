"""The waist: messages -> ids -> engine -> ids -> messages. It calls the rooms below and decides nothing of its own.

Promises: the same request with the same seed gives the same tokens; a prompt is never cut; several streams of one
`Model` may be open at once, read round-robin or from several threads. It knows text and the `Engine` class, and nothing
of the insides of engine, weights and kernels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from phi4mini import chat
from phi4mini.chat import CallArguments, CallBroken, CallEnd, CallStart, Event, Rendered, ReplyReader, TextDelta
from phi4mini.errors import BadCheckpoint, BadInput
from phi4mini.llm.keywords import SamplingKeywords
from phi4mini.llm.results import Generation, Reply, Stream
from phi4mini.llm.run import Reader, Run, ids_of, untrained_ids
from phi4mini.weights.chat_choice import open_for_chat
from phi4mini.weights.checkpoints.chat_template import check_chosen
from phi4mini.weights.load import ensure_store
from phi4mini.weights.resolve import DEFAULT, resolve
from phi4mini.weights.store.store import OpenModel, open_store

if TYPE_CHECKING:
    import numpy as np

    from phi4mini.engine.engine import Engine
    from phi4mini.engine.request import Token
    from phi4mini.engine.sample.constraint import Constraint
    from phi4mini.grammar import Grammars
    from phi4mini.model.config import Config
    from phi4mini.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
ChatPiece = str | CallStart | CallArguments | CallEnd | CallBroken


def load(
    model: str = DEFAULT,
    quant: str | None = None,
    kv: str = "int8",
    threads: int | None = None,
    ctx: int | None = None,
    *,
    speculate: bool = True,
    kv_tokens: int | None = None,
    places: int | None = None,
    prefix_cache: tuple[Path, int] | None = None,
    offline: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    chat_format: str | None = None,
) -> Model:
    """Open a model by hub id, folder, .gguf, packed file or "demo"; download and convert it first if need be.

    `quant`: f32, bf16, q8, q4, q4m, q4-head8; default q4, or the recipe of a packed file. `kv`: int8 or f32. `threads`:
    default all physical cores that the process may use. `ctx`: most tokens of prompt and answer, default as many as
    model and memory allow. `speculate`: guess tokens from the request's own text; the answer is the same. For several
    requests at once: `kv_tokens` of KV cache for all together (default one `ctx`), at most `places` requests in a pass.
    `prefix_cache`: a folder that keeps prompts after the process ends, and its most bytes. `progress(what, done,
    total)`: in bytes. `chat_format`: the name of another chat format than the model's own; the file is not changed.
    Raises `Phi4MiniError`.
    """
    from phi4mini.engine.cache.disk import CacheFolder
    from phi4mini.engine.engine import Engine  # imports the compiler, which a tokenizer does not need

    def opener() -> OpenModel:
        return open_store(ensure_store(model, quant, offline=offline, progress=progress))

    opened = open_for_chat(opener, model, chat_format)
    disk = CacheFolder(prefix_cache[0], opened.fingerprint, prefix_cache[1]) if prefix_cache else None
    limits: dict[str, Any] = {"threads": threads, "ctx": ctx, "kv_tokens": kv_tokens, "places": places}
    engine = Engine(opened.weights, kv, speculate=speculate, reuse=True, disk=disk, **limits)
    _log.debug("%s: chat format %s%s", model, opened.chat_format, _reason(opened, chat_format))
    _log.debug("%s: %s weights, %s KV, %d threads, ctx %d", model, opened.recipe, kv, engine.facts.threads, engine.ctx)
    return Model(opened, engine, name=model)


def _reason(opened: OpenModel, chat_format: str | None) -> str:
    """Where the chat format comes from, for a log line."""
    if chat_format is not None:
        return ", as asked for"
    return f": {opened.chat_note}" if opened.chat_note else ", by the model's own template"


def load_tokenizer(model: str, offline: bool = False, chat_format: str | None = None) -> tuple[Tokenizer, str]:
    """A model's tokenizer and the name of its chat format; Phi-4-mini-instruct's own needs no file.

    `chat_format`: another format's name, as for `load`.
    """
    from phi4mini.tokenizer import phi4_mini

    if resolve(model).is_default:
        tokenizer = phi4_mini()
        if chat_format is not None:
            check_chosen(chat_format, tokenizer)
        return tokenizer, chat_format or "phi"
    opened = open_for_chat(lambda: open_store(ensure_store(model, offline=offline)), model, chat_format)
    text = TextModel(model, opened.config, opened.tokenizer, opened.chat_format)
    return text.tokenizer, text.chat_format


def load_config(model: str, offline: bool = False) -> Config:
    """A model's numbers; Phi-4-mini-instruct's own need no file."""
    from phi4mini.model.config import Config

    if resolve(model).is_default:
        return Config.phi4_mini()
    return open_store(ensure_store(model, offline=offline)).config


def generation_defaults(model: str) -> dict[str, Any]:
    """The generation_config.json of a folder, or of a hub model in this disk's cache; {} without one.

    Raises `BadCheckpoint` for a file that is not a JSON object.
    """
    from phi4mini.weights.checkpoints.folder import read_json
    from phi4mini.weights.sources.hub_gguf import whole

    source = resolve(model)
    folder = whole(source.repo, source.variant) if source.kind == "hub" else source.path
    if folder is None or not folder.is_dir():
        return {}
    found = read_json(folder, "generation_config.json", {})
    if not isinstance(found, dict):
        raise BadCheckpoint(f"{folder}: generation_config.json must hold an object, got {type(found).__name__}")
    return found


class TextModel:
    """The part of a model that needs no weights: conversations and text to ids, and requests made of ids."""

    def __init__(self, name: str, config: Config, tokenizer: Tokenizer, chat_format: str) -> None:
        """`chat_format`: the name of the chat format; "none" when the model's template is not known here."""
        self.name, self.config, self.tokenizer, self.chat_format = name, config, tokenizer, chat_format
        if chat_format != "none":
            tokenizer.keep_out(chat.format_named(chat_format).tokens)

    def render(
        self,
        messages: str | Sequence[Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> Rendered:
        """The ids the model sees for a conversation, with loss mask and text."""
        if self.chat_format == "none":
            raise BadInput(
                f"{self.name} has no chat format that is known here; it can only continue text. "
                f"--chat-format NAME (chat_format= in Python) sets one"
            )
        turns: Sequence[Any] = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return chat.render(turns, tools, add_generation_prompt, tokenizer=self.tokenizer, format=self.chat_format)

    def run(self, ids: Iterable[int], sampling: Mapping[str, Any], reader: Reader | None = None, **who: Any) -> Run:
        """A request for ids, ready for an engine. `sampling`: keywords. `who`: its salt, owner and constraint."""
        return Run(ids, sampling, self.tokenizer, self.untrained_ids, reader, **who)

    def reader(self, tools: Sequence[Mapping[str, Any]] | None = None) -> ReplyReader:
        """A reader of one reply's ids; `tools` tell it which calls there may be."""
        return ReplyReader(self.tokenizer, self.chat_format, tools)

    @cached_property
    def untrained_ids(self) -> tuple[int, ...]:
        """Ids that are never drawn unless `mask_untrained=False`."""
        return untrained_ids(self.tokenizer, self.config.vocab_size)

    @cached_property
    def grammars(self) -> Grammars:
        """JSON schemas, regular expressions and tool calls as constraints; needs llguidance (the extra `serve`)."""
        from phi4mini.grammar import Grammars

        return Grammars.of(self.tokenizer, self.config.vocab_size, self.config.eos_token_ids)

    def text_side(self) -> TextModel:
        """A copy without weights, which stays usable after `Model.close`."""
        return TextModel(self.name, self.config, self.tokenizer, self.chat_format)


class Model(TextModel):
    """A loaded model. Close it, or use it in a `with` block, to give its threads and memory back."""

    def __init__(self, opened: OpenModel, engine: Engine, name: str) -> None:
        super().__init__(name, opened.config, opened.tokenizer, opened.chat_format)
        self.store = opened
        self.engine = engine

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; the model cannot be used again."""
        self.engine.close()

    # ---- conversations

    def chat(
        self,
        messages: str | Sequence[Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
        constraint: Constraint | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Reply:
        """The answer to a conversation, or to one user message given as text. Keywords: `docs/python.md`."""
        return self.stream(messages, tools, constraint, **sampling).result

    def stream(
        self,
        messages: str | Sequence[Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
        constraint: Constraint | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Stream[ChatPiece, Reply]:
        """The answer while it is made: text as str, tool calls as events of `phi4mini.chat`; `.result` is the `Reply`.
        `constraint`: the form that the answer must have, from `grammars`; a constraint serves one answer only.
        """
        run = self.run(self.render(messages, tools).ids, sampling, self.reader(tools), constraint=constraint)
        return Stream(lambda stopped: self._reply(run, stopped))

    # ---- ids

    def generate(
        self,
        prompt: str | Iterable[int],
        constraint: Constraint | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Generation:
        """Continue ids, or plain text, without any chat format."""
        return self.stream_generate(prompt, constraint, **sampling).result

    def stream_generate(
        self,
        prompt: str | Iterable[int],
        constraint: Constraint | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Stream[str, Generation]:
        """As `generate`, text piece by piece; `.result` is the `Generation`."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        run = self.run(ids, sampling, constraint=constraint)
        return Stream(lambda stopped: self._text(run, stopped))

    def stream_ids(self, prompt: Iterable[int], **sampling: Unpack[SamplingKeywords]) -> Stream[int, Generation]:
        """The new ids, each when it is made; `.result` is the `Generation`."""
        run = self.run(prompt, sampling)
        return Stream(lambda stopped: self._ids(run, stopped))

    def logits(self, ids: Iterable[int], rope: Any = "auto") -> np.ndarray:
        """Logits after every one of n ids: float32 (n, vocab)."""
        return self.engine.logits(ids_of(ids), rope=rope)

    def logprobs(self, ids: Iterable[int], rope: Any = "auto") -> np.ndarray:
        """Natural log-probability of every id but the first, given those before it: float32 (n - 1,)."""
        return self.engine.logprobs(ids_of(ids), rope=rope)

    # ---- from tokens to the pieces of a stream

    def _reply(self, run: Run, stopped: Callable[[], bool]) -> Generator[ChatPiece, None, Reply]:
        events: list[Event] = []
        with closing(self._tokens(run, stopped)) as tokens:
            for event in run.events(tokens):
                events.append(event)
                yield event.text if isinstance(event, TextDelta) else event
        return reply_from(events, run)

    def _text(self, run: Run, stopped: Callable[[], bool]) -> Generator[str, None, Generation]:
        pieces = []
        with closing(self._tokens(run, stopped)) as tokens:
            for event in run.events(tokens):
                if isinstance(event, TextDelta):
                    pieces.append(event.text)
                    yield event.text
        return run.generation("".join(pieces))

    def _ids(self, run: Run, stopped: Callable[[], bool]) -> Generator[int, None, Generation]:
        events: list[Event] = []
        with closing(self._tokens(run, stopped)) as tokens:
            for token in tokens:
                events += run.push(token)
                yield token.id
                if run.stopped:
                    break
        events += run.finish()
        return run.generation("".join(event.text for event in events if isinstance(event, TextDelta)))

    def _tokens(self, run: Run, stopped: Callable[[], bool]) -> Generator[Token, None, None]:
        return self.engine.tokens(run.request, stopped)


def reply_from(events: Iterable[Event], run: Run) -> Reply:
    """The reply that all events of a run make, with the generation it was read from."""
    read = chat.reply_of(events)
    made = run.generation(read.content)
    return Reply(
        read.content,
        read.tool_calls,
        finish_reason="tool_calls" if read.tool_calls and made.finish_reason == "stop" else made.finish_reason,
        prompt_tokens=made.usage.prompt_tokens,
        completion_tokens=made.usage.completion_tokens,
        cached_tokens=made.usage.cached_tokens,
        ids=made.ids,
        logprobs=made.logprobs,
        generation=made,
    )
