"""A daemon without a network: the API in this process, and a runner with the fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_support import api_context
from fake_engine import FakeContainer, FakeEngine
from in_process import InProcess
from runner.conftest import Rig, Supervise
from starlette.testclient import TestClient

from polylocal.api import app as api_module
from polylocal.engine.host import EngineInfo
from polylocal.engine.machine import Machine
from polylocal.engine.plan import ContainerPlan
from polylocal.runner import container_operation
from polylocal.settings import Settings, load
from polylocal.statuses import Kind, Status
from polylocal.store import Store
from polylocal.store.rows import Project, User

PROJECT = "/api/v1/root/quick-start"
CODE = {"Dockerfile-train": "FROM python:3.11-slim\n", "train.py": "print('trained')\n"}
SECRETS = {"store": {"STORE_URL": "store.example"}, "mail": {"USER": "root", "HOST": "mail.example"}}
CPUS, MEMORY_MIB = 64, 2**20


class Engine(FakeEngine):
    """A fake engine of a large machine. Unknown programs succeed. `plans` lists the requested containers."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[ContainerPlan] = []

    def info(self) -> EngineInfo:
        return replace(super().info(), cpus=CPUS, memory_mib=float(MEMORY_MIB))

    def create(self, plan: ContainerPlan) -> str:
        self.plans.append(plan)
        return super().create(plan)

    def _step(self, container: FakeContainer, word: str) -> int | None:
        return None


@dataclass
class World:
    """A project with code, data, secrets and a finished experiment, with an API and a runner."""

    rig: Rig
    engine: Engine
    supervise: Supervise
    _http: TestClient
    _token: str

    def submit(self, kind: Kind, body: Any) -> httpx2.Response:
        path = f"{kind}/start" if kind.is_server else kind.plural
        return self._http.post(f"{PROJECT}/{path}", json=body, headers=self._headers)

    def count(self, kind: Kind) -> int:
        """The number of the project's runs of this kind."""
        found: int = self._http.get(f"{PROJECT}/{kind.plural}", headers=self._headers).json()["count"]
        return found

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {self._token}"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    (home / "polylocal.toml").write_text(f'[data]\narticles = "{data}"\nscans = "{data}"\n')
    return load(home=home)


@pytest.fixture
def world(
    settings: Settings, store: Store, project: Project, root: User, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(container_operation, "INSPECT_S", 0.05)
    monkeypatch.setattr(api_module.openapi, "document", lambda endpoints: {})  # takes most of the time of `build`
    engine = Engine()
    rig = Rig(settings.model_copy(update={"grace_s": 1.0, "poll_s": 0.05}), store, engine, project, root)
    rig.upload(CODE)
    context = api_context(settings, store, machine=lambda: MACHINE)
    for name, values in SECRETS.items():
        context.secret_store.write(root.username, name, values, identity=root.identity)
    earlier = rig.experiment()
    assert store.runs.transition(earlier, Status.SUCCEEDED, None)
    supervise = Supervise(rig)
    with InProcess(api_module.build(context)) as http:
        yield World(rig, engine, supervise, http, store.users.new_token(root))
    supervise.end()


MACHINE = Machine(
    name="box",
    cpus=CPUS,
    memory_mib=MEMORY_MIB,
    os_image="Debian GNU/Linux 12",
    kernel="6.1.0",
    engine="Fake 1.0",
    engine_api="1.41",
    gpus=[],
)
