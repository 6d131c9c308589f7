"""Times as polylocal keeps and sends them: UTC, ISO-8601, microseconds, numeric offset.

The text has a fixed width, so comparing two as text compares the moments.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path


def now() -> str:
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """`2018-08-23T00:30:18.674062+00:00`; a naive moment is read as UTC. Raises ValueError: in UTC it is no date."""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:  # within its offset of the first or the last day that there is
        raise ValueError(f"{moment.isoformat()} is not between the years 1 and 9999 in UTC") from error
    return moment.isoformat(timespec="microseconds")


def parse(text: str) -> datetime:
    """The moment that an ISO-8601 text names; no offset means UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_between(earlier: str, later: str) -> float:
    return (parse(later) - parse(earlier)).total_seconds()


@cache
def boot_id() -> str | None:
    """Another one after each start of this machine; None where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def uptime_s() -> float:
    """How long this machine has been up, sleep included where the system counts it."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)
