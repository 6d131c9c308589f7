"""Fixtures: the fake engine and the real one, which have the same contract."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fake_engine import FakeEngine
from support import BUSYBOX

from polylocal.engine.base import Engine
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import HOME_LABEL, RUN_LABEL, ContainerPlan

NODE = "the-node-of-the-tests"


@dataclass
class Bench:
    """An engine, an image that it has, and an installation whose containers and images are removed at the end."""

    engine: Engine
    image: str
    installation: str

    def plan(self, cmd: str = "true", name: str = "", network: str = "", **more: Any) -> ContainerPlan:
        """Without ports it uses the host's network: a separate one takes more than half of the time of a start."""
        run = uuid.uuid4().hex
        return ContainerPlan(
            name=name or f"plx-job-{run}",
            image=self.image,
            command=["/bin/sh", "-c", cmd],
            labels={HOME_LABEL: self.installation, RUN_LABEL: f"job/{run}"},
            network=network or ("bridge" if "port" in more else "host"),
            **more,
        )

    def started(self, cmd: str, **more: Any) -> str:
        container_id = self.engine.create(self.plan(cmd, **more))
        self.engine.start(container_id)
        return container_id


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.engine)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    installation = f"test-{uuid.uuid4().hex[:8]}"
    if request.param == "fake":
        yield Bench(FakeEngine(["base"], shells=["/bin/sh"], node=NODE), "base", installation)
        return
    request.getfixturevalue("to_sweep").append(installation)
    engine = DockerEngine(request.getfixturevalue("engine_address"), node=NODE)
    yield Bench(engine, BUSYBOX, installation)
    engine.close()


@pytest.fixture
def docker_bench(engine_address: str, to_sweep: list[str]) -> Iterator[Bench]:
    """The real engine, for behaviour that the fake one does not have."""
    installation = f"test-{uuid.uuid4().hex[:8]}"
    to_sweep.append(installation)
    engine = DockerEngine(engine_address)
    yield Bench(engine, BUSYBOX, installation)
    engine.close()
