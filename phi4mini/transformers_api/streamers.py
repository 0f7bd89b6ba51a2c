"""Streamers: `generate(streamer=...)` gives them each token when it is made. Ours print the text or are iterated.

Promises: pieces are whole characters; joined, they are the text that the tokens decode to. Any object with the two
methods of `BaseStreamer` is a streamer, transformers' own included.
"""

from __future__ import annotations

from queue import Queue
from typing import Any

from phi4mini.errors import BadInput
from phi4mini.transformers_api.arguments import taken
from phi4mini.transformers_api.ids import is_batch, rows_of
from phi4mini.transformers_api.tokenizer import PretrainedTokenizer


class BaseStreamer:
    """The two methods of a streamer."""

    def put(self, value: Any) -> None:
        """Take ids: first the prompt (1, n), then each new token (1,)."""
        raise NotImplementedError

    def end(self) -> None:
        """The answer is over."""
        raise NotImplementedError


class TextStreamer(BaseStreamer):
    """Prints the text when it comes, and a line end at the end."""

    def __init__(self, tokenizer: PretrainedTokenizer, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        """`decode_kwargs`: arguments of `decode`. Raises `BadInput` for any other."""
        self.tokenizer, self.skip_prompt = tokenizer, skip_prompt
        used = taken("decode", decode_kwargs)
        special = [token.id for token in tokenizer.backend.added_tokens if token.special]
        self._skipped = frozenset(special if used.get("skip_special_tokens") else ())
        self._prompt_comes = True
        self._text = tokenizer.backend.stream()

    def put(self, value: Any) -> None:
        """Take ids and pass on the text that is complete. Raises `BadInput` for several rows."""
        rows = rows_of(value)
        if is_batch(value) and len(rows) > 1:
            raise BadInput(f"a streamer takes one row, got {len(rows)}")
        prompt, self._prompt_comes = self._prompt_comes, False
        if prompt and self.skip_prompt:
            return
        self.on_finalized_text("".join(self._text.push(id) for id in rows[0] if id not in self._skipped))

    def end(self) -> None:
        """Pass on the rest and reset for the next prompt."""
        left, self._text, self._prompt_comes = self._text.flush(), self.tokenizer.backend.stream(), True
        self.on_finalized_text(left, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print the text; a subclass may override this."""
        print(text, flush=True, end="\n" if stream_end else "")


class TextIteratorStreamer(TextStreamer):
    """An iterator of text, to be read while `generate` runs in another thread."""

    def __init__(
        self,
        tokenizer: PretrainedTokenizer,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_kwargs: Any,
    ) -> None:
        """`timeout`: seconds to wait for text before `queue.Empty` is raised; None waits."""
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self.text_queue: Queue[str | None] = Queue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queue the text for the reader."""
        self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(None)

    def __iter__(self) -> TextIteratorStreamer:
        return self

    def __next__(self) -> str:
        text = self.text_queue.get(timeout=self.timeout)
        if text is None:
            raise StopIteration
        return text
