"""What the runner works with: made once by the daemon, shared by every thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from polylocal.engine.base import Engine
from polylocal.engine.events import Deaths
from polylocal.errors import NotFound
from polylocal.files.disk import Disk
from polylocal.files.secrets import SecretStore
from polylocal.files.unpacking import Limits
from polylocal.git.repository import Repository
from polylocal.packages.file_store import FileStore
from polylocal.paths import Home
from polylocal.polyaxonfile import Capacity, Resources, Specification
from polylocal.polyaxonfile.resources import asks_for_gpus
from polylocal.runner.engine_link import EngineLink
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import Run


@dataclass(frozen=True)
class RunnerContext:
    settings: Settings
    store: Store
    engine: Engine
    link: EngineLink
    deaths: Deaths
    installation: str
    api_url: Callable[[], str]  # the API's address as seen from inside a container
    reaches_containers: Callable[[], bool] = lambda: False  # whether this machine reaches their own addresses
    log_grew: Callable[[Path], None] = lambda path: None  # a hint for those who follow a log
    uid: int = field(default_factory=os.getuid)  # who owns outputs afterwards
    gid: int = field(default_factory=os.getgid)

    @cached_property
    def disk(self) -> Disk:
        return Disk(self.home.root, self.settings.min_free_mib)

    @cached_property
    def secret_store(self) -> SecretStore:
        return SecretStore(self.home.secrets)

    def capacity(self, resources: Resources | None) -> Capacity | None:
        """What the engine's machine has of that which a run asks for; None: the engine never answered."""
        return self.link.capacity(with_gpus=asks_for_gpus(resources))

    def secrets(self, run: Run, specification: Specification) -> dict[str, str]:
        """The variables that a run gets by naming secrets. Raises NotFound."""
        if not specification.secrets:
            return {}
        if run.secrets_user_id is None:
            path = ".".join(map(str, specification.path_of_secret(next(iter(specification.secrets)))))
            raise NotFound(f"{path}: the user whose secrets {run.label} names is gone.")
        owner = self.store.users.by_id(run.secrets_user_id)
        found: dict[str, str] = {}
        for name, keys in specification.secrets.items():
            found |= self.secret_store.read(owner.username, name, keys, identity=owner.identity)
        return found

    @cached_property
    def file_store(self) -> FileStore:
        return FileStore(self.home.files)

    @property
    def home(self) -> Home:
        return self.settings.folders

    def log_path(self, run: Run) -> Path:
        return self.home.log(run.kind, run.uuid)

    def outputs_path(self, run: Run) -> Path:
        if run.outputs is None:
            raise ValueError(f"{run.label} has no outputs folder")
        return self.home.root / run.outputs

    def repository(self, run: Run) -> Repository:
        limits = Limits(self.settings.max_unpacked_mib, self.settings.max_upload_files)
        return Repository(self.home.code(run.project_uuid), limits)
