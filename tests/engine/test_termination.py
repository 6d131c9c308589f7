"""Stops of all forms of commands: each program gets SIGTERM once and saves, and its exit code is recorded."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import docker
import pytest
from support import BUSYBOX, eventually, sweep

from polylocal.engine import termination
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.plan import HOME_LABEL, RUN_LABEL, ContainerPlan, Mount
from polylocal.polyaxonfile import commands

pytestmark = pytest.mark.engine

PYTHON = "polylocal/standin-python:3.11"
GRACE_S = 20.0  # more than any of them needs on a busy machine
TOGETHER = 3  # containers at a time
OUT = PurePosixPath("/out")

IN_PYTHON = """
import os, signal, sys, time
told = []
def save(number, frame):
    told.append(number)
    if len(told) == 1:
        for part in range(10):
            print("saving", part, flush=True)
            time.sleep(0.02)
        with open("/out/saved", "a") as file:
            file.write("saved\\n")
        time.sleep(0.1)  # a second signal would come now
        print("told", len(told), flush=True)
        sys.exit(3)
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
open(f"/out/begun-{os.getpid()}", "w").close()
while True:
    signal.pause()
"""
IN_SH = """
told=0
trap 'told=$((told + 1)); [ $told = 1 ] || exit 9
for part in 0 1 2; do echo saving $part; sleep 0.05; done
echo saved >>/out/saved; sleep 0.1; echo told $told; exit 3' TERM
echo begun; : >/out/begun-$$
while :; do sleep 0.05; done
"""
LAUNCHER = """
import signal, subprocess, sys
program = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda number, frame: program.terminate())
sys.exit(program.wait())
"""
SCRIPT = 'PROGRAM\necho "further"\n'


@dataclass
class Case:
    """A command; `PROGRAM` in it saves at SIGTERM, and exits with 3. No part that prints `further` may run."""

    cmd: str | list[str]
    programs: int = 1  # that save
    code: int = 3
    user: str | None = None
    only: str = ""  # the image that has what the command needs


CASES: Mapping[str, Case] = {
    "one program": Case("PROGRAM"),
    "a list of commands": Case("PROGRAM && echo further || echo further; echo further"),
    "a pipe": Case("PROGRAM 2>&1 | tee /out/log"),
    "a pipe of three": Case("PROGRAM 2>&1 | sed s/^/x/ | cat"),
    "a pipe into a loop": Case("PROGRAM 2>&1 | while read line; do echo $line; done"),
    "a program that reads": Case("yes | PROGRAM"),
    "output through a process": Case("exec > >(cat) 2>&1; PROGRAM; echo further", only=PYTHON),
    "a script": Case("sh /out/run.sh"),
    "a script in a script": Case("sh -c 'sh /out/run.sh; echo further'; echo further"),
    "lines": Case("cd /\nPROGRAM\necho further"),
    "items": Case(["cd /", "PROGRAM", "echo further"]),
    "a subshell": Case("(cd /out; PROGRAM; echo further); echo further"),
    "a substitution": Case("x=$(PROGRAM >&2); echo further"),
    "a loop": Case("for i in 1 2 3; do PROGRAM; echo further; done"),
    "a function": Case("f() { PROGRAM; echo further; }; f"),
    "in the background": Case("PROGRAM & wait; exit 1"),
    "two in the background": Case("PROGRAM & PROGRAM & wait $!; echo further", programs=2),
    "an orphan": Case("(PROGRAM &); sleep 600; echo further", code=143),
    "a session of its own": Case("setsid PROGRAM & wait; echo further"),
    "under timeout": Case("timeout 600 PROGRAM"),
    "under flock": Case("flock /tmp/lock PROGRAM; echo further", only=PYTHON),
    "a script under timeout": Case("timeout 600 sh /out/run.sh; echo further"),
    "an EXIT trap": Case("trap 'echo bye' EXIT; PROGRAM; echo further", only=PYTHON),
    "an image's own user": Case("PROGRAM | cat; echo further", user="1234"),
    "a program of another user": Case("setpriv --reuid 1234 --clear-groups PROGRAM; echo further", 1, 143, only=PYTHON),
    "no handler": Case("touch /out/begun-x; sleep 600; echo further", 0, 143),
    "a trap that passes the signal on": Case("trap 'kill $p; wait $p; exit $?' TERM; PROGRAM & p=$!; wait $p"),
    "a trap over timeout": Case("trap 'kill $p; wait $p; exit $?' TERM; timeout 600 PROGRAM & p=$!; wait $p"),
    "a trap over a script": Case("trap 'kill $p; wait $p; exit 3' TERM; sh /out/run.sh & p=$!; wait $p"),
    "a program that passes the signal on": Case('python3 -c "$LAUNCHER" PROGRAM; echo further', only=PYTHON),
    "a trap of the command": Case("trap 'exit 5' TERM; touch /out/begun-x; while :; do sleep 0.1; done", 0, 5),
}


@dataclass
class Stopped:
    code: int
    log: str
    saved: int


@dataclass
class Stops:
    """Runs all cases of an image, a few at a time. Each test reads the result of one."""

    engine: DockerEngine
    installation: str
    folder: Path
    results: dict[tuple[str, str], Future[Stopped]] = field(default_factory=dict)

    def stop(self, image: str, case: Case) -> Stopped:
        container_id, folder = self.begun(image, case)
        assert self.engine.terminate(container_id)
        assert self.engine.wait(container_id, GRACE_S), "it has not ended within its grace"
        return self.ended(container_id, folder)

    def ended(self, container_id: str, folder: Path) -> Stopped:
        with self.engine.logs(container_id, follow=False) as stream:
            log = b"".join(frame.data for frame in stream).decode()
        saved = (folder / "saved").read_text().count("saved") if (folder / "saved").exists() else 0
        code = self.engine.inspect(container_id).exit_code
        self.engine.remove(container_id)
        return Stopped(code, log, saved)

    def begun(self, image: str, case: Case) -> tuple[str, Path]:
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir()
        folder.chmod(0o777)
        name, program = ("t.py", "python3 /out/t.py") if image == PYTHON else ("t.sh", "sh /out/t.sh")
        (folder / name).write_text(IN_PYTHON if image == PYTHON else IN_SH)
        (folder / "run.sh").write_text(SCRIPT.replace("PROGRAM", program))
        items = [case.cmd] if isinstance(case.cmd, str) else case.cmd
        cmd = [item.replace("PROGRAM", program) for item in items]
        container_id = self.start(image, cmd[0] if isinstance(case.cmd, str) else cmd, folder, case.user)
        eventually(lambda: len(list(folder.glob("begun-*"))) >= max(case.programs, 1), 60)
        return container_id, folder

    def start(self, image: str, cmd: str | list[str], folder: Path, user: str | None = None) -> str:
        run = uuid.uuid4().hex
        shell = commands.BASH if image == PYTHON else commands.SH
        plan = ContainerPlan(
            name=f"plx-job-{run}",
            image=image,
            command=commands.arguments(cmd, shell),
            labels={HOME_LABEL: self.installation, RUN_LABEL: f"job/{run}"},
            env={"LAUNCHER": LAUNCHER},
            mounts=[Mount(folder, OUT)],
            network="host",
            user=user,
            entrypoint=termination.entrypoint(shell),
        )
        container_id = self.engine.create(plan)
        self.engine.start(container_id)
        return container_id


def combinations() -> list[tuple[str, str]]:
    images = (PYTHON, BUSYBOX)
    return [(name, image) for name, case in CASES.items() for image in images if case.only in ("", image)]


@pytest.fixture(scope="module")
def stops(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stops]:
    installation = f"test-{uuid.uuid4().hex[:8]}"
    made = Stops(DockerEngine(engine_address), installation, tmp_path_factory.mktemp("stops"))
    with ThreadPoolExecutor(TOGETHER) as pool:
        made.results = {(n, image): pool.submit(made.stop, image, CASES[n]) for n, image in combinations()}
        yield made
        pool.shutdown(cancel_futures=True)
    made.engine.close()
    sweep(engine_address, installation)


@pytest.mark.parametrize(("name", "image"), combinations())
def test_a_stop_lets_every_program_save(stops: Stops, name: str, image: str) -> None:
    case, stopped = CASES[name], stops.results[name, image].result()
    assert stopped.saved == case.programs, stopped.log
    assert stopped.code == case.code, stopped.log
    assert "further" not in stopped.log
    if image == PYTHON and case.code == 3:  # the others' own shells say so of their `sleep`
        assert "Terminated" not in stopped.log
    assert stopped.log.count("told 1\n") == case.programs


@pytest.mark.parametrize("image", [PYTHON, BUSYBOX])
@pytest.mark.parametrize(
    ("cmd", "code", "log"),
    [
        ("true", 0, ""),
        ("exit 7", 7, ""),
        ("sh -c 'kill -9 $$'", 137, ""),
        ("sh -c 'kill -11 $$'", 139, ""),
        ("sh -c 'kill -15 $$'", 143, ""),
        ("kill -15 $$; echo further", 143, ""),
        ("echo out; echo err >&2", 0, "err\nout\n"),
        ("sleep 600 & echo out", 0, "out\n"),  # a program in the background holds nothing up
        ("trap 'kill 0' EXIT; sleep 600 & exit 4", 143, ""),
        ("echo ${polylocal_stopped-none} ${code-none} $0 $#", 0, "none none SHELL 0\n"),
    ],
)
def test_without_a_stop_a_command_ends_as_it_would_alone(
    stops: Stops, tmp_path: Path, image: str, cmd: str, code: int, log: str
) -> None:
    container_id = stops.start(image, cmd, tmp_path)
    assert stops.engine.wait(container_id, GRACE_S)
    ended = stops.ended(container_id, tmp_path)
    shell = commands.BASH if image == PYTHON else commands.SH
    assert (ended.code, sorted(ended.log.splitlines())) == (code, log.replace("SHELL", shell).splitlines())


@pytest.mark.parametrize("image", [PYTHON, BUSYBOX])
def test_a_program_is_told_once_however_often_the_stop_is_asked_for(stops: Stops, image: str) -> None:
    """A daemon that starts while a run ends requests the stop again."""
    container_id, folder = stops.begun(image, Case("PROGRAM; echo further"))
    for _ in range(3):
        stops.engine.terminate(container_id)
    assert stops.engine.wait(container_id, GRACE_S)
    ended = stops.ended(container_id, folder)
    assert (ended.saved, ended.code, ended.log.count("told 1\n")) == (1, 3, 1), ended.log


def test_what_ignores_the_signal_is_killed(stops: Stops, tmp_path: Path) -> None:
    container_id = stops.start(BUSYBOX, "trap '' TERM; touch /out/begun; while :; do sleep 1; done", tmp_path)
    eventually((tmp_path / "begun").exists, 60)
    assert stops.engine.terminate(container_id)
    assert not stops.engine.wait(container_id, 0.5)
    stops.engine.kill(container_id)
    assert stops.engine.wait(container_id, GRACE_S)
    assert stops.ended(container_id, tmp_path).code == 137


def test_the_engines_own_stop_lets_a_program_save(stops: Stops, raw_engine: docker.DockerClient) -> None:
    """`docker stop`, and an engine that shuts down."""
    container_id, folder = stops.begun(PYTHON, Case("PROGRAM && echo further"))
    raw_engine.containers.get(container_id).stop(timeout=int(GRACE_S))
    ended = stops.ended(container_id, folder)
    assert (ended.saved, ended.code) == (1, 143)
    assert "further" not in ended.log


def test_a_paused_container_has_no_processes_to_tell(
    stops: Stops, tmp_path: Path, raw_engine: docker.DockerClient
) -> None:
    container_id = stops.start(BUSYBOX, "sleep 600", tmp_path)
    raw_engine.containers.get(container_id).pause()
    assert not stops.engine.terminate(container_id)
    raw_engine.containers.get(container_id).unpause()
    stops.engine.kill(container_id)
