"""Errors as HTTP: a status and a body, in OpenAI's form, under /v1/messages in Anthropic's and under /api/ in Ollama's.

Promises: every exception becomes an ApiError, which names the parameter at fault where there is one. Only errors about
the request keep their own words: a fault of the server or its machine becomes a 500 or a 503 that says nothing of
files, keys or code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from phi4mini.errors import BadInput, NoSpace, NumericalError, TooLong
from phi4mini.llm.runner import Crashed, NotOpened

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_LEADING_NAME = re.compile(r"^([a-z][a-z_]*(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*)[ :]")


class ApiError(Exception):
    """A request is refused, or fails while it is answered."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param
        self.code = "invalid_value" if status == 400 and code is None else code
        self.headers = dict(headers or {})
        self.more: dict[str, Any] = {}  # fields beside those that every error has

    def body(self, dialect: str = "openai") -> dict[str, Any]:
        """The JSON body in the form of a dialect."""
        if dialect == "ollama":
            return {"error": self.message}
        if dialect == "anthropic":
            kind = _ANTHROPIC_TYPES.get(self.status, "api_error")
            told = {"type": kind, "message": self.message, "param": self.param, "code": self.code}
            return {"type": "error", "error": told | self.more}
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error | self.more}


def dialect_of(path: str) -> str:
    """The dialect of a path's errors, also where there is no such route."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    return "ollama" if path.startswith("/api/") else "openai"


def busy(message: str, retry_after: int = 1) -> ApiError:
    """429: the queue is full; the client may try again after so many seconds."""
    headers = {"Retry-After": str(retry_after)}
    return ApiError(429, message, kind="rate_limit_error", code="queue_full", headers=headers)


def unavailable(message: str, code: str, retry_after: int = 5) -> ApiError:
    """503: the server is loading, draining, or has no model."""
    return ApiError(503, message, kind="server_error", code=code, headers={"Retry-After": str(retry_after)})


def not_loaded() -> ApiError:
    """503: the model could not be opened."""
    return unavailable("the model could not be opened; the server's log says why", "not_loaded")


def timed_out(seconds: float) -> ApiError:
    """504: the request's own deadline has passed."""
    return ApiError(504, f"the request took longer than its deadline of {seconds:g} s", kind="timeout", code="timeout")


def as_api_error(error: BaseException, names: Mapping[str, str] | None = None) -> ApiError:
    """Any exception as an ApiError. `names`: our parameter -> the request's name for it."""
    match error:
        case ApiError():
            return error
        case TooLong():
            return _too_long(error, names or {})
        case BadInput():
            message, param = _renamed(str(error), names or {})
            return ApiError(400, message, param=param)
        case NumericalError():
            return ApiError(500, str(error), kind="server_error", code="numerical_error")
        case NoSpace():
            return unavailable("there is no room in the KV cache for this now", "no_space")
        case NotOpened():
            return not_loaded()
        case Crashed():
            return ApiError(500, f"{error}; the request may be sent again", kind="server_error", code="engine_failed")
        case RecursionError():
            return ApiError(400, "the body is nested too deep", code="invalid_json")
        case _:
            return ApiError(500, "a fault of the server; its log says more", kind="server_error", code="internal_error")


def _too_long(error: TooLong, names: Mapping[str, str]) -> ApiError:
    """A prompt that does not fit the context, with both numbers, in the words that programs look for: Anthropic's
    sentences, OpenAI's code (in the message too: some programs see nothing else) and its "maximum context length".
    """
    prompt, limit, new = error.prompt_tokens, error.limit, error.new_tokens
    code = "context_length_exceeded"
    if prompt < limit and new is not None:
        asked = names.get("max_new_tokens", "max_tokens")
        message = f"input length and `{asked}` exceed context limit: {prompt} + {new} > {limit} ({code}); "
        message += f"at most {limit - prompt} new tokens fit"
    else:
        longest = limit if prompt > limit else limit - 1  # at least one new token must fit
        message = f"prompt is too long: {prompt} tokens > {longest} maximum ({code}); "
        message += f"this model's maximum context length is {limit} tokens, at least one of them new"
    refused = ApiError(400, message, param=names.get("messages", "messages"), code=code)
    refused.more = {"n_prompt_tokens": prompt, "n_ctx": limit}
    return refused


def _renamed(message: str, names: Mapping[str, str]) -> tuple[str, str | None]:
    """The message with the request's names in place of ours, and the parameter that it begins with."""
    for ours, theirs in names.items():
        if not ours.isalpha():  # a plain word may mean something else; quotes hold text that a client sent
            message = re.sub(rf"(?<!['\w]){re.escape(ours)}(?!['\w])", theirs, message)
    found = _LEADING_NAME.match(message)
    if not found:
        return message, None
    ours = found[1]
    theirs = names.get(ours, ours)
    known = theirs if "_" in theirs or theirs in KNOWN_WORDS or "[" in theirs or "." in theirs else None
    return theirs + message[len(ours) :], known


KNOWN_WORDS = frozenset({"messages", "tools", "stop", "seed", "rope", "model", "prompt", "input", "n", "temperature"})
