"""`polylocal` with a wall clock that is wrong by the seconds written in a file: clocked.py FILE serve …"""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

from polylocal import clock
from polylocal.cli import main

_time, _time_ns = time.time, time.time_ns


def shift_clock(file: Path) -> None:
    """Replace the functions that all of polylocal uses to read the time. The monotonic clock stays right."""

    def shift_s() -> float:
        try:
            return float(file.read_text() or 0)
        except OSError:
            return 0.0

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(seconds=shift_s())

    time.time = lambda: _time() + shift_s()
    time.time_ns = lambda: _time_ns() + int(shift_s() * 1e9)
    clock.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    shift_clock(Path(sys.argv.pop(1)))
    main()
