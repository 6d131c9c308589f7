"""The metrics of this installation in Prometheus' text format."""

import time
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from polylocal import __version__, clock
from polylocal.api.engine_times import BUCKETS_S, EngineTimes
from polylocal.files.disk import Disk
from polylocal.store import Store
from polylocal.store.rows import Figures

_CACHE_S = 5.0  # figures of the database are reused for so long


class Monitor:
    """All metrics. Thread-safe."""

    def __init__(
        self, store: Store, disk: Disk, engine_state: Callable[[], str | None], engine_times: EngineTimes
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(store, disk, engine_state))
        self._registry.register(EngineSeconds(engine_times))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Figures(Collector):
    """The figures of the database and the disk, counted when a client reads the metrics."""

    def __init__(self, store: Store, disk: Disk, engine_state: Callable[[], str | None]) -> None:
        self._store = store
        self._disk = disk
        self._engine_state = engine_state
        self._figures: tuple[float, Figures] | None = None

    def describe(self) -> Iterable[Metric]:
        return []  # otherwise the registration would count already

    def collect(self) -> Iterable[Metric]:
        figures = self._current()
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
        hits, about = max(0, used - figures.builds_used), "Runs whose image was there or under way already."
        yield CounterMetricFamily("polylocal_build_cache_hits", about, hits)
        about = "Runs whose image had to be made."
        yield CounterMetricFamily("polylocal_build_cache_misses", about, figures.builds_used)
        yield GaugeMetricFamily(
            "polylocal_disk_free_bytes", "Free on the home folder's disk.", self._disk.free_mib() * 2**20
        )
        yield GaugeMetricFamily(
            "polylocal_disk_full", "1: nothing new begins for want of room.", _bit(self._disk.problem())
        )
        yield GaugeMetricFamily("polylocal_engine_up", "1: the engine answers.", 1 - _bit(self._engine_state()))
        version = GaugeMetricFamily("polylocal_build_info", "The version.", labels=["version"])
        version.add_metric([__version__], 1)
        yield version

    def _current(self) -> Figures:
        now = time.monotonic()
        if self._figures is None or now - self._figures[0] > _CACHE_S:
            self._figures = (now, self._store.usage.figures())
        return self._figures[1]


class EngineSeconds(Collector):
    """The histogram of the engine's answers."""

    def __init__(self, times: EngineTimes) -> None:
        self._times = times

    def collect(self) -> Iterable[Metric]:
        about = "Seconds until the engine answers, by what it was asked for."
        histogram = HistogramMetricFamily("polylocal_engine_seconds", about, labels=["call"])
        for call, times in self._times.snapshot().items():
            bounds = [*map(str, BUCKETS_S), "+Inf"]
            histogram.add_metric([call], list(zip(bounds, accumulate(times.counts), strict=True)), times.sum_s)
            histogram.add_sample(f"{histogram.name}_created", {"call": call}, times.created_at)
        yield histogram


def _bit(problem: str | None) -> int:
    return int(problem is not None)
