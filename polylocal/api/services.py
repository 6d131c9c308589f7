"""What the API works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polylocal.paths import Home
from polylocal.repos import Repository
from polylocal.settings import Settings
from polylocal.store import Store
from polylocal.store.rows import Project, Run


@dataclass(frozen=True)
class Services:
    settings: Settings
    store: Store
    engine_state: Callable[[], str | None] = lambda: None  # why nothing can run now; None: all is well

    @property
    def home(self) -> Home:
        return self.settings.folders

    def repository(self, project: Project) -> Repository:
        return Repository(self.home.code(project.uuid))

    def outputs(self, run: Run) -> Path | None:
        return self.home.root / run.outputs if run.outputs else None

    def log(self, run: Run) -> Path:
        return self.home.log(run.kind, run.uuid)
