"""Time limits and cancellation of git processes, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import eventually

from polylocal.errors import InvalidInput
from polylocal.git import command
from polylocal.system import processes
from polylocal.system.cancellation import Cancel, Cancelled, cancelled_by

Fake = Callable[[str], None]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "code"
    subprocess.run(["git", "init", "--quiet", "--bare", str(path)], check=True)
    return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """fake(script): replaces the program `git` by this script."""

    def make(script: str) -> None:
        program = tmp_path / "bin" / "git"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def child_of(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text().strip() != "")
    return int(path.read_text())


def test_the_answer_of_git(bare: Path) -> None:
    done = command.run("rev-parse", "--is-bare-repository", git_dir=bare)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"true\n", b"")
    done = command.run("cat-file", "--batch-check", git_dir=bare, stdin=b"HEAD\nmaster\n")
    assert done.stdout == b"HEAD missing\nmaster missing\n"
    assert command.run("no-such-command", git_dir=bare).returncode != 0


def test_ends_what_takes_too_long_with_its_children(bare: Path, fake: Fake, tmp_path: Path) -> None:
    fake(f"sleep 600 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(processes.TimedOut, match=r"git fetch took longer than 0\.5 seconds"):
        command.run("fetch", git_dir=bare, limits=processes.Limits(seconds=0.5))
    child = child_of(tmp_path / "child")
    eventually(lambda: not is_alive(child))


def test_ends_what_ignores_the_request_to_end(bare: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.2)
    fake("trap '' TERM; while :; do sleep 0.05; done")
    with pytest.raises(processes.TimedOut):
        command.run("fetch", git_dir=bare, limits=processes.Limits(seconds=0.3))


def test_ends_git_when_the_operation_is_cancelled(bare: Path, fake: Fake, tmp_path: Path) -> None:
    fake(f"sleep 600 & echo $! > {tmp_path}/child; wait")
    cancel, raised = Cancel(), list[BaseException]()

    def work() -> None:
        with cancelled_by(cancel):
            try:
                command.run("archive", git_dir=bare)
            except Cancelled as error:
                raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    child = child_of(tmp_path / "child")
    cancel()
    thread.join(20)
    assert not thread.is_alive()
    assert len(raised) == 1
    eventually(lambda: not is_alive(child))
    with cancelled_by(cancel), pytest.raises(Cancelled):
        command.run("archive", git_dir=bare)


def test_bounds_what_is_read_into_memory(bare: Path, fake: Fake) -> None:
    fake("yes")
    with pytest.raises(processes.TooMuchOutput):
        command.run("ls-tree", git_dir=bare, limits=processes.Limits(output=1 << 20))
    fake("yes >&2 & sleep 0.2; kill $!; echo done")
    done = command.run("ls-tree", git_dir=bare)
    assert done.stdout == b"done\n"
    assert 0 < len(done.stderr) <= 1 << 16


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit of address space")
def test_bounds_memory_and_file_sizes_of_git_and_its_children(bare: Path, fake: Fake, tmp_path: Path) -> None:
    fake(f"sh -c 'ulimit -v; ulimit -f; ulimit -t' > {tmp_path}/limits")
    command.run("gc", git_dir=bare, limits=processes.Limits(seconds=9.0, memory_mib=300, file_bytes=1 << 20))
    assert (tmp_path / "limits").read_text().split() == [str(300 << 10), str((1 << 20) // 512), "10"]
    fake(f"head -c 3000000 /dev/zero > {tmp_path}/large")
    done = command.run("gc", git_dir=bare, limits=processes.Limits(file_bytes=1 << 20))
    assert done.returncode == 128 + signal.SIGXFSZ or done.exceeded_file_size
    assert (tmp_path / "large").stat().st_size <= 1 << 20


def test_tells_when_a_file_outgrew_its_limit(bare: Path, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.write(os.urandom(3 << 20))
    limits = processes.Limits(file_bytes=1 << 20)
    done = command.run("hash-object", "-w", "--", str(tmp_path / "big"), git_dir=bare, limits=limits)
    assert done.returncode != 0
    assert done.exceeded_file_size


def test_a_zero_byte_is_the_callers_fault(bare: Path) -> None:
    with pytest.raises(InvalidInput, match="NUL byte"):
        command.run("ls-tree", "a\0b", git_dir=bare)


def test_the_version() -> None:
    assert command.version() >= (2, 20)
