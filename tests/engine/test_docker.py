"""The real engine: cut connections, limits, much output, BuildKit, ownership."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import docker
import pytest
from support import eventually

from polylocal.engine.docker import buildkit
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import Limits, Mount
from polylocal.errors import EngineError, EngineUnreachable
from polylocal.files import logs
from polylocal.files.logs import LogWriter, StoredLogFilter
from polylocal.planning.container import LOCALE_VARIABLES
from polylocal.runner import locales, ownership

from .conftest import Bench
from .test_contract import build

pytestmark = pytest.mark.engine


class TornProxy:
    """Forwards a unix socket, and cuts all connections on request."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._folder = tempfile.mkdtemp(prefix="plx")  # short: a socket's path has 108 bytes at most
        self.path = f"{self._folder}/s"
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def tear(self) -> None:
        with self._lock:
            for end in self._open:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # torn already

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.tear()
        for thread in self._threads:
            thread.join(10)
        for end in (*self._open, self._listener):
            end.close()
        os.unlink(self.path)
        os.rmdir(self._folder)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            with self._lock:
                self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pump, args=(source, sink)))
                self._threads[-1].start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            data = b""
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@pytest.fixture
def torn(engine_address: str) -> Iterator[TornProxy]:
    proxy = TornProxy(engine_address.removeprefix("unix://"))
    yield proxy
    proxy.close()


def test_a_log_followed_over_a_link_that_is_cut_is_byte_exact(docker_bench, torn, tmp_path):
    """Long lines, both streams, no final newline, twelve cuts at random moments."""
    engine = DockerEngine(f"unix://{torn.path}")
    script = (
        "i=0; while [ $i -lt 40 ]; do echo l$i; head -c 50000 /dev/zero | tr '\\0' b; echo; echo err$i >&2;"
        " sleep 0.05; i=$((i+1)); done; printf tail"
    )
    container_id = docker_bench.started(script)
    path = tmp_path / "run.log"
    rng = random.Random(7)
    stop = threading.Event()

    def cutter() -> None:
        while not stop.wait(rng.uniform(0.1, 0.4)):
            torn.tear()

    cutting = threading.Thread(target=cutter)
    cutting.start()
    passes = 0
    while not docker_bench.engine.inspect(container_id).is_finished:
        passes += 1
        copy_log(engine, container_id, path, follow=True)
    stop.set()
    cutting.join()
    copy_log(docker_bench.engine, container_id, path, follow=False)
    assert passes > 2
    with docker_bench.engine.logs(container_id, follow=False) as stream:
        wanted = {1: b"", 2: b""}
        for frame in stream:
            wanted[frame.stream] += frame.data
    found = {1: b"", 2: b""}
    for number, data in logs.streams(path):
        found[number] += data
    assert found == wanted
    assert len(found[1]) > 2_000_000
    engine.close()


def copy_log(engine: DockerEngine, container_id: str, path: Path, *, follow: bool) -> None:
    catch_up = StoredLogFilter(logs.positions(path))
    with LogWriter(path) as writer, suppress(EngineUnreachable), engine.logs(container_id, follow=follow) as stream:
        for frame in stream:
            writer.append(catch_up(frame.stream, frame.data), frame.stream, frame.time_us)


def test_a_million_lines_arrive_whole_and_memory_stays_flat(docker_bench, tmp_path):
    container_id = docker_bench.engine.create(
        docker_bench.plan("seq 1000000 | sed 's/.*/this is line & of a rather talkative program/'")
    )
    tracemalloc.start()
    with LogWriter(tmp_path / "run.log") as writer, docker_bench.engine.attach(container_id) as stream:
        docker_bench.engine.start(container_id)
        for frame in stream:
            writer.append(frame.data, frame.stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    wanted = hashlib.sha256()
    for number in range(1, 1_000_001):
        wanted.update(b"this is line %d of a rather talkative program\n" % number)
    assert hashlib.sha256((tmp_path / "run.log").read_bytes()).hexdigest() == wanted.hexdigest()
    assert peak < 16 * 2**20


def test_binary_junk_arrives_byte_for_byte(docker_bench, tmp_path):
    container_id = docker_bench.engine.create(docker_bench.plan("head -c 100000 /dev/urandom | tee /junk"))
    with docker_bench.engine.attach(container_id) as stream:
        docker_bench.engine.start(container_id)
        got = b"".join(frame.data for frame in stream)
    assert len(got) == 100_000


def test_limits_reach_the_container(docker_bench, raw_engine):
    plan = docker_bench.plan("sleep 60", limits=Limits(cpus=0.5, memory_mib=64, memory_reservation_mib=32))
    container_id = docker_bench.engine.create(plan)
    host = raw_engine.containers.get(container_id).attrs["HostConfig"]
    assert host["NanoCpus"] == 500_000_000
    assert host["Memory"] == 64 * 2**20
    assert host["MemorySwap"] == 64 * 2**20
    assert host["MemoryReservation"] == 32 * 2**20
    assert host["Init"] is True
    assert host["LogConfig"]["Type"] == "json-file"
    assert host["Privileged"] is False


def test_a_gpu_that_is_not_there_is_refused_in_plain_words(docker_bench):
    container_id = docker_bench.engine.create(docker_bench.plan(limits=Limits(gpus=1)))
    with pytest.raises(EngineError, match="(?i)gpu|device driver"):
        docker_bench.engine.start(container_id)


def test_outputs_of_any_user_are_handed_to_the_daemons_user_by_root(docker_bench, tmp_path):
    folder = tmp_path / "outputs"
    ownership.make_writable(folder)
    mount = Mount(folder, PurePosixPath("/out"))
    script = "mkdir /out/d && echo x > /out/d/f && ln -s /nowhere /out/link && chmod 600 /out/d/f"
    container_id = docker_bench.started(script, mounts=[mount], user="1234:1234")
    assert eventually(lambda: (s := docker_bench.engine.inspect(container_id)).is_finished and s).exit_code == 0
    assert {path.lstat().st_uid for path in ownership.foreign_paths(folder, os.getuid())} == {1234}
    ownership.reclaim(
        folder, os.getuid(), os.getgid(), docker_bench.engine, docker_bench.image, docker_bench.installation
    )
    assert not list(ownership.foreign_paths(folder, os.getuid()))


def test_outputs_are_handed_over_by_a_container_where_the_daemon_is_not_root(docker_bench, tmp_path, monkeypatch):
    folder = tmp_path / "outputs"
    ownership.make_writable(folder)
    (folder / "f").write_text("made by root")
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    problem = ownership.reclaim(folder, 4321, 4321, docker_bench.engine, docker_bench.image, docker_bench.installation)
    assert problem is None
    assert (folder / "f").lstat().st_uid == 4321
    assert not docker_bench.engine.containers(docker_bench.installation)


def test_buildkit_builds_where_a_docker_command_can(docker_bench, engine_address):
    kit = buildkit.find(engine_address)
    engine = DockerEngine(engine_address, use_buildkit=True)
    if kit is None:
        assert engine.builder().startswith("classic")
        return
    bench = Bench(engine, docker_bench.image, docker_bench.installation)
    tag = f"{bench.installation}:kit"
    made = build(bench, f"FROM {bench.image}\nRUN echo made\n", tag)
    assert made.image_id == engine.image_id(tag)
    assert engine.builder().startswith("buildkit")
    failed = build(bench, f"FROM {bench.image}\nRUN exit 5\n", tag)
    assert failed.image_id is None
    assert "RUN exit 5" in failed.step
    engine.close()


def test_each_answer_of_the_engine_is_observed(engine_address, docker_bench):
    seen: list[tuple[str, float]] = []
    engine = DockerEngine(engine_address, observe=lambda call, seconds: seen.append((call, seconds)))
    dataclasses.replace(docker_bench, engine=engine).started("true")
    engine.close()
    assert {"POST containers/create", "POST containers/start"} <= {call for call, _ in seen}
    assert all(seconds >= 0 for _, seconds in seen)


def test_syntax_that_the_classic_builder_does_not_know_fails_the_build(docker_bench):
    result = build(docker_bench, f"FROM {docker_bench.image}\nNONSENSE x\n", "polylocal-test:x")
    assert result.image_id is None
    assert "NONSENSE" in result.error.upper()


# -- what a container uses, and where it listens -----------------------------------------------------------------


def test_a_busy_loop_uses_a_core(docker_bench: Bench) -> None:
    engine, container_id = docker_bench.engine, docker_bench.started("while :; do :; done")
    first = eventually(lambda: engine.usage(container_id))
    busy = eventually(lambda: (s := engine.usage(container_id)) and s.cpu_ns - first.cpu_ns > 50_000_000 and s, 60)
    assert busy.cpu_ns - first.cpu_ns <= (busy.machine_ns - first.machine_ns) * 1.5
    assert busy.memory_bytes
    engine.remove(container_id)


def test_a_port_is_reached_on_this_machine_and_from_nowhere_else(
    docker_bench: Bench, raw_engine: docker.DockerClient
) -> None:
    engine = docker_bench.engine
    container_id = docker_bench.started("while :; do echo hello | nc -l -p 8888; done", port=8888)
    port = engine.inspect(container_id).published[8888].port
    assert eventually(lambda: _said_at("127.0.0.1", port)) == b"hello\n"
    published = raw_engine.containers.get(container_id).attrs["NetworkSettings"]["Ports"]
    assert published == {"8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    gateway = engine.gateway("bridge")
    if gateway:  # an address of this machine that others reach
        assert _said_at(gateway, port) == b""


def _said_at(host: str, port: int) -> bytes:
    """The output of a server to a new connection; empty if no server listens."""
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def test_a_container_on_the_hosts_network_publishes_nothing(docker_bench: Bench) -> None:
    container_id = docker_bench.started("sleep 60", port=8888, network="host")
    assert docker_bench.engine.inspect(container_id).published == {}


@pytest.mark.parametrize(("locale", "substitute"), [("en_US.UTF-8", "C.UTF-8"), ("C.UTF-8", ""), ("C.utf8", "")])
def test_a_locale_that_an_image_lacks_is_found_before_a_container_of_it_starts(docker_bench, locale, substitute):
    """As bash does on the first line of a log."""
    tag = f"{docker_bench.installation}:locale"
    result = build(docker_bench, f"FROM polylocal/standin-python:3.11\nENV LC_ALL {locale}\n", tag)
    assert result.image_id
    plan = replace(docker_bench.plan(), image=tag, command=["/bin/bash", "-c", "echo fine"])
    container_id = docker_bench.engine.create(plan)
    environment = docker_bench.engine.image_config(tag).env
    assert environment["LC_ALL"] == locale
    assert locales.substitute(docker_bench.engine, container_id, environment, has_bash=True) == substitute
    docker_bench.engine.remove(container_id)
    env = dict.fromkeys(LOCALE_VARIABLES, substitute) if substitute else {}
    container_id = docker_bench.engine.create(replace(plan, env=env))
    docker_bench.engine.start(container_id)
    assert docker_bench.engine.wait(container_id, 60)
    with docker_bench.engine.logs(container_id, follow=False) as stream:
        assert b"".join(frame.data for frame in stream) == b"fine\n"
    docker_bench.engine.remove(container_id)
    docker_bench.engine.remove_image(tag)


def test_the_beginning_of_a_large_file_is_read_and_no_more(docker_bench):
    container_id = docker_bench.engine.create(docker_bench.plan())
    assert docker_bench.engine.read_file(container_id, "/bin/busybox", 4) == b"\x7fELF"
    assert docker_bench.engine.read_file(container_id, "/bin", 4) is None
