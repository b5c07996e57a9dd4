"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from ..records import Load

REGISTRY = CollectorRegistry()
SECONDS = Histogram(
    "visrag_request_seconds", "Time of a request", ["method", "route"], registry=REGISTRY,
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)  # fmt: skip
REQUESTS = Counter("visrag_requests", "Requests", ["method", "route", "status"], registry=REGISTRY)
STEPS = Counter("visrag_search_seconds", "Time of searches, by step", ["collection", "step"], registry=REGISTRY)
DOCUMENTS = Gauge("visrag_documents", "Documents, by state", ["collection", "state"], registry=REGISTRY)
WAITING = Gauge("visrag_queue_pages", "Pages in the queue, by step", ["collection", "step"], registry=REGISTRY)
CONTENT_TYPE = CONTENT_TYPE_LATEST


def observe_request(scope: Scope, status: int, seconds: float) -> None:
    """A request that was answered. Its route is the template of its path, as paths hold names of documents."""
    route = getattr(scope.get("route"), "path", "other")
    method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE") else "other"
    REQUESTS.labels(method, route, str(status)).inc()
    if not route.endswith("/events"):
        SECONDS.labels(method, route).observe(seconds)


def observe_search(collection: str, timings: dict[str, float]) -> None:
    for step, seconds in timings.items():
        STEPS.labels(collection, step).inc(seconds)


def observe_collection(collection: str, states: dict[str, int], load: dict[str, Load]) -> None:
    for state, count in states.items():
        DOCUMENTS.labels(collection, state).set(count)
    for step in ("ingest", "render", "text", "encode"):
        WAITING.labels(collection, step).set(load[step].pages if step in load else 0)


def text() -> bytes:
    return generate_latest(REGISTRY)
