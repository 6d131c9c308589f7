"""What the API works with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from polylocal.api.feed import Feed
from polylocal.api.index_readers import IndexReaders
from polylocal.api.login_throttle import LoginThrottle
from polylocal.api.metrics import EngineTimes, Monitor
from polylocal.api.permission_watch import PermissionWatch
from polylocal.api.quotas import Quotas
from polylocal.engine.base import Usage
from polylocal.engine.machine import Machine
from polylocal.errors import StoreError
from polylocal.files.disk import Disk, Item
from polylocal.files.secrets import SecretStore
from polylocal.files.unpacking import Limits
from polylocal.git.repository import Repository
from polylocal.packages.file_store import FileStore
from polylocal.paths import Home
from polylocal.planning.queue import QueueState
from polylocal.polyaxonfile import Capacity
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import Project, Run


@dataclass(frozen=True)
class ApiContext:
    settings: Settings
    store: Store
    starting: threading.Lock = field(default_factory=threading.Lock)  # held while it is decided whether one is there
    feed: Feed = field(default_factory=Feed)  # of changes: in runs and in logs
    engine_times: EngineTimes = field(default_factory=EngineTimes)
    shares: Quotas = field(default_factory=Quotas)  # of all that is bounded, between users
    attempts: LoginThrottle = field(default_factory=LoginThrottle)  # at passwords
    readers: IndexReaders = field(default_factory=IndexReaders)  # of the metadata of repositories
    engine_state: Callable[[], str | None] = lambda: None  # why nothing can run now; None: all is well

    scheduler_state: Callable[[], str | None] = lambda: None  # the same of what takes runs from the queue
    queue_state: Callable[[], QueueState] = QueueState  # what the runner works on, and what it tries again
    look: Callable[[float | None], Sequence[Item]] = lambda budget_gib: ()  # what takes room
    collect: Callable[[float | None], Sequence[Item]] = lambda budget_gib: ()  # and make some
    image_sizes: Callable[[], Iterable[tuple[str, int]]] = lambda: ()  # uuid of the build, bytes
    reaches_containers: Callable[[], bool] = lambda: True  # else their ports are published on loopback
    has_image: Callable[[str], bool] = lambda name: False  # whether the engine has an image of this name
    usage: Callable[[str], Usage | None] = lambda container_id: None  # what a container uses now
    machine: Callable[[], Machine] = lambda: Machine("", 0, 0, "", "")  # the engine's machine now
    # what the engine's machine has, without asking the engine; True: GPUs too; None: the engine never answered
    capacity: Callable[[bool], Capacity | None] = lambda with_gpus: None

    @cached_property
    def rights(self) -> PermissionWatch:
        return PermissionWatch(self.store)

    @cached_property
    def disk(self) -> Disk:
        return Disk(self.home.root, self.settings.min_free_mib)

    @cached_property
    def monitor(self) -> Monitor:
        return Monitor(self.store, self.disk, self.engine_state, self.engine_times)

    @cached_property
    def secret_store(self) -> SecretStore:
        return SecretStore(self.home.secrets)

    @cached_property
    def file_store(self) -> FileStore:
        return FileStore(self.home.files)

    def check_room(self) -> None:
        """Before something new begins. Raises StoreError: the disk is full."""
        if problem := self.disk.problem():
            raise StoreError(problem)

    @property
    def home(self) -> Home:
        return self.settings.folders

    def repository(self, project: Project) -> Repository:
        return Repository(self.home.code(project.uuid), self.code_limits)

    @property
    def code_limits(self) -> Limits:
        """What code may come to, whatever way it comes in."""
        return Limits(self.settings.max_unpacked_mib, self.settings.max_upload_files)

    def outputs(self, run: Run) -> Path | None:
        return self.home.root / run.outputs if run.outputs else None

    def log(self, run: Run) -> Path:
        return self.home.log(run.kind, run.uuid)
