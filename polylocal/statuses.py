"""The kinds and the life cycle of runs, as data. Pure.

Source: the platform's own transition tables, with the guard that holds for every job-like run:
once done, no further status is recorded.
"""

from enum import StrEnum


class Kind(StrEnum):
    """The kind of a run. All kinds share one table, one life cycle and one set of endpoints."""

    BUILD = "build"
    JOB = "job"
    EXPERIMENT = "experiment"
    GROUP = "group"
    NOTEBOOK = "notebook"
    TENSORBOARD = "tensorboard"
    PACKAGE = "package"

    @property
    def plural(self) -> str:
        """The word in URLs and unique names."""
        return f"{self.value}s"

    @property
    def is_server(self) -> bool:
        """Its runs serve pages for a browser until they are stopped."""
        return self in (Kind.NOTEBOOK, Kind.TENSORBOARD)

    @property
    def needs_build(self) -> bool:
        """Runs in an image that a build makes."""
        return self not in (Kind.GROUP, Kind.BUILD, Kind.PACKAGE)

    @property
    def makes_image(self) -> bool:
        """Its runs make an image. The builder uses the engine's resources, so they reserve none."""
        return self is Kind.BUILD

    @property
    def takes_slot(self) -> bool:
        """Its runs count against the limit of concurrent runs. A group carries out nothing itself."""
        return not self.is_server and self is not Kind.GROUP

    @property
    def has_tasks(self) -> bool:
        """The platform may distribute its runs over several tasks. Here each has one, the master."""
        return self is Kind.EXPERIMENT


POLYAXON_KINDS = tuple(kind for kind in Kind if kind is not Kind.PACKAGE)  # the kinds of the Polyaxon API


class Status(StrEnum):
    CREATED = "created"
    RESUMING = "resuming"
    WARNING = "warning"
    UNSCHEDULABLE = "unschedulable"
    BUILDING = "building"
    SCHEDULED = "scheduled"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UPSTREAM_FAILED = "upstream_failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


FAILURES = frozenset({Status.FAILED, Status.UPSTREAM_FAILED})
STOPS = frozenset({Status.STOPPED, Status.SKIPPED})
UNSUCCESSFUL = FAILURES | STOPS
DONE = UNSUCCESSFUL | {Status.SUCCEEDED}
NOT_DONE = frozenset(Status) - DONE
WAITING = frozenset({Status.CREATED, Status.RESUMING, Status.WARNING, Status.UNSCHEDULABLE, Status.UNKNOWN})
BUILD_NOT_BEGUN = frozenset({Status.CREATED, Status.UNSCHEDULABLE})  # of a build that has not begun

# to → the statuses that it may be reached from
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.CREATED: frozenset(),
    Status.RESUMING: frozenset({Status.CREATED, Status.WARNING}),
    Status.BUILDING: WAITING | {Status.SCHEDULED},
    Status.SCHEDULED: WAITING | {Status.BUILDING},
    Status.STARTING: WAITING | {Status.BUILDING, Status.SCHEDULED},
    Status.RUNNING: WAITING | {Status.BUILDING, Status.SCHEDULED, Status.STARTING},
    Status.WARNING: NOT_DONE - {Status.WARNING},
    Status.UNSCHEDULABLE: NOT_DONE - {Status.UNSCHEDULABLE},
    Status.UNKNOWN: NOT_DONE - {Status.UNKNOWN},
    Status.SUCCEEDED: NOT_DONE,
    Status.FAILED: NOT_DONE,
    Status.UPSTREAM_FAILED: NOT_DONE,
    Status.STOPPED: NOT_DONE,
    Status.SKIPPED: NOT_DONE,
}

# `started_at` is set by the first of these
STARTS = frozenset({Status.BUILDING, Status.SCHEDULED, Status.STARTING, Status.RUNNING})


def is_done(status: str) -> bool:
    return status in DONE
