"""The errors that a user can meet: each is one line that names the thing and the limit.

The command line prints the line and exits with 2; the server answers with the status of the error's class and the line.
A user never sees a traceback of one of these. An exception of any other class is a bug of ours.
"""

from __future__ import annotations


class Phi4MiniError(Exception):
    """Base class: bad input, or a machine that does not allow what was asked; never a bug of ours."""


class BadInput(Phi4MiniError):
    """A parameter, prompt, message or file content that cannot be used as given."""


class BadCheckpoint(Phi4MiniError):
    """A model file or folder that contradicts itself, is incomplete, or is of a kind that we refuse to open."""


class NotFound(Phi4MiniError):
    """A model, file, tensor or library that is not in the place where it was looked for."""


class NoSpace(Phi4MiniError):
    """The disk or the memory is too small for what was asked."""


class TooLong(Phi4MiniError):
    """A prompt that does not fit the context. Prompts are never cut."""

    def __init__(self, prompt_tokens: int, limit: int, longest: int, new_tokens: int | None = None) -> None:
        """`limit`: tokens of the context in use; `longest`: the most tokens that the model allows; `new_tokens`: how
        many the request asked for, None if it left the number open.
        """
        more = f"raise the context (-c, ctx), at most to {longest}, or shorten" if limit < longest else "shorten"
        super().__init__(
            f"the prompt has {prompt_tokens} tokens but the context holds {limit} including at least one new token; "
            f"{more} the prompt"
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit
        self.new_tokens = new_tokens


class NumericalError(Phi4MiniError):
    """NaN or infinite logits: the weights are damaged, or a computation overflowed. No token is drawn from them."""
