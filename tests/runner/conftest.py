"""Fixtures: a runner with the fake engine. Only tests start threads."""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeContainer, FakeEngine
from support import eventually, job

from polylocal.engine.base import Engine
from polylocal.engine.events import Deaths
from polylocal.engine.plan import ContainerPlan
from polylocal.git.repository import Repository
from polylocal.installation import Installation
from polylocal.polyaxonfile import Specification, parse
from polylocal.runner import container_operation
from polylocal.runner.engine_link import EngineLink
from polylocal.runner.groups import Groups
from polylocal.runner.runner_context import RunnerContext
from polylocal.runner.supervisor import Supervisor
from polylocal.runner.work import execution_of
from polylocal.settings import Settings
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User


@dataclass
class Rig:
    """The store, the engine and the runner. `context()` returns the context of a new daemon."""

    settings: Settings
    store: Store
    engine: FakeEngine
    project: Project
    user: User

    def context(self, engine: Engine | None = None, store: Any = None) -> RunnerContext:
        link = EngineLink(engine or self.engine, "fake://", pause_s=0.01)
        link.check()
        deaths = Deaths(engine or self.engine, "home", link.wait_until_back)
        self.engine.on_death = deaths.notify
        return RunnerContext(
            Installation(self.settings, store or self.store),
            engine or self.engine,
            link,
            deaths,
            "home",
            lambda: "http://api:1",
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

    def experiment(self, cmd: str = "true", **sections: Any) -> Run:
        return self._insert(Kind.EXPERIMENT, job(cmd, "base", **{"kind": "experiment", **sections}), {})

    def group(self, hptuning: Mapping[str, Any], cmd: str = "true", **sections: Any) -> Run:
        content = job(cmd, "base", **{"kind": "group", "hptuning": dict(hptuning), **sections})
        tuning = parse(content, Kind.GROUP).hptuning
        about = {"group_type": "study", "concurrency": tuning.concurrency, "search_algorithm": tuning.algorithm}
        return self._insert(Kind.GROUP, content, about)

    def server(self, kind: Kind, *, of: Run | None = None, commit: str | None = None, **sections: Any) -> Run:
        """A notebook or a tensorboard, of the project or of an experiment or a group."""
        content = {"version": 1, "kind": str(kind), "build": {"image": "base"}, **sections}
        values = {"experiment_pk": of.pk} if of and of.kind == Kind.EXPERIMENT else {}
        group = of if of and of.kind == Kind.GROUP else None
        code = self.store.projects.reference_code(self.project, {"commit": commit}).id if commit else None
        return self._insert(kind, content, values, group=group, code_id=code)

    def _insert(self, kind: Kind, content: dict[str, Any], values: dict[str, Any], **more: Any) -> Run:
        specification = parse(content, kind)
        resources = specification.config.get("environment", {}).get("resources")
        about = {**specification.words, **values}
        new = NewRun(kind, specification.content, specification.config, about, resources=resources, **more)
        return self.store.runs.insert(self.project, self.user, new)

    def specification(self, run: Run) -> Specification:
        return Specification(Kind(run.kind), run.content or "", run.config or {})

    def members(self, group: Run) -> list[Run]:
        return [self.store.runs.by_pk(member.pk) for member in self.store.groups.members(group)]

    def tend(self, group: Run, store: Any = None) -> None:
        """Advance a group by one step of a new daemon."""
        Groups(self.context(store=store), lambda: None)._advance_safely(group)

    @property
    def repository(self) -> Repository:
        return Repository(self.settings.folders.code(self.project.uuid))

    def upload(self, files: Mapping[str, str], executable: Sequence[str] = ()) -> str:
        """Upload these files as the project's code. Returns the commit."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                member.mode = 0o755 if name in executable else 0o644
                tar.addfile(member, io.BytesIO(text.encode()))
        archive.seek(0)
        return self.repository.upload(archive, self.user.username)

    def built(self, run: Run) -> Run:
        """The run after its build was made, ready for its container."""
        supervisor = Supervisor(self.context())
        supervisor.resolve_builds()
        build = self.store.runs.by_pk(self.again(run).build_pk or 0)
        if build.status == "created":
            execution_of(build, self.context())()
        return self.again(run)

    def run(self, run: Run) -> Run:
        execution_of(self.built(run), self.context())()
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
        return self.messages(run)[-1]

    def messages(self, run: Run) -> list[str | None]:
        return [row.message for row in self.store.runs.statuses(run, limit=100, offset=0)[1]]

    def container(self, run: Run) -> FakeContainer:
        """The present container of a run."""
        return self.engine.made[self.again(run).container_id or ""]


@pytest.fixture
def rig(settings: Settings, store: Store, project: Project, root: User, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(container_operation, "INSPECT_S", 0.05)
    return Rig(settings.model_copy(update={"grace_s": 1.0, "poll_s": 0.05}), store, FakeEngine(), project, root)


class Supervise:
    """Take steps, as the daemon's thread does, until something is true. The first call makes the supervisor."""

    supervisor: Supervisor

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def __call__(self, check: Callable[[], Any], within_s: float = 30.0, max_runs: int = 2) -> Any:
        if not hasattr(self, "supervisor"):
            self._rig.settings = self._rig.settings.model_copy(update={"max_runs": max_runs})
            self.supervisor = Supervisor(self._rig.context())

        def look() -> Any:
            self.supervisor.step()
            return check()

        return eventually(look, within_s)

    def end(self) -> None:
        if hasattr(self, "supervisor"):
            for running in self.supervisor.executions().values():
                running.stop()
            eventually(lambda: not self.supervisor.executions())


@pytest.fixture
def supervise(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervise]:
    made = Supervise(rig)
    yield made
    monkeypatch.setattr(container_operation, "DEATH_EVENT_S", 0.0)  # nobody reads how these runs ended
    made.end()


@pytest.fixture
def plans(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[ContainerPlan]:
    """The plans of all containers that are created."""
    found: list[ContainerPlan] = []
    create = rig.engine.create

    def noted(plan: ContainerPlan) -> str:
        found.append(plan)
        return create(plan)

    monkeypatch.setattr(rig.engine, "create", noted)
    return found


def plan_of(plans: Sequence[ContainerPlan], run: Run) -> ContainerPlan:
    return next(plan for plan in plans if run.uuid in plan.name)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture(scope="module")
def hasty() -> Iterator[None]:
    """Shortens pauses, since an engine in memory answers at once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("INSPECT_S", "SETTLE_S", "DEATH_EVENT_S"):
            patch.setattr(container_operation, name, 0.02)
        yield
