"""POST /v1/embeddings: the mean of a text's hidden states after the final norm, of length 1.

Promises: the same input gives the same bits whatever else is served meanwhile; the answer says how the vectors are
made, since the model was not trained for embeddings.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
import numpy as np

from phi4mini.llm.model import Model
from phi4mini.server.dialects.prompts import prompt_ids, text_size
from phi4mini.server.dialects.sampling_fields import Some, Text
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall

POOLING = "mean of hidden states; this model was not trained for embeddings"
MOST_INPUTS = 256


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """Texts or ids; each becomes a vector."""

    input: Text | list[Any]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Some | None = None
    user: str | None = None


class Embedding(msgspec.Struct):
    """One vector: numbers, or float32 little-endian as base64."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(msgspec.Struct):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(msgspec.Struct, kw_only=True):
    """A vector for each input, in their order."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    pooling: str = POOLING
    object: Literal["list"] = "list"


async def embed(call: ServiceCall, body: EmbeddingBody) -> Embeddings:
    """Vectors of texts."""
    service = call.service
    service.check_model(body.model)
    size = service.text.config.hidden_size
    if body.dimensions not in (None, size):
        message = f"dimensions is {body.dimensions}; this model's vectors have {size} and are not cut"
        raise ApiError(400, message, param="dimensions", code="invalid_value")
    inputs = await service.apart(
        lambda: prompt_ids(service.text, body.input, "input", MOST_INPUTS), text_size(body.input)
    )
    for at, ids in enumerate(inputs):
        _check_length(len(ids), service.facts.ctx, at)
    values = await service.run_job(_job(inputs), call)
    vectors = [value for value in values if value is not None]
    total = sum(map(len, inputs))
    return Embeddings(
        data=[Embedding(index, _spelled(vector, body.encoding_format)) for index, vector in enumerate(vectors)],
        model=service.facts.id,
        usage=EmbeddingUsage(total, total),
    )


def _check_length(count: int, ctx: int, at: int) -> None:
    if count <= ctx:
        return
    code = "context_length_exceeded"
    message = f"input[{at}] is too long: {count} tokens > {ctx} maximum ({code}); "
    message += f"this model's maximum context length is {ctx} tokens"
    refused = ApiError(400, message, param=f"input[{at}]", code=code)
    refused.more = {"n_prompt_tokens": count, "n_ctx": ctx}
    raise refused


def _job(inputs: list[list[int]]) -> Callable[[Model], Iterator[np.ndarray | None]]:
    """A job for the runner: a slice of one input at a time, its vector after the last."""

    def job(model: Model) -> Iterator[np.ndarray | None]:
        for ids in inputs:
            total = np.zeros(model.config.hidden_size)
            for _, rows in model.engine.hidden(ids):
                for row in rows:  # row by row: the slices depend on other requests, and the order of additions must not
                    total += row
                yield None
            yield pooled(total)

    return job


def pooled(total: np.ndarray) -> np.ndarray:
    """A sum of hidden states, float64 (n,), as a unit vector, float32 (n,); their mean has the same direction."""
    length = float(np.sqrt((total * total).sum()))
    return (total / length if length else total).astype(np.float32)


def _spelled(vector: np.ndarray, encoding: str | None) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/embeddings",
        embed,
        "Texts as vectors.",
        body=EmbeddingBody,
        answer=Embeddings,
        works=True,
    )
]
