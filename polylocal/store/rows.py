"""The rows of the store, as frozen dataclasses."""

import json
import sqlite3
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache, cached_property
from operator import itemgetter
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from polylocal.polyaxonfile import Specification
from polylocal.statuses import Kind, Status
from polylocal.text import non_finite

Json = dict[str, Any]


@dataclass(frozen=True)
class User:
    id: int
    username: str
    email: str | None
    password: str | None
    is_superuser: bool
    is_active: bool
    created_at: str

    @property
    def identity(self) -> str:
        """Distinguishes this user from an earlier one with the same id or name, which are both reused."""
        return f"{self.id} {self.created_at}"


@dataclass(frozen=True)
class Project:
    id: int
    uuid: str
    user_id: int
    user: str
    name: str
    description: str | None
    readme: str | None
    tags: list[str] | None
    is_public: bool
    created_at: str
    updated_at: str
    deleted_at: str | None
    archived_at: str | None
    git_url: str | None
    git_synced_at: str | None
    ci: Json | None
    ci_created_at: str | None
    ci_updated_at: str | None
    is_package: bool
    default_branch: str
    git_by_admin: bool = False  # an admin gave `git_url`: the keys of the daemon's user may be used for it

    @property
    def unique_name(self) -> str:
        return f"{self.user}.{self.name}"


class _RunNames:
    """The names of a row of `runs`."""

    kind: Kind
    id: int
    owner: str
    project_name: str
    group_id: int | None
    build_id: int | None

    @property
    def project(self) -> str:
        return f"{self.owner}.{self.project_name}"

    @property
    def unique_name(self) -> str:
        if self.kind is Kind.EXPERIMENT and self.group_id:
            return f"{self.project}.{self.group_id}.{self.id}"
        return unique_name(self.project, self.kind, self.id)

    @property
    def build_name(self) -> str | None:
        return unique_name(self.project, Kind.BUILD, self.build_id) if self.build_id else None

    @property
    def group_name(self) -> str | None:
        return unique_name(self.project, Kind.GROUP, self.group_id) if self.group_id else None


@dataclass(frozen=True)
class Run(_RunNames):
    """A run of any kind. `pk` identifies the row; `id` counts by kind, and is in URLs and texts."""

    pk: int
    kind: Kind
    id: int
    uuid: str
    project_id: int
    project_uuid: str
    project_name: str
    owner: str
    user_id: int
    user: str
    name: str | None
    description: str | None
    readme: str | None
    tags: list[str] | None
    content: str | None
    config: Json | None
    resources: Json | None
    status: Status
    is_managed: bool
    backend: str | None
    run_env: Json | None
    data_refs: Json | None
    priority: int
    ttl: int | None
    created_at: str
    updated_at: str
    started_at: str | None
    finished_at: str | None
    build_pk: int | None
    build_id: int | None
    original_pk: int | None
    original_id: int | None
    cloning_strategy: str | None
    code_id: int | None
    commit: str | None
    outputs: str | None
    node: str | None
    stop_requested_at: str | None
    deleted_at: str | None
    container_id: str | None
    exit_code: int | None
    restarts: int
    restarted_after: str | None
    dockerfile: str | None
    build_key: str | None
    is_valid: bool
    image_id: str | None
    builder: str | None
    shell: str | None
    locale: str | None  # for runs of this build, instead of the one that its image names; "": that one
    params: Json | None
    measured: Json | None  # the last value of each metric; a word instead of one that is not finite
    framework: str | None
    group_pk: int | None
    group_id: int | None
    experiment_pk: int | None
    experiment_id: int | None
    group_type: str | None
    search_algorithm: str | None
    concurrency: int | None
    iteration: int
    suggested: int
    is_held: bool
    port: int | None  # where the daemon reaches a server: at `address`, or on loopback
    address: str | None
    keeps_changes: bool
    archived_at: str | None
    log_start: int
    stop_reason: str | None
    status_entries: int
    secrets_user_id: int | None = None  # the user whose secrets it names; None: that user is gone
    warnings: list[str] | None = None  # sentences for its creator; None: an older version created it

    @property
    def last_metric(self) -> Json | None:
        return non_finite.finite_ones(self.measured) if self.measured is not None else None

    @property
    def last_metric_not_finite(self) -> dict[str, str]:
        return non_finite.words(self.measured or {})

    @property
    def original_name(self) -> str | None:
        return unique_name(self.project, self.kind, self.original_id) if self.original_id else None

    @property
    def is_clone(self) -> bool:
        return self.original_pk is not None

    @property
    def iterations_begun(self) -> int:
        """Of a group's search."""
        return self.iteration + (1 if self.suggested else 0)

    @property
    def container_name(self) -> str:
        return f"plx-{self.kind}-{self.uuid}"

    @property
    def pod_id(self) -> str | None:
        """The name of the container in the API; None until there is one."""
        return self.container_name if self.container_id or (self.kind is Kind.BUILD and self.started_at) else None

    @cached_property
    def specification(self) -> Specification:
        """The compiled polyaxonfile. Its parts raise InvalidPolyaxonfile if an older version stored an invalid one."""
        return Specification(self.kind, self.content or "", self.config or {})

    @property
    def label(self) -> str:
        """The name in the daemon's log: `job/17`."""
        return f"{self.kind}/{self.id}"


@dataclass(frozen=True)
class QueuedRun(_RunNames):
    """A run that has not begun: the columns that the queue needs."""

    pk: int
    kind: Kind
    id: int
    owner: str
    project_name: str
    group_id: int | None
    build_id: int | None
    build_status: Status | None
    resources: Json | None
    is_held: bool
    concurrency: int | None  # of its group
    released: int  # unfinished experiments that its group does not hold; 0 unless `is_held`


@dataclass(frozen=True)
class Figures:
    """Counts for the metrics."""

    runs: list[tuple[str, str, int]]  # kind, status, number
    waiting: int  # runs that wait to start
    waiting_since: str | None  # the creation of the oldest
    runs_with_build: int
    builds_used: int


@dataclass(frozen=True)
class BuildUse:
    """The use of a build's image."""

    uuid: str
    project: str
    id: int
    image_id: str | None
    is_open: bool  # it is being built, or an open run needs it
    is_pinned: bool  # the build, or a run that used it, is bookmarked
    last_used: str

    @property
    def label(self) -> str:
        return unique_name(self.project, Kind.BUILD, self.id)


@dataclass(frozen=True)
class StatusRow:
    id: int
    uuid: str
    created_at: str
    status: Status
    message: str | None
    traceback: str | None
    details: Json | None


@dataclass(frozen=True)
class CodeReference:
    id: int
    uuid: str
    project_id: int
    branch: str
    commit: str | None
    head: str | None
    is_dirty: bool
    git_url: str | None
    created_at: str


@dataclass(frozen=True)
class Arch:
    id: int
    name: str


@dataclass(frozen=True)
class Platform:
    """A platform: packages are built for it, and repositories belong to it."""

    id: int
    name: str
    owner_id: int
    owner: str
    platform_type: str
    description: str | None
    distrib_type: str | None
    is_open: bool
    released: bool
    default_branch: str | None
    build_image: str | None
    build_command: str | None
    build_network: bool
    time_living: int  # seconds
    created_at: str
    updated_at: str
    origin: str | None  # the Origin of its repositories; None: clients know them without one

    @property
    def is_main(self) -> bool:
        return self.platform_type == "main"

    @property
    def subfolder(self) -> str:
        """The folder for publications: a released platform is frozen, and gets its updates in another folder."""
        return "updates" if self.released else "release"


@dataclass(frozen=True)
class Repository:
    """A repository of packages in a platform."""

    id: int
    platform_id: int
    platform_name: str
    name: str
    description: str | None
    publish_without_qa: bool
    is_locked: bool
    stale: int
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class BuildList:
    """The ABF part of a run of the kind `package`. `id` is the run's."""

    run_pk: int
    id: int
    uuid: str
    project_id: int
    user_id: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    priority: int
    status: int
    container_status: int
    save_to_repository_id: int
    build_for_platform_id: int
    arch_id: int
    update_type: str
    project_version: str
    commit_hash: str
    auto_publish_status: str
    auto_create_container: bool
    use_save_to_repository: bool
    include_repos: list[int]
    extra_repositories: list[int]
    extra_build_lists: list[int]
    extra_params: Json
    include_testing_subrepository: bool
    use_cached_chroot: bool
    use_extra_tests: bool
    save_buildroot: bool
    external_nodes: str | None
    last_published_commit_hash: str | None
    package_version: str | None
    publisher_id: int | None
    published_at: str | None
    published_into: str | None
    yanked: str | None  # the reason, which may be empty; None: it is not yanked
    updated_at: str


@dataclass(frozen=True)
class NewPackage:
    sha1: str
    file_name: str
    name: str
    type: str
    epoch: int | None
    version: str
    release: str
    size: int  # bytes
    dependent_packages: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PackageRow(NewPackage):
    id: int
    run_pk: int
    updated_at: str


@dataclass(frozen=True)
class NewFile:
    sha1: str
    file_name: str
    size: int  # bytes


@dataclass(frozen=True)
class ResultRow(NewFile):
    """A file of a build that is not a package, such as a log."""

    id: int
    run_pk: int
    created_at: str


@dataclass(frozen=True)
class StoredFile(NewFile):
    user_id: int | None
    is_uploaded: bool
    created_at: str


@dataclass(frozen=True)
class MetricRow:
    id: int
    uuid: str
    created_at: str
    measured: Json  # a word instead of a value that is not finite
    experiment: int  # its id

    @property
    def values(self) -> Json:
        return non_finite.finite_ones(self.measured)

    @property
    def not_finite(self) -> dict[str, str]:
        return non_finite.words(self.measured)


@dataclass(frozen=True)
class Search:
    """A saved query."""

    id: int
    name: str | None
    query: Json
    meta: Json | None


@dataclass(frozen=True)
class Activity:
    """An entry of the activity log."""

    id: int
    actor: str
    action: str
    subject: str
    object_id: int
    object_name: str
    created_at: str


@dataclass(frozen=True)
class ChartView:
    id: int
    uuid: str
    name: str | None
    charts: list[Any] | Json
    meta: Json | None
    created_at: str
    updated_at: str


def unique_name(project: str, kind: Kind, run_id: int) -> str:
    """The platform's name of a run. For experiments and groups it has no word for the kind."""
    return f"{project}.{run_id}" if kind in (Kind.EXPERIMENT, Kind.GROUP) else f"{project}.{kind.plural}.{run_id}"


Row = TypeVar("Row")  # a dataclass


def read_row(cls: type[Row], row: sqlite3.Row) -> Row:
    """Make a dataclass from the columns of the same names."""
    return read_rows(cls, [row])[0]


def read_rows(cls: type[Row], rows: Iterable[sqlite3.Row]) -> list[Row]:
    """Make dataclasses from rows with the same columns."""
    found = list(rows)
    if not found:
        return []
    columns = tuple(found[0].keys())
    conversion = _CONVERSIONS.get((cls, columns)) or _CONVERSIONS.setdefault((cls, columns), _Conversion(cls, columns))
    return [conversion.read(row) for row in found]


class _Conversion:
    """The conversion of rows with these columns to a dataclass. It is prepared once, since lists have many values."""

    def __init__(self, cls: type[Any], columns: tuple[str, ...]) -> None:
        self._cls = cls
        self._names = [each.name for each in fields(cls)]
        self._pick = itemgetter(*(columns.index(name) for name in self._names))
        self._readers = list(_readers(cast(Hashable, cls)).items())

    def read(self, row: sqlite3.Row) -> Any:
        values = dict(zip(self._names, self._pick(tuple(row)), strict=True))
        for name, reader in self._readers:
            if values[name] is not None:
                values[name] = reader(values[name])
        # the __init__ of a frozen dataclass takes three times as long as everything else here
        made = object.__new__(self._cls)
        made.__dict__.update(values)
        return made


def json_columns(cls: type[Any]) -> frozenset[str]:
    """The columns of a table that hold JSON: the fields that are annotated as mappings or lists."""
    return frozenset(name for name, reader in _readers(cast(Hashable, cls)).items() if reader is json.loads)


@cache
def _readers(cls: Hashable) -> dict[str, Callable[[Any], Any]]:
    """How the values of SQLite become those of the annotations, for the fields where they differ."""
    hints = get_type_hints(cls)
    found = {name: _reader(hint) for name, hint in hints.items()}
    return {name: reader for name, reader in found.items() if reader}


def _reader(annotation: Any) -> Callable[[Any], Any] | None:
    wanted = [one for one in get_args(annotation) if one is not NoneType] if _is_union(annotation) else [annotation]
    if any(get_origin(one) in (dict, list) for one in wanted):
        return json.loads
    if wanted == [bool]:
        return bool
    words = [one for one in wanted if isinstance(one, type) and issubclass(one, StrEnum)]
    return {str(member): member for member in words[0]}.__getitem__ if words else None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


_CONVERSIONS: dict[tuple[Any, tuple[str, ...]], _Conversion] = {}


def to_json(value: object) -> str | None:
    """JSON for a column. Raises ValueError for a number that is not finite, which no response could contain."""
    return None if value is None else json.dumps(value, allow_nan=False)


def columns_of(
    values: Mapping[str, Any], known: Collection[str], in_json: Collection[str] = frozenset()
) -> dict[str, Any]:
    """The values as a table has them. Raises TypeError for a name that is not in `known`."""
    unknown = values.keys() - known
    if unknown:
        raise TypeError(f"not to be set: {sorted(unknown)}")
    return {name: to_json(value) if name in in_json else value for name, value in values.items()}
