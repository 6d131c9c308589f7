"""`doctor`: the network of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polylocal.daemon import doctor
from polylocal.engine.docker import diagnosis
from polylocal.engine.docker.diagnosis import DockerDiagnosis
from polylocal.engine.host import EngineInfo
from polylocal.engine.plan import OWN_NETWORK
from polylocal.errors import ContainerMissing, EngineError
from polylocal.settings import load


class Engine(DockerDiagnosis):
    is_local = True

    def __init__(self, own: bool | EngineError, name: str) -> None:
        self._own = own
        self._about = EngineInfo(name, "28", "1.48", "unix:///run/docker.sock", 2, 1024.0, "/", False, False)

    def own_network(self) -> bool:
        if isinstance(self._own, EngineError):
            raise self._own
        return self._own

    def gateway(self, network: str) -> str | None:
        if network == "nowhere":
            raise ContainerMissing("network nowhere not found")
        return "172.30.0.1"


def finding(tmp_path: Path, own: bool | EngineError = True, name: str = "Docker", **settings: Any) -> doctor.Finding:
    engine = Engine(own, name)
    return doctor._network(engine, load(home=tmp_path, **settings), engine.known(), engine.isolation())


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells whether the kernel filters traffic between the ports of a bridge."""
    path = tmp_path / "bridge-nf-call-iptables"
    path.write_text("1\n")
    monkeypatch.setattr(diagnosis, "_BRIDGE_FILTER", str(path))
    return path


def test_no_tools_for_packages_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon itself writes repositories."""
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.examine(load(home=tmp_path, engine=f"unix://{tmp_path}/nosuch"))
    assert {"git", "port"} <= {finding.subject for finding in found}
    assert not [finding for finding in found if "package" in finding.subject or ".deb" in finding.message]


def test_the_own_network_is_fine_whether_it_is_there_yet_or_not(tmp_path: Path, kernel: Path) -> None:
    there, not_yet = finding(tmp_path), finding(tmp_path, own=False)
    assert (there.state, not_yet.state) == ("ok", "ok")
    assert "172.30.0.1" in there.message
    assert "first start" in not_yet.message


def test_a_kernel_that_does_not_filter_between_containers_is_a_problem(tmp_path: Path, kernel: Path) -> None:
    kernel.write_text("0\n")
    found = finding(tmp_path)
    assert found.state == "problem"
    assert "runs can reach each other" in found.message
    assert "sysctl -w" in found.fix


def test_a_network_of_that_name_that_is_not_ours_is_a_problem_with_its_mending(tmp_path: Path) -> None:
    found = finding(tmp_path, own=EngineError("the engine has a network named polylocal that polylocal did not make"))
    assert found.state == "problem"
    assert f"docker network rm {OWN_NETWORK}" in found.fix


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_other_networks_are_noted_with_what_is_lost(tmp_path: Path, network: str) -> None:
    found = finding(tmp_path, network=network)
    assert found.state == "note"
    assert "runs can reach each other" in found.message


def test_a_network_that_the_engine_does_not_have_is_a_problem(tmp_path: Path) -> None:
    assert finding(tmp_path, network="nowhere").state == "problem"


def test_podman_can_not_keep_runs_apart_and_is_noted(tmp_path: Path) -> None:
    found = finding(tmp_path, name="Podman")
    assert (found.state, "Podman" in found.message) == ("note", True)
