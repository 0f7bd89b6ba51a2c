"""Metrics for Prometheus: counters and histograms of requests, and the engine's current load.

Promise: labels are bounded: known methods, route patterns and statuses, never text that a client sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from phi4mini.engine.request import Request
    from phi4mini.llm.runner import Runner

_STEPS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_SPANS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")


class Metrics:
    """One registry for each server. A metric that vLLM has too has vLLM's name."""

    def __init__(self, runner: Runner) -> None:
        self.registry = CollectorRegistry()
        # otherwise every counter gets a second metric with its time of creation
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"phi4mini_{name}", text, labels, registry=self.registry)

        def spans(name: str, text: str, buckets: Sequence[float] = _SPANS) -> Histogram:
            return Histogram(f"phi4mini_{name}", text, buckets=buckets, registry=self.registry)

        self.http = counter("http_requests", "Requests answered.", ("method", "route", "status"))
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self.cached_tokens = counter("cached_prompt_tokens", "Of those, found in the prefix cache.")
        self.generated_tokens = counter("generation_tokens", "Tokens of answers.")
        self.finished = counter("requests_finished", "Answers by why they ended.", ("reason",))
        self.cancelled = counter("requests_cancelled", "Given up because the client left.")
        self.cut_off = counter("requests_cut_off", "Clients that did not read what was sent.")
        self.refused = counter("requests_refused", "Not accepted: the queue was full.")
        self.http_seconds = spans("http_request_seconds", "From head to last byte.")
        self.queue = spans("request_queue_seconds", "From being queued to the first pass.")
        self.ttft = spans("time_to_first_token_seconds", "From being queued to the first token.")
        self.e2e = spans("e2e_request_latency_seconds", "From being queued to the end.")
        self.itl = spans("inter_token_latency_seconds", "Between one token and the next.", _STEPS)
        self.registry.register(_Engine(runner))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request that is over; status 499 means that the client left first."""
        self.http.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self.http_seconds.observe(seconds)

    def ended(self, request: Request, tokens: int) -> None:
        """Count an answer that is over, with its tokens and times."""
        times = request.timings
        self.prompt_tokens.inc(request.num_prompt)
        self.cached_tokens.inc(request.cached_tokens)
        self.generated_tokens.inc(tokens)
        self.finished.labels(request.finish_reason or "abort").inc()
        if times.started is not None:
            self.queue.observe(times.started - times.added)
        if times.first_token is not None:
            self.ttft.observe(times.prefill_seconds)
        self.e2e.observe(times.prefill_seconds + times.decode_seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class _Engine(Collector):
    """The engine's own figures, read whenever Prometheus asks."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("phi4mini_model_loaded", "1 while the model is in memory.", int(self._runner.loaded))
        yield CounterMetricFamily("phi4mini_engine_failures", "Passes that failed.", self._runner.crashes)
        if model := self._runner.model:
            load = model.engine.load()
            for name, text, value in (
                ("requests_running", "Requests in the current pass.", load.running),
                ("requests_waiting", "Requests that wait for a place.", load.waiting),
                ("kv_pages", "Pages of the KV cache.", load.pages),
                ("kv_pages_free", "Pages that can be handed out.", load.free),
                ("kv_pages_idle", "Of the free ones, those kept for prompts that begin alike.", load.idle),
            ):
                yield GaugeMetricFamily(f"phi4mini_{name}", text, value)
            yield CounterMetricFamily("phi4mini_preemptions", "Requests that stepped back.", load.preemptions)
            yield CounterMetricFamily("phi4mini_passes", "Passes computed.", load.passes)

    def describe(self) -> Iterator[Metric]:
        return iter(())
