"""Files are the user's: a daemon that is not root's, images of every user, and nothing is left that needs sudo."""

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

from .conftest import Starter, keeping
from .test_kill import containers_of, finished, log, log_has, look, status, submit

pytestmark = pytest.mark.engine

IS_ROOT = os.geteuid() == 0
USER, GROUP = (1234, 1234) if IS_ROOT else (os.getuid(), os.getgid())  # of the daemon
OWNER_OF_PASSWD = Path("/etc/passwd").stat().st_uid  # root, which has another number in a user namespace
OTHER = 4321  # the user of an image

# closed to others, links to what is not ours, names that programs trip over
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
    """The prefix that runs a command as a plain user who may use the engine; a plain user needs none.

    An interpreter in root's closed home is shown to it in a mount namespace of its own.
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
    """As the one of the other tests; the home folder lies where a plain user can reach it."""
    around = Path(tempfile.mkdtemp(prefix="polylocal-test-"))
    around.chmod(0o755)
    home = around / "home"
    home.mkdir()
    os.chown(home, USER, GROUP)
    with keeping(home, engine_address, as_user()) as starter:
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
    """Give the owner back what a program closed, since only root can look into it otherwise."""
    if not IS_ROOT:
        subprocess.run(["chmod", "-R", "u+rwX", *folders], check=False, capture_output=True)


def foreign(daemon: Daemon) -> list[str]:
    """What in outputs and logs is not the user's."""
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
    """The container is gone: the image of the build hands its files over."""
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
def test_after_its_removal_nothing_is_left(start, image, which: str, is_running: bool) -> None:
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
def test_what_a_program_closed_even_to_its_owner_goes_too(start, image, which: str) -> None:
    """A folder without the right to write keeps what is in it, even from its owner: removing gives that right first."""
    line, script = IMAGES[which]
    daemon = start()
    run = submit(daemon, job(f"{script}; chmod -R a-w,u-rx deep; true", image(line)))
    finished(daemon, run)
    outputs = Path(look(daemon, lambda client: client.run(run))["outputs_path"])
    look(daemon, lambda client: client.delete(run))
    eventually(lambda: not outputs.exists(), 30)


def test_a_notebooks_folder(start, image) -> None:
    """Code that is worked on as root in the container is committed, and its folder goes."""
    jupyter = (
        "printf '#!/bin/sh\\ncd /code; umask 077; mkdir mine; echo 1 > mine/a.py; exec sleep 600\\n' > /bin/jupyter"
    )
    daemon = start()
    config: dict[str, Any] = {
        "version": 1,
        "kind": "notebook",
        "build": {"image": BUSYBOX, "build_steps": [jupyter, "chmod +x /bin/jupyter"]},
    }
    run = submit(daemon, config, "notebook")
    eventually(lambda: status(daemon, run) == "running", 60)
    work = daemon.home / "notebooks" / look(daemon, lambda client: client.run(run))["uuid"]
    eventually((work / "mine" / "a.py").exists)
    look(daemon, lambda client: client.stop(run))
    assert finished(daemon, run)["last_status"] == "stopped"
    assert foreign(daemon) == []
    messages = [entry["message"] or "" for entry in look(daemon, lambda client: client.statuses(run))]
    assert sum("are commit" in message for message in messages) == 1
    assert not work.exists()
