# SPDX-License-Identifier: Apache-2.0
"""The metrics of a server, for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

# Where several processes of one server keep their numbers, so that each tells those of all; read by the library, too.
SHARED_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The numbers of one application; each application has its own."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter("seekrec_requests", "Requests answered.", ["route", "method", "status"], registry=own)
        self.latency = Histogram(
            "seekrec_latency_seconds",
            "Seconds by stage: reading a history, waiting, answering a batch, the whole request.",
            ["stage"],
            registry=own,
            buckets=_SECONDS,
        )
        self.batch_size = Histogram(
            "seekrec_batch_size", "Requests that the model answered at once.", registry=own, buckets=_SIZES
        )
        self.queue = Gauge("seekrec_queue_length", "Requests that wait.", registry=own, multiprocess_mode="livesum")
        self.refused = Counter("seekrec_refused", "Requests that the queue had no room for.", registry=own)
        self.cache = Counter(
            "seekrec_cache",
            "Histories, and states of them, asked for, by whether memory had them.",
            ["cache", "result"],
            registry=own,
        )
        self.state_bytes = Gauge(
            "seekrec_state_bytes", "Bytes of states of users.", registry=own, multiprocess_mode="livesum"
        )
        self.events = Counter("seekrec_events", "Events kept.", registry=own)
        self.catalog_version = Gauge(
            "seekrec_catalog_version", "Version of the catalogue.", registry=own, multiprocess_mode="livemin"
        )
        self.num_items = Gauge(
            "seekrec_catalog_items", "Items that may be answered.", registry=own, multiprocess_mode="livemin"
        )

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.latency.labels(stage).observe(perf_counter() - start)

    def text(self) -> bytes:
        """Return the numbers as Prometheus reads them; those of all processes where there are several."""
        if SHARED_FOLDER_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)


__all__ = ["SHARED_FOLDER_VARIABLE", "Metrics"]
