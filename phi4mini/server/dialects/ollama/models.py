"""Ollama's routes about the model: lists, details, the version; and embeddings.

Promises: names are `model:tag` as Ollama's clients expect them, and every name of the model is known with and without
`:latest`. No model can be pulled, created or deleted: the server has one model.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from phi4mini import __version__
from phi4mini.model.config import Config
from phi4mini.server.dialects.openai.embeddings import EmbeddingBody, embed
from phi4mini.server.dialects.sampling_fields import Some, Text
from phi4mini.server.facts import Facts
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import ApiError
from phi4mini.server.service import ServiceCall

SPOKEN = "0.13.0"  # version of Ollama's API; clients check that it is new enough for a feature
_FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


class Details(msgspec.Struct):
    """Details of a model in a list."""

    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    parent_model: str = ""


class Listed(msgspec.Struct):
    """A model of the list."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[str]


class Tags(msgspec.Struct):
    """All models: only the served one."""

    models: list[Listed]


class Running(msgspec.Struct):
    """A model in memory; `size_vram` is 0, since it is in main memory."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    context_length: int
    size_vram: int = 0


class RunningModels(msgspec.Struct):
    """The models in memory."""

    models: list[Running]


class ShowBody(msgspec.Struct, kw_only=True):
    """A model by name, under either field."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


class Shown(msgspec.Struct, kw_only=True):
    """Details of the model; `model_info` has GGUF's names, and the served context."""

    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str
    modelfile: str = ""
    parameters: str = ""
    template: str = ""


class Version(msgspec.Struct):
    """The supported version of Ollama's API, and the name of this program."""

    version: str
    server: str


class EmbedBody(msgspec.Struct, kw_only=True):
    """Texts; each becomes a vector."""

    model: str
    input: Text | list[Text]
    dimensions: Some | None = None


class Embedded(msgspec.Struct, kw_only=True):
    """One vector for each text, in their order."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    prompt_eval_count: int
    load_duration: int = 0


class OldEmbedBody(msgspec.Struct, kw_only=True):
    """One text."""

    model: str
    prompt: Text


class OldEmbedded(msgspec.Struct):
    """The vector of the text."""

    embedding: list[float]


def check_model(call: ServiceCall, name: str) -> None:
    """Raises 404 for another model than the served one, in the words that clients look for."""
    if not name:
        raise ApiError(400, "model is required", param="model")
    names = call.service.names
    if name not in names and name.removesuffix(":latest") not in names:
        raise ApiError(404, f"model '{name[:80]}' not found", param="model", code="model_not_found")


def tagged(name: str) -> str:
    """The name with a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def stamp(at: datetime | None = None) -> str:
    """A time as Ollama writes it; now if none is given."""
    return (at or datetime.now(UTC)).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def tags(call: ServiceCall) -> Tags:
    """The model that is served."""
    facts, name = call.service.facts, tagged(call.service.facts.id)
    began = stamp(datetime.fromtimestamp(call.service.created, UTC))
    return Tags([Listed(name, name, began, facts.nbytes, _digest(facts), _details(call), _capabilities(call))])


async def running(call: ServiceCall) -> RunningModels:
    """The model, while it is in memory."""
    service = call.service
    if not service.runner.loaded:
        return RunningModels([])
    facts, name = service.facts, tagged(service.facts.id)
    left = service.runner.unloads_in
    until = stamp(_FOREVER if left is None else datetime.now(UTC) + timedelta(seconds=left))
    return RunningModels([Running(name, name, facts.nbytes, _digest(facts), _details(call), until, facts.ctx)])


async def show(call: ServiceCall, body: ShowBody) -> Shown:
    """Details of the model."""
    check_model(call, body.model or body.name or "")
    service = call.service
    return Shown(
        details=_details(call),
        model_info=_info(service.text.config, service.facts),
        capabilities=_capabilities(call),
        modified_at=stamp(datetime.fromtimestamp(service.created, UTC)),
    )


async def version(call: ServiceCall) -> Version:
    """The version of the API."""
    return Version(SPOKEN, f"phi4mini {__version__}")


async def embedded(call: ServiceCall, body: EmbedBody) -> Embedded:
    """Vectors of texts."""
    check_model(call, body.model)
    began = time.monotonic_ns()
    made = await embed(call, EmbeddingBody(input=body.input, dimensions=body.dimensions))
    vectors: list[Any] = [one.embedding for one in made.data]
    return Embedded(
        model=body.model,
        embeddings=vectors,
        total_duration=time.monotonic_ns() - began,
        prompt_eval_count=made.usage.prompt_tokens,
    )


async def embedded_one(call: ServiceCall, body: OldEmbedBody) -> OldEmbedded:
    """The vector of a text; the older form of /api/embed."""
    made = await embedded(call, EmbedBody(model=body.model, input=body.prompt))
    return OldEmbedded(made.embeddings[0])


def _digest(facts: Facts) -> str:
    """A digest that differs for other weights and for another recipe."""
    return hashlib.sha256(facts.fingerprint.encode()).hexdigest()


def _details(call: ServiceCall) -> Details:
    facts, family = call.service.facts, call.service.text.config.architecture
    count = facts.parameters
    size = f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"
    return Details("phi4", family, [family], size, facts.quant)


def _capabilities(call: ServiceCall) -> list[str]:
    """What the model can do; tool calls need a known chat format."""
    return ["completion"] if call.service.text.chat_format == "none" else ["completion", "tools"]


def _info(config: Config, facts: Facts) -> dict[str, Any]:
    name = config.architecture
    return {
        "general.architecture": name,
        "general.parameter_count": facts.parameters,
        f"{name}.context_length": facts.ctx,
        f"{name}.embedding_length": config.hidden_size,
        f"{name}.block_count": config.num_layers,
        f"{name}.feed_forward_length": config.intermediate_size,
        f"{name}.attention.head_count": config.num_heads,
        f"{name}.attention.head_count_kv": config.num_kv_heads,
        f"{name}.rope.dimension_count": config.rotary_dim,
        f"{name}.vocab_size": config.vocab_size,
    }


def _row(method: str, path: str, handler: Any, summary: str, answer: Any, body: Any = None, works: bool = False) -> Any:
    return Endpoint(method, path, handler, summary, body=body, answer=answer, works=works, dialect="ollama")


ENDPOINTS = [
    _row("GET", "/api/tags", tags, "The models there are (Ollama's form).", Tags),
    _row("GET", "/api/ps", running, "The models in memory (Ollama's form).", RunningModels),
    _row("POST", "/api/show", show, "What a model is like (Ollama's form).", Shown, ShowBody),
    _row("GET", "/api/version", version, "The version of Ollama's API.", Version),
    _row("POST", "/api/embed", embedded, "Texts as vectors (Ollama's form).", Embedded, EmbedBody, True),
    _row("POST", "/api/embeddings", embedded_one, "A text as a vector (Ollama's).", OldEmbedded, OldEmbedBody, True),
]
