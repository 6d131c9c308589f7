"""What the API works with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from polylocal.disk import Disk
from polylocal.errors import StoreError
from polylocal.machine import Machine, Usage, look
from polylocal.paths import Home
from polylocal.repos import Repository
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import Project, Run


@dataclass(frozen=True)
class Services:
    settings: Settings
    store: Store
    starting: threading.Lock = field(default_factory=threading.Lock)  # held while it is decided whether one is there
    fetching: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(4))  # repositories at a time
    engine_state: Callable[[], str | None] = lambda: None  # why nothing can run now; None: all is well

    usage: Callable[[str], Usage | None] = lambda container_id: None  # what a container uses now
    machine: Callable[[], Machine] = lambda: look("", None, None)

    @cached_property
    def disk(self) -> Disk:
        return Disk(self.home.root, self.settings.min_free_mib)

    def check_room(self) -> None:
        """Before something new begins. Raises StoreError: the disk is full."""
        if problem := self.disk.problem():
            raise StoreError(problem)

    @property
    def home(self) -> Home:
        return self.settings.folders

    def repository(self, project: Project) -> Repository:
        return Repository(self.home.code(project.uuid))

    def outputs(self, run: Run) -> Path | None:
        return self.home.root / run.outputs if run.outputs else None

    def log(self, run: Run) -> Path:
        return self.home.log(run.kind, run.uuid)
