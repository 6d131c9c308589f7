"""The states of build lists, and the transitions between them, as data. Pure.

Source: the "Build lists" document (2013-02), and the server of the same week where the document has gaps. Clients
compare the codes. The words are the document's and the server's.
"""

from dataclasses import dataclass
from enum import IntEnum

from polylocal.statuses import NOT_DONE, STARTS, STOPS, Status

UPDATE_TYPES = ("security", "bugfix", "enhancement", "recommended", "newpackage")
TIME_LIVING_S = (600, 360_000)


class BuildStatus(IntEnum):
    """The values of a build list's `status` that polylocal produces."""

    COMPLETE = 0
    ERROR = 666
    PACKAGES_FAIL = 777
    PENDING = 2000
    STARTED = 3000
    WAITING = 4000
    CANCELED = 5000
    PUBLISHED = 6000
    PUBLISHING = 7000
    PUBLISH_FAILED = 8000
    REJECTED = 9000
    CANCELING = 10000
    TESTS_FAILED = 11000
    UNPERMITTED_ARCH = 15000


class ContainerStatus(IntEnum):
    """The values of a build list's `container_status`."""

    WAITING = 4000
    PUBLISHED = 6000
    PUBLISHING = 7000
    FAILED = 8000


WORDS = {
    BuildStatus.COMPLETE: "build complete",
    BuildStatus.ERROR: "build error",
    BuildStatus.PACKAGES_FAIL: "packages fail",
    BuildStatus.PENDING: "build pending",
    BuildStatus.STARTED: "build started",
    BuildStatus.WAITING: "waiting for response",
    BuildStatus.CANCELED: "build canceled",
    BuildStatus.PUBLISHED: "build has been published",
    BuildStatus.PUBLISHING: "build is being published",
    BuildStatus.PUBLISH_FAILED: "publishing error",
    BuildStatus.REJECTED: "publishing rejected",
    BuildStatus.CANCELING: "build is canceling",
    BuildStatus.TESTS_FAILED: "tests failed",
    BuildStatus.UNPERMITTED_ARCH: "unpermitted architecture",
}
CONTAINER_WORDS = {
    ContainerStatus.WAITING: "waiting for request for publishing container",
    ContainerStatus.PUBLISHED: "container has been published",
    ContainerStatus.PUBLISHING: "container is being published",
    ContainerStatus.FAILED: "publishing error",
}

_B = BuildStatus
_ENDED = (_B.PENDING, _B.STARTED)  # a run may end before polylocal sees that it started


@dataclass(frozen=True)
class Transition:
    """The states before and after an event. `by`: the event, for the documentation."""

    sources: tuple[BuildStatus, ...]
    by: str
    target: BuildStatus


TRANSITIONS = (
    Transition((_B.WAITING,), "creation", _B.PENDING),
    Transition((_B.PENDING,), "its container starts", _B.STARTED),
    Transition((_B.STARTED,), "its container was lost or could not start: it is tried again", _B.PENDING),
    Transition((_B.PENDING, _B.STARTED), "cancel", _B.CANCELING),
    Transition(_ENDED, "exit code 0", _B.COMPLETE),
    Transition(_ENDED, "exit code 5: the packages are kept", _B.TESTS_FAILED),
    Transition(_ENDED, "exit code 6", _B.UNPERMITTED_ARCH),
    Transition(_ENDED, "any other exit code, or it could not be built", _B.ERROR),
    Transition((*_ENDED, _B.CANCELING), "it was stopped, or `time_living` is over", _B.CANCELED),
    Transition((_B.CANCELING,), "its container ends in any way", _B.CANCELED),
    Transition((_B.COMPLETE,), "auto-publish", _B.PUBLISHING),
    Transition((_B.COMPLETE, _B.PUBLISH_FAILED, _B.TESTS_FAILED), "publish", _B.PUBLISHING),
    Transition((_B.PUBLISHED,), "publish, by an admin of the platform", _B.PUBLISHING),
    Transition((_B.PUBLISHING,), "the repository is written", _B.PUBLISHED),
    Transition((_B.PUBLISHING,), "it could not be written, or the project has left it", _B.PUBLISH_FAILED),
    Transition((_B.PUBLISHING,), "a file of a package is gone", _B.PACKAGES_FAIL),
    Transition((_B.COMPLETE, _B.PUBLISH_FAILED), "reject_publish, where the repository has QA", _B.REJECTED),
)
PUBLISHABLE = frozenset({_B.COMPLETE, _B.PUBLISH_FAILED, _B.TESTS_FAILED})
REJECTABLE = frozenset({_B.COMPLETE, _B.PUBLISH_FAILED})
# states of builds whose publication was refused
REFUSED = frozenset({_B.COMPLETE, _B.PUBLISH_FAILED, _B.PACKAGES_FAIL})
CONTAINABLE = frozenset({_B.COMPLETE, _B.TESTS_FAILED})
CONTAINER_REQUESTS = frozenset({ContainerStatus.WAITING, ContainerStatus.FAILED})


def sources(target: BuildStatus) -> frozenset[BuildStatus]:
    """The states from which a build list can change to `target`."""
    return frozenset(source for step in TRANSITIONS if step.target is target for source in step.sources)


def status_of_run(status: str, exit_code: int | None, *, is_canceled: bool, was_overdue: bool) -> BuildStatus:
    """The status of a build list that follows from the status of its run.

    `is_canceled`: a user canceled the build list; then later reports of the container do not matter. `was_overdue`: the
    run exceeded its time limit.
    """
    if is_canceled:
        return _B.CANCELED if status not in NOT_DONE else _B.CANCELING
    if status in NOT_DONE:
        return _B.STARTED if status in STARTS else _B.PENDING
    if status == Status.SUCCEEDED:
        return _B.COMPLETE
    if was_overdue or status in STOPS:
        return _B.CANCELED
    return {5: _B.TESTS_FAILED, 6: _B.UNPERMITTED_ARCH}.get(exit_code or 0, _B.ERROR)
