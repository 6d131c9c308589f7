"""A runner over the fake engine: no threads but those that a test starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import job

from polylocal.polyaxonfile import parse
from polylocal.runner import execution
from polylocal.runner.engine.base import Engine
from polylocal.runner.engine.events import Deaths
from polylocal.runner.engine.fake import FakeEngine
from polylocal.runner.engine.link import EngineLink
from polylocal.runner.execution import Execution
from polylocal.runner.supervisor import Supervisor
from polylocal.runner.tools import Tools
from polylocal.settings import Settings
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User


@dataclass
class Rig:
    """Store, engine and everything between; `tools()` is what a fresh daemon would have."""

    settings: Settings
    store: Store
    engine: FakeEngine
    project: Project
    user: User

    def tools(self, engine: Engine | None = None, store: Any = None) -> Tools:
        link = EngineLink(engine or self.engine, "fake://", pause_s=0.01)
        link.check()
        deaths = Deaths(engine or self.engine, "home", link.wait_until_back)
        self.engine.on_death = deaths.tell
        return Tools(
            self.settings, store or self.store, engine or self.engine, link, deaths, "home", lambda: "http://api:1"
        )

    def submit(self, cmd: str = "true", **sections: Any) -> Run:
        specification = parse(job(cmd, "base", **sections), Kind.JOB)
        values = {"priority": 0}
        new = NewRun(
            Kind.JOB,
            specification.content,
            specification.config,
            values,
            resources=specification.config.get("environment", {}).get("resources"),
        )
        return self.store.runs.insert(self.project, self.user, new)

    def built(self, run: Run) -> Run:
        """The run, its build made: ready for its container."""
        supervisor = Supervisor(self.tools())
        supervisor._resolve_builds()
        build = self.store.runs.by_pk(self.again(run).build_pk or 0)
        if build.status == "created":
            Execution(build, self.tools())()
        return self.again(run)

    def run(self, run: Run) -> Run:
        Execution(self.built(run), self.tools())()
        return self.again(run)

    def again(self, run: Run) -> Run:
        return self.store.runs.by_pk(run.pk)

    def log(self, run: Run) -> bytes:
        return self.log_path(run).read_bytes()

    def log_path(self, run: Run) -> Path:
        return self.settings.folders.log(run.kind, run.uuid)

    def history(self, run: Run) -> list[str]:
        return [row.status for row in self.store.runs.statuses(run, limit=100, offset=0)[1]]

    def message(self, run: Run) -> str | None:
        return self.store.runs.statuses(run, limit=100, offset=0)[1][-1].message


@pytest.fixture
def rig(settings: Settings, store: Store, project: Project, root: User, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(execution, "LOOK_S", 0.05)
    return Rig(settings.model_copy(update={"grace_s": 1.0, "poll_s": 0.05}), store, FakeEngine(), project, root)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]
