"""Ownership of files: a daemon of a plain user, images with any user, and no leftovers that need sudo."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from support import BUSYBOX, Daemon, eventually, job

from polylocal.client.http import RunReference

from .conftest import Starter, reusable_daemon
from .test_kill import containers_of, finished, log, log_has, look, status, submit

pytestmark = pytest.mark.engine

IS_ROOT = os.geteuid() == 0
USER, GROUP = (1234, 1234) if IS_ROOT else (os.getuid(), os.getgid())  # the daemon's user
OWNER_OF_PASSWD = Path("/etc/passwd").stat().st_uid  # root, which may have another number in a user namespace
OTHER = 4321  # the user of an image

# inaccessible folders, links to foreign files, names that break naive programs
WRITE = (
    "cd $POLYAXON_RUN_OUTPUTS_PATH; umask 077; mkdir -p deep/er; echo kept > deep/er/file; ln -s /etc/passwd link;"
    " ln -s nowhere broken; touch -- '-R a b'; echo begun"
)
SHOW_ROOM = """
set -e
keep=$(mktemp -d)
mount --bind "$1" "$keep"
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/$2"
mount --bind "$keep/$2" "$1/$2"
shift 2
exec "$@"
"""


def as_user() -> list[str]:
    """The prefix that runs a command as a plain user with access to the engine. It is empty for a plain user.

    If the interpreter is in root's inaccessible home, a separate mount namespace makes it visible.
    """
    if not IS_ROOT:
        return []
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", f"--groups={os.stat(socket).st_gid}"]
    interpreter = Path(sys.executable).resolve()
    for folder in reversed(interpreter.parents):
        if not folder.stat().st_mode & 0o001:
            inside = interpreter.relative_to(folder).parts[0]
            return ["unshare", "--mount", "sh", "-c", SHOW_ROOM, "sh", str(folder), inside, *prefix]
    return prefix


@pytest.fixture(scope="module")
def start(engine_address: str) -> Iterator[Starter]:
    """Like `start` of the other tests, with a home folder that a plain user can access."""
    around = Path(tempfile.mkdtemp(prefix="polylocal-test-"))
    around.chmod(0o755)
    home = around / "home"
    home.mkdir()
    os.chown(home, USER, GROUP)
    with reusable_daemon(home, engine_address, as_user()) as starter:
        yield partial(starter, HOME=str(home), POLYLOCAL_GRACE_S="1")
    open_to_owner(around)
    shutil.rmtree(around)


@pytest.fixture
def image(raw_engine: docker.DockerClient) -> Iterator[Callable[[str], str]]:
    """image("USER 4321") → the name of an image with this line on top of busybox."""
    made: list[str] = []

    def make(line: str) -> str:
        name = f"polylocal-test/owned:{uuid.uuid4().hex}"
        raw_engine.images.build(fileobj=io.BytesIO(f"FROM {BUSYBOX}\n{line}\n".encode()), tag=name, rm=True)
        made.append(name)
        return name

    yield make
    for name in made:
        raw_engine.images.remove(name, force=True)


IMAGES = {
    "root": ("USER 0", WRITE),
    "somebody": (f"USER {OTHER}:{OTHER}", WRITE),
    "needs root": ("USER 0", f"{WRITE}; chown -R 99:99 .; chown {OTHER} deep/er/file; chmod 000 deep"),
}


def open_to_owner(*folders: Path) -> None:
    """Restore the owner's permissions, since otherwise only root could read the folders."""
    if not IS_ROOT:
        subprocess.run(["chmod", "-R", "u+rwX", *folders], check=False, capture_output=True)


def foreign(daemon: Daemon) -> list[str]:
    """Files in outputs and logs that don't belong to the user."""
    folders = [folder for name in ("outputs", "logs", "notebooks") if (folder := daemon.home / name).exists()]
    open_to_owner(*folders)
    found = subprocess.run(["find", *folders, "!", "-uid", str(USER)], check=True, capture_output=True, text=True)
    return found.stdout.splitlines()


def assert_all_is_the_users(daemon: Daemon, run: RunReference) -> None:
    assert foreign(daemon) == []
    assert Path("/etc/passwd").stat().st_uid == OWNER_OF_PASSWD
    outputs = Path(look(daemon, lambda client: client.run(run))["outputs_path"])
    assert os.readlink(outputs / "link") == "/etc/passwd"
    plain = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"] if IS_ROOT else []
    subprocess.run([*plain, "chmod", "-R", "u+rwX", str(daemon.home / "outputs")], check=True)
    assert (outputs / "deep" / "er" / "file").read_text() == "kept\n"
    subprocess.run([*plain, "rm", "-r", str(daemon.home / "outputs"), str(daemon.home / "logs")], check=True)


@pytest.mark.parametrize("which", list(IMAGES))
def test_after_a_run(start, image, which: str) -> None:
    line, script = IMAGES[which]
    daemon = start()
    run = submit(daemon, job(script, image(line)))
    assert finished(daemon, run)["last_status"] == "succeeded", log(daemon, run)
    assert_all_is_the_users(daemon, run)


@pytest.mark.parametrize("which", list(IMAGES))
def test_after_a_stop(start, image, which: str) -> None:
    line, script = IMAGES[which]
    daemon = start()
    run = submit(daemon, job(f"{script}; sleep 600", image(line)))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    look(daemon, lambda client: client.stop(run))
    assert finished(daemon, run)["last_status"] == "stopped"
    assert_all_is_the_users(daemon, run)


@pytest.mark.parametrize("which", list(IMAGES))
def test_after_a_loss(start, image, raw_engine: docker.DockerClient, which: str) -> None:
    """The container is gone, so a helper from the build's image changes the owner."""
    line, script = IMAGES[which]
    daemon = start()
    run = submit(daemon, job(f"{script}; sleep 600", image(line)))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    containers_of(raw_engine, run, daemon)[0].remove(force=True)
    assert finished(daemon, run)["last_status"] == "failed"
    assert_all_is_the_users(daemon, run)


def test_after_a_daemon_that_was_killed(start, image, raw_engine: docker.DockerClient) -> None:
    line, script = IMAGES["somebody"]
    daemon = start()
    run = submit(daemon, job(f"{script}; sleep 2", image(line)))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    container = containers_of(raw_engine, run, daemon)[0]
    daemon.kill()
    container.wait()
    daemon = start()
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert_all_is_the_users(daemon, run)


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("which", list(IMAGES))
def test_a_removed_run_leaves_nothing(start, image, which: str, is_running: bool) -> None:
    line, script = IMAGES[which]
    daemon = start()
    run = submit(daemon, job(f"{script}; {'sleep 600' if is_running else 'true'}", image(line)))
    eventually(lambda: log_has(daemon, run, b"begun"), 60)
    if not is_running:
        finished(daemon, run)
    found = look(daemon, lambda client: client.run(run))
    look(daemon, lambda client: client.delete(run))
    eventually(lambda: not Path(found["outputs_path"]).exists(), 30)
    eventually(lambda: not list((daemon.home / "logs" / "jobs").iterdir()), 30)
    assert foreign(daemon) == []


@pytest.mark.parametrize("which", ["root", "somebody"])
def test_folders_closed_even_to_their_owner_are_removed(start, image, which: str) -> None:
    """Even the owner can't remove files from a folder without write permission, so the daemon restores it first."""
    line, script = IMAGES[which]
    daemon = start()
    run = submit(daemon, job(f"{script}; chmod -R a-w,u-rx deep; true", image(line)))
    finished(daemon, run)
    outputs = Path(look(daemon, lambda client: client.run(run))["outputs_path"])
    look(daemon, lambda client: client.delete(run))
    eventually(lambda: not outputs.exists(), 30)


def test_a_notebooks_folder(start, image) -> None:
    """Files that root changed in the container are committed, and the folder is removed."""
    program = "cd /code; umask 077; mkdir mine; echo 1 > mine/a.py; echo written; exec sleep 600"
    jupyter = f"printf '#!/bin/sh\\n{program}\\n' > /bin/jupyter"
    daemon = start()
    config: dict[str, Any] = {
        "version": 1,
        "kind": "notebook",
        "build": {"image": BUSYBOX, "build_steps": [jupyter, "chmod +x /bin/jupyter"]},
    }
    run = submit(daemon, config, "notebook")
    eventually(lambda: status(daemon, run) == "running", 60)
    work = daemon.home / "notebooks" / look(daemon, lambda client: client.run(run))["uuid"]
    eventually(lambda: b"written" in log(daemon, run))
    look(daemon, lambda client: client.stop(run))
    assert finished(daemon, run)["last_status"] == "stopped"
    assert foreign(daemon) == []
    messages = [entry["message"] or "" for entry in look(daemon, lambda client: client.statuses(run))]
    assert sum("are commit" in message for message in messages) == 1
    assert not work.exists()
