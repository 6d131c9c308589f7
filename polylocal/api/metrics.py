"""What can be watched from outside: the numbers of this installation in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from polylocal import __version__, clock
from polylocal.files.disk import Disk
from polylocal.store import Store
from polylocal.store.rows import Figures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_LOOK_S = 5.0  # figures are counted anew this often, whoever asks


class Monitor:
    """Thread-safe. What is kept is counted when somebody asks; what passes by is measured as it does."""

    def __init__(self, store: Store, disk: Disk, engine_state: Callable[[], str | None]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Kept(store, disk, engine_state))
        self._engine = Histogram(
            "polylocal_engine_seconds",
            "Seconds until the engine answers, by what it was asked for.",
            ["call"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def observe_engine(self, call: str, seconds: float) -> None:
        """The engine has answered: `call` as in `POST containers/start`."""
        self._engine.labels(call).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Kept(Collector):
    """What the database and the disk say."""

    def __init__(self, store: Store, disk: Disk, engine_state: Callable[[], str | None]) -> None:
        self._store = store
        self._disk = disk
        self._engine_state = engine_state
        self._figures: tuple[float, Figures] | None = None

    def describe(self) -> Iterable[Metric]:
        return []  # nothing is looked at before somebody asks

    def collect(self) -> Iterable[Metric]:
        figures = self._look()
        runs = GaugeMetricFamily("polylocal_runs", "Runs by kind and status.", labels=["kind", "status"])
        for kind, status, count in figures.runs:
            runs.add_metric([kind, status], count)
        yield runs
        yield GaugeMetricFamily("polylocal_queue_length", "Runs that wait to begin.", figures.waiting)
        wait_s = clock.seconds_between(figures.waiting_since, clock.now()) if figures.waiting_since else 0.0
        yield GaugeMetricFamily(
            "polylocal_queue_wait_seconds", "How long the first of them has waited.", max(0.0, wait_s)
        )
        used = figures.runs_with_build
        hits = CounterMetricFamily("polylocal_build_cache_hits", "Runs whose image was there or under way already.")
        hits.add_metric([], max(0, used - figures.builds_used))
        yield hits
        misses = CounterMetricFamily("polylocal_build_cache_misses", "Runs whose image had to be made.")
        misses.add_metric([], figures.builds_used)
        yield misses
        yield GaugeMetricFamily(
            "polylocal_disk_free_bytes", "Free on the home folder's disk.", self._disk.free_mib() * 2**20
        )
        yield GaugeMetricFamily(
            "polylocal_disk_full", "1: nothing new begins for want of room.", _bit(self._disk.problem())
        )
        yield GaugeMetricFamily("polylocal_engine_up", "1: the engine answers.", 1 - _bit(self._engine_state()))
        about = GaugeMetricFamily("polylocal_build_info", "The version.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about

    def _look(self) -> Figures:
        now = time.monotonic()
        if self._figures is None or now - self._figures[0] > _LOOK_S:
            self._figures = (now, self._store.usage.figures())
        return self._figures[1]


def _bit(problem: str | None) -> int:
    return int(problem is not None)
