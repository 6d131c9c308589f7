"""Timestamps as text: ISO 8601 in UTC, with microseconds and a numeric offset.

The text has a fixed width, so the order of two texts is the order of the times.
"""

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path


def now() -> str:
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """`2018-08-23T00:30:18.674062+00:00`; a naive time counts as UTC.

    Raises ValueError if the time is outside the years 1 to 9999 in UTC.
    """
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:  # the offset moves it beyond the first or last day of the calendar
        raise ValueError(f"{moment.isoformat()} is not between the years 1 and 9999 in UTC") from error
    return moment.isoformat(timespec="microseconds")


def parse(text: str) -> datetime:
    """Parse ISO 8601; a text without an offset is in UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_between(earlier: str, later: str) -> float:
    return (parse(later) - parse(earlier)).total_seconds()


@cache
def boot_id() -> str | None:
    """An identifier that changes with each boot of this machine; None if the system provides none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def uptime_s() -> float:
    """Seconds since this machine booted, including sleep where the system counts it."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)
