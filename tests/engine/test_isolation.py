"""Isolation of runs: their network, and dropped capabilities."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path, PurePosixPath
from typing import Any

import docker
import pytest
from support import eventually

from polylocal.engine.docker import networks
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import OWN_NETWORK, Mount
from polylocal.errors import EngineError
from polylocal.runner import ownership

from .conftest import Bench
from .test_contract import build

pytestmark = pytest.mark.engine

PYTHON = "polylocal/standin-python:3.11"


def output(bench: Bench, container_id: str) -> str:
    """The whole output of a container after its end."""
    eventually(lambda: bench.engine.inspect(container_id).is_finished, 60)
    with bench.engine.logs(container_id, follow=False) as stream:
        return b"".join(frame.data for frame in stream).decode()


def said(bench: Bench, script: str, **more: Any) -> str:
    return output(bench, bench.started(script, **more))


@pytest.fixture
def server(docker_bench: Bench) -> str:
    """A run with a page on port 8888, published on loopback like that of a notebook."""
    script = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nsecret' | nc -l -p 8888; done"
    container_id = docker_bench.started(script, port=8888, network=OWN_NETWORK)
    address = docker_bench.engine.inspect(container_id).address
    assert address
    assert eventually(lambda: first_bytes(address)).startswith(b"HTTP/1.0 200")  # this machine reaches it there
    return container_id


def first_bytes(address: str) -> bytes:
    try:
        with socket.create_connection((address, 8888), timeout=5) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def fetched(bench: Bench, address: str, port: int, network: str = OWN_NETWORK) -> str:
    return said(bench, f"nc -w 3 {address} {port} < /dev/null 2> /dev/null || echo refused", network=network)


def test_a_run_can_not_reach_another_runs_page_by_any_address(docker_bench: Bench, server: str) -> None:
    state = docker_bench.engine.inspect(server)
    assert state.address
    published = state.published[8888].port
    assert fetched(docker_bench, state.address, 8888) == "refused\n"
    gateway = docker_bench.engine.gateway(OWN_NETWORK)
    assert gateway
    for address in (gateway, docker_bench.engine.gateway("bridge") or gateway):
        assert fetched(docker_bench, address, published) == "refused\n"
        assert fetched(docker_bench, address, 8888) == "refused\n"


def test_a_run_can_not_look_another_one_up_and_reach_it_by_name(docker_bench: Bench, server: str) -> None:
    name = docker.APIClient(docker_bench.engine.address).inspect_container(server)["Name"].strip("/")  # type: ignore[attr-defined]
    assert fetched(docker_bench, name, 8888) == "refused\n"


def test_a_step_of_a_build_can_not_reach_a_run(docker_bench: Bench, server: str) -> None:
    address = docker_bench.engine.inspect(server).address
    dockerfile = f"FROM {docker_bench.image}\nRUN nc -w 3 {address} 8888 < /dev/null || exit 9\n"
    result = build(docker_bench, dockerfile, f"{docker_bench.installation}:spy")
    assert result.image_id is None
    assert "9" in result.error


def test_a_run_on_the_default_bridge_can_not_reach_one_on_the_own_network(docker_bench: Bench, server: str) -> None:
    address = docker_bench.engine.inspect(server).address
    assert address
    assert fetched(docker_bench, address, 8888, network="bridge") == "refused\n"


def test_no_run_can_open_raw_sockets_or_make_devices(docker_bench: Bench) -> None:
    bench = Bench(docker_bench.engine, PYTHON, docker_bench.installation)
    script = """
import os, socket
def tried(call):
    try:
        call()
    except OSError as error:
        print(error.strerror)
    else:
        print("done")
tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
tried(lambda: os.mknod("/tmp/device", 0o20666, os.makedev(1, 3)))
tried(lambda: os.setxattr("/tmp", "security.capability", bytes.fromhex("0000000200200000000000000000000000000000")))
"""
    found = said(bench, f"python3 -c '{script}'", network=OWN_NETWORK).splitlines()
    assert found == ["Operation not permitted"] * 4


def test_what_package_managers_and_ssh_do_as_root_still_works(docker_bench: Bench) -> None:
    """They change users and owners, and use low ports and unprivileged pings."""
    bench = Bench(docker_bench.engine, PYTHON, docker_bench.installation)
    script = """
import os, socket, signal, subprocess, time
open("/tmp/file", "w").close()
os.chown("/tmp/file", 1000, 1000)
os.chmod("/tmp/file", 0o2755)
os.mkfifo("/tmp/fifo")
socket.socket().bind(("0.0.0.0", 80))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
child = subprocess.Popen(["sleep", "60"], user=42, group=65534, extra_groups=[])
child.send_signal(signal.SIGTERM)
assert child.wait() == -signal.SIGTERM
assert subprocess.check_output(["setpriv", "--reuid=65534", "--clear-groups", "id", "-u"], text=True) == "65534\\n"
os.chroot("/usr")
print("all done")
"""
    found = said(bench, f"cat > /tmp/try.py <<'E'\n{script}\nE\npython3 /tmp/try.py", network=OWN_NETWORK)
    assert found.endswith("all done\n"), found


def test_the_own_network_has_no_ipv6(docker_bench: Bench) -> None:
    found = said(docker_bench, "cat /proc/net/if_inet6; echo end", network=OWN_NETWORK)
    assert [line for line in found.splitlines() if not line.endswith("lo")] == ["end"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can look into a folder of somebody else")
def test_a_helper_has_only_what_handing_files_over_needs(docker_bench: Bench, tmp_path: Path) -> None:
    plans = []
    engine = docker_bench.engine

    class Recorded:
        def run_helper(self, plan: Any) -> int:
            plans.append(plan)
            return engine.run_helper(plan)

    folder = tmp_path / "outputs"
    ownership.make_writable(folder)
    mount = Mount(folder, PurePosixPath("/out"))
    script = "mkdir -m 700 /out/d && echo x > /out/d/f && chmod 000 /out/d/f"
    container_id = docker_bench.started(script, mounts=[mount], user="1234:1234")
    eventually(lambda: engine.inspect(container_id).is_finished)
    image, installation = docker_bench.image, docker_bench.installation
    problem = ownership.give_to_user([folder], "4321:4321", Recorded(), image, installation)  # type: ignore[arg-type]
    assert problem is None
    assert (folder / "d" / "f").lstat().st_uid == 4321
    assert plans[0].cap_drop == ("ALL",)


# -- the one network -------------------------------------------------------------------------------------------------


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, raw_engine: docker.DockerClient) -> Any:
    """The own network under a name of this test, so that the test can create, change and remove it."""
    name = f"plx-{id(monkeypatch):x}"[-14:]
    for module in ("networks", "host"):
        monkeypatch.setattr(f"polylocal.engine.docker.{module}.OWN_NETWORK", name)
    monkeypatch.setattr(networks, "INTERFACE", name)
    yield name
    for network in raw_engine.networks.list(names=[name]):
        network.remove()


def test_many_daemons_that_make_it_at_the_same_moment_end_with_one(
    trial: str, engine_address: str, raw_engine: docker.DockerClient
) -> None:
    engines = [DockerEngine(engine_address) for _ in range(6)]
    gate, gateways = threading.Barrier(len(engines)), []

    def ask(engine: DockerEngine) -> None:
        engine.info()
        gate.wait()
        gateways.append(engine.gateway(trial))

    threads = [threading.Thread(target=ask, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for engine in engines:
        engine.close()
    assert len(gateways) == 6
    assert len(set(gateways)) == 1
    assert len(raw_engine.networks.list(names=[trial])) == 1


def test_it_is_made_again_if_somebody_removed_it(docker_bench: Bench, trial: str, raw_engine: Any) -> None:
    assert docker_bench.engine.gateway(trial)
    raw_engine.networks.list(names=[trial])[0].remove()
    container_id = docker_bench.started("sleep 60", network=trial)
    assert docker_bench.engine.inspect(container_id).address
    docker_bench.engine.remove(container_id)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"options": {"com.docker.network.bridge.enable_icc": "false"}}, "polylocal did not make"),
        ({"labels": {networks.LABEL: "isolated"}}, "lets containers reach each other"),
    ],
)
def test_a_network_of_that_name_that_does_not_isolate_is_not_taken(
    docker_bench: Bench, trial: str, raw_engine: Any, made: dict[str, Any], words: str
) -> None:
    raw_engine.networks.create(trial, driver="bridge", **made)
    for call in (lambda: docker_bench.engine.gateway(trial), lambda: docker_bench.started("true", network=trial)):
        with pytest.raises(EngineError, match=f"{words}.*docker network rm .*setting `network`"):
            call()


def test_the_mtu_of_the_default_bridge_is_taken_over(docker_bench: Bench, trial: str, raw_engine: Any) -> None:
    docker_bench.engine.gateway(trial)
    wanted = raw_engine.networks.get("bridge").attrs["Options"].get("com.docker.network.driver.mtu")
    found = raw_engine.networks.list(names=[trial])[0].attrs["Options"].get("com.docker.network.driver.mtu")
    assert found == wanted
