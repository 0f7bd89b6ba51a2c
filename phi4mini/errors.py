"""Every error a user can meet: one line that names the thing and the limit.

The command line prints the line and exits with 2; the server turns it into a status; nothing here is ever a traceback.
"""

from __future__ import annotations


class Phi4MiniError(Exception):
    """Base of all errors that are the input's fault or the machine's limit, never a bug of ours."""


class BadInput(Phi4MiniError):
    """A parameter, prompt, message or file content that cannot be used as given."""


class BadCheckpoint(Phi4MiniError):
    """A model file or folder that lies, is incomplete, or is of a kind we refuse to open."""


class NotFound(Phi4MiniError):
    """A model, file or tensor that is not where it was said to be."""


class NoSpace(Phi4MiniError):
    """The disk or the memory budget cannot hold what was asked."""


class TooLong(Phi4MiniError):
    """A prompt that does not fit the context; nothing was cut."""

    def __init__(self, prompt_tokens: int, limit: int, longest: int, new_tokens: int | None = None) -> None:
        """`limit`: the context that was asked for; `longest`: the model's; `new_tokens`: asked for, if a number was."""
        more = f"raise the context (-c, ctx), at most to {longest}, or shorten" if limit < longest else "shorten"
        super().__init__(
            f"the prompt has {prompt_tokens} tokens but the context holds {limit} including at least one new token; "
            f"{more} the prompt"
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit
        self.new_tokens = new_tokens


class NumericalError(Phi4MiniError):
    """The model produced NaN or infinity: the weights are damaged or a computation overflowed; nothing is sampled."""
