"""What a server counts, for Prometheus and for Triton's statistics; nothing of any person."""

from __future__ import annotations

import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
PEOPLE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass
class Statistics:
    """Of one model, as Triton has them; times are nanoseconds, ``people`` its inferences."""

    people: int = 0
    batches: int = 0
    last_ms: int = 0
    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    queued_ns: int = 0
    ran_ns: int = 0


class Metrics:
    """Counters of one server.

    Args:
        models: names, which are the only ones that labels ever hold.
    """

    def __init__(self, models: tuple[str, ...]) -> None:
        self.registry = CollectorRegistry()
        self.statistics = {name: Statistics() for name in models}
        self._requests = Counter(
            "dtwin_requests", "Answers, by their code", ("protocol", "model", "code"),
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "dtwin_request_seconds", "From a request's headers to its answer",
            ("protocol", "model"), buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.queue_people = Gauge(
            "dtwin_queue_people", "People that wait for their turn", registry=self.registry
        )
        self.bodies_bytes = Gauge(
            "dtwin_bodies_bytes", "Bodies of requests in memory", registry=self.registry
        )
        self._batch_people = Histogram(
            "dtwin_batch_people", "People that were run together", ("model",), buckets=PEOPLE,
            registry=self.registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "dtwin_batch_seconds", "How long a batch ran", ("model",), buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip

    def answered(self, protocol: str, model: str, code: str, seconds: float) -> None:
        """Count an answer; ``code`` is ``ok`` or a refusal's, ``model`` any text."""
        known = self.statistics.get(model)
        label = model if known else ""
        self._requests.labels(protocol, label, code).inc()
        self._seconds.labels(protocol, label).observe(seconds)
        if known is None:
            return
        if code == "ok":
            known.succeeded += 1
            known.succeeded_ns += int(seconds * 1e9)
        else:
            known.failed += 1
            known.failed_ns += int(seconds * 1e9)

    def queued(self, model: str, seconds: float) -> None:
        """Count how long a request waited."""
        self.statistics[model].queued_ns += int(seconds * 1e9)

    def ran(self, model: str, n_people: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_people.labels(model).observe(n_people)
        self._batch_seconds.labels(model).observe(seconds)
        statistics = self.statistics[model]
        statistics.people += n_people
        statistics.batches += 1
        statistics.last_ms = int(time.time() * 1000)
        statistics.ran_ns += int(seconds * 1e9)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)

    def triton(self, model: str) -> dict[str, object]:
        """The statistics of a model, in the form of Triton's extension."""
        s = self.statistics[model]
        n_done = s.succeeded
        return {
            "name": model,
            "version": "1",
            "last_inference": s.last_ms,
            "inference_count": s.people,
            "execution_count": s.batches,
            "inference_stats": {
                "success": {"count": s.succeeded, "ns": s.succeeded_ns},
                "fail": {"count": s.failed, "ns": s.failed_ns},
                "queue": {"count": n_done, "ns": s.queued_ns},
                "compute_infer": {"count": n_done, "ns": s.ran_ns},
            },
        }
