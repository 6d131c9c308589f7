"""Reasons why a complete build was not published: a code for programs and a message for people. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from polylocal.packages import kinds

NO_PACKAGES = "no-packages"
QA = "qa"
NOT_IN_REPOSITORY = "not-in-repository"
EXTRA_BUILD_LISTS = "extra-build-lists"
NOT_NEWER = "not-newer"
TESTING = "testing"
FAILED = "failed"
REASONS = (NO_PACKAGES, QA, NOT_IN_REPOSITORY, EXTRA_BUILD_LISTS, NOT_NEWER, TESTING, FAILED)
_MAX_NAMED = 3
_PUBLISH = "`polylocal package publish {number}`"


@dataclass(frozen=True)
class Refusal:
    """The reason why a build was not published."""

    reason: str  # one of REASONS
    message: str


def no_packages(kind: str | None, others: Sequence[str]) -> Refusal:
    """The build has no package. `kind`: the platform's; `others`: the names of the files that the build left."""
    wanted = ", ".join(kinds.endings(kind))
    more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
    found = f"only {', '.join(others[:_MAX_NAMED])}{more}" if others else "and no other file"
    words = f"the build left no package of the platform's kind ({kind or 'rpm'}: {wanted}), {found}"
    return _refusal(NO_PACKAGES, words)


def qa(number: int, repository: str) -> Refusal:
    """The repository has QA. `number`: of the build list; `repository`: `platform/repository`."""
    words = f"{repository} has QA: an admin of its platform publishes the build by {_PUBLISH.format(number=number)}"
    return _refusal(QA, words)


def not_in_repository(number: int, project: str, repository: str) -> Refusal:
    """The project is not in the repository. `number`: of the build list; `repository`: `platform/repository`."""
    words = (
        f"the project {project} is not in {repository}: add it by `polylocal package repository add {repository}"
        f" {project}`, then publish the build by {_PUBLISH.format(number=number)}"
    )
    return _refusal(NOT_IN_REPOSITORY, words)


def unpublished_extra(number: int, others: Sequence[int]) -> Refusal:
    """The build used packages that are not published. `number`: of the build list; `others`: of those build lists."""
    listed = ", ".join(map(str, others))
    used = f"build list {listed}, which it was built with, is" if len(others) == 1 else f"build lists {listed} are"
    words = f"{used} not published: publish these packages first, then the build by {_PUBLISH.format(number=number)}"
    return _refusal(EXTRA_BUILD_LISTS, words)


def not_newer(number: int, version: str, published: str, *, other: int, repository: str) -> Refusal:
    """The repository has this version or a newer one. `number`: of the build list; `other`: of the published one."""
    words = (
        f"version {version} is not newer than {published}, which is in {repository} (build list {other}): raise the"
        f" version, or publish the build nevertheless by {_PUBLISH.format(number=number)}"
    )
    return _refusal(NOT_NEWER, words)


def testing(number: int) -> Refusal:
    """The build list asks for a publication into testing, which polylocal does not support."""
    words = f"polylocal does not publish into testing: publish the build by {_PUBLISH.format(number=number)}"
    return _refusal(TESTING, words)


def failed(words: str) -> Refusal:
    """The repository could not be written. `words`: the error."""
    return _refusal(FAILED, words)


def _refusal(reason: str, words: str) -> Refusal:
    return Refusal(reason, f"Not published: {words}")
