"""Counts how long calls to the engine take, for the metrics, without the library of the metrics, which is large."""

import threading
import time
from bisect import bisect_left
from dataclasses import dataclass, field

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


@dataclass
class CallTimes:
    """The times of one call. `counts` has the calls by bucket; the last one is that of the calls above `BUCKETS_S`."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0
    created_at: float = field(default_factory=time.time)  # seconds since 1970


class EngineTimes:
    """Thread-safe. The engine reports to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, CallTimes] = {}

    def observe(self, call: str, seconds: float) -> None:
        """Note an answer of the engine: `call` as in `POST containers/start`."""
        with self._lock:
            times = self._calls.setdefault(call, CallTimes())
            times.counts[bisect_left(BUCKETS_S, seconds)] += 1
            times.sum_s += seconds

    def snapshot(self) -> dict[str, CallTimes]:
        """The times by call."""
        with self._lock:
            return {
                call: CallTimes(list(times.counts), times.sum_s, times.created_at)
                for call, times in self._calls.items()
            }
