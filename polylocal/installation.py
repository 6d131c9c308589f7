"""One installation of polylocal: its settings, its database and the files under its home folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from polylocal.errors import StoreError
from polylocal.files.disk import Disk
from polylocal.files.secrets import SecretStore
from polylocal.files.unpacking import Limits
from polylocal.git.repository import Repository
from polylocal.packages.file_store import FileStore
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import Project, Run

T = TypeVar("T")


class Installation:
    """The daemon makes one and shares it between the API and the runner. Thread-safe."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.home = settings.folders
        self.disk = Disk(self.home.root, settings.min_free_mib)
        self.secret_store = SecretStore(self.home.secrets)
        self.file_store = FileStore(self.home.files)
        # for code of every origin: uploaded, pushed, fetched, built or downloaded
        self.code_limits = Limits(settings.max_unpacked_mib, settings.max_upload_files)

    def repository(self, owner: Project | Run) -> Repository:
        """The code of a project, or of the project that a run belongs to."""
        uuid = owner.project_uuid if isinstance(owner, Run) else owner.uuid
        return Repository(self.home.code(uuid), self.code_limits)

    def log_path(self, run: Run) -> Path:
        return self.home.log(run.kind, run.uuid)

    def outputs_path(self, run: Run) -> Path:
        """Raises ValueError for a run without outputs: a group or a package build."""
        if run.outputs is None:
            raise ValueError(f"{run.label} has no outputs folder")
        return self.home.root / run.outputs

    def check_room(self) -> None:
        """Raises StoreError if the disk of the home folder is too full for anything new."""
        if problem := self.disk.problem():
            raise StoreError(problem)


class _Part(Generic[T]):
    """An attribute that a context takes from its installation."""

    def __init__(self, of: Callable[[Installation], T]) -> None:
        self._of = of

    def __get__(self, context: InstallationContext, owner: type | None = None) -> T:
        return self._of(context.installation)


@dataclass(frozen=True)
class InstallationContext:
    """Base class of `ApiContext` and `RunnerContext`: short names for the parts of the installation."""

    installation: Installation

    settings = _Part(lambda installation: installation.settings)
    store = _Part(lambda installation: installation.store)
    home = _Part(lambda installation: installation.home)
    disk = _Part(lambda installation: installation.disk)
    secret_store = _Part(lambda installation: installation.secret_store)
    file_store = _Part(lambda installation: installation.file_store)
    code_limits = _Part(lambda installation: installation.code_limits)
    repository = _Part(lambda installation: installation.repository)
    log_path = _Part(lambda installation: installation.log_path)
    outputs_path = _Part(lambda installation: installation.outputs_path)
    check_room = _Part(lambda installation: installation.check_room)
