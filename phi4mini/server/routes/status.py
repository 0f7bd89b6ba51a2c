"""The server's own status: health, readiness, metrics, properties, models.

Promise: /health says nothing of the model, and /ready is 200 only if requests are answered.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from phi4mini import __version__
from phi4mini.server.http.call import Raw
from phi4mini.server.http.endpoint import Endpoint
from phi4mini.server.http.errors import unavailable
from phi4mini.server.service import ServiceCall


class Health(msgspec.Struct):
    """The process lives."""

    status: Literal["ok"]


class ModelCard(msgspec.Struct):
    """One model, in OpenAI's form; its context under the names of vLLM and OpenRouter, `meta` under llama-server's."""

    id: str
    created: int
    owned_by: str
    context_length: int
    max_model_len: int
    meta: dict[str, Any]
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct):
    """All models: the one that is served."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class Props(msgspec.Struct):
    """The model and the limits of the server."""

    model: str
    version: str
    n_ctx: int
    kv_tokens: int
    kv: str
    quant: str
    threads: int
    parameters: int
    places: int
    queue: int
    most_choices: int
    chat_format: str
    loaded: bool
    running: int
    defaults: dict[str, Any]
    system_fingerprint: str


async def health(call: ServiceCall) -> Health:
    """The process lives, whatever the model does."""
    return Health("ok")


async def ready(call: ServiceCall) -> Health:
    """Requests are answered; 503 while the server drains or has no model."""
    call.service.check_open()
    if call.service.runner.reopening:
        raise unavailable("the model is being opened again", "loading")
    return Health("ok")


async def metrics(call: ServiceCall) -> Raw:
    """Figures in Prometheus's text format."""
    return Raw(call.service.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")


async def props(call: ServiceCall) -> Props:
    """The model and the limits."""
    service, facts, settings = call.service, call.service.facts, call.service.settings
    return Props(
        model=facts.id,
        version=__version__,
        n_ctx=facts.ctx,
        kv_tokens=facts.kv_tokens,
        kv=facts.kv,
        quant=facts.quant,
        threads=facts.threads,
        parameters=facts.parameters,
        places=settings.places,
        queue=settings.queue,
        most_choices=settings.most_choices,
        chat_format=service.text.chat_format,
        loaded=service.runner.loaded,
        running=service.in_flight,
        defaults={"temperature": 0, "max_tokens": "until the model ends or the context is full"},
        system_fingerprint=facts.fingerprint,
    )


async def models(call: ServiceCall) -> ModelList:
    """The model that is served."""
    return ModelList([_card(call)])


async def model(call: ServiceCall) -> ModelCard:
    """One model by its name."""
    call.service.check_model(str(call.path["model"]))
    return _card(call)


def _card(call: ServiceCall) -> ModelCard:
    facts = call.service.facts
    meta = {"n_ctx": facts.ctx, "n_params": facts.parameters, "quant": facts.quant, "kv": facts.kv}
    return ModelCard(facts.id, call.service.created, "phi4mini", facts.ctx, facts.ctx, meta)


ENDPOINTS = [
    Endpoint("GET", "/health", health, "Whether the process lives.", answer=Health, open=True),
    Endpoint("GET", "/ready", ready, "Whether requests are answered.", answer=Health),
    Endpoint("GET", "/metrics", metrics, "Prometheus metrics.", kind="text/plain"),
    Endpoint("GET", "/props", props, "The model and the limits.", answer=Props),
    Endpoint("GET", "/v1/models", models, "The models there are.", answer=ModelList),
    Endpoint("GET", "/v1/models/{model:path}", model, "One model.", answer=ModelCard),
]
