"""A backup of a home folder with a running daemon, and a daemon on the restored copy."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import docker
import pytest
from programs import run_polylocal
from support import BUSYBOX, Daemon, eventually, job, start_daemon

from polylocal.client.http import Client, RunReference
from polylocal.store import Store

from .test_kill import containers_of, finished, log, log_has, look, status, submit

pytestmark = pytest.mark.engine


def polylocal(*arguments: str) -> str:
    done = run_polylocal(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def upload(daemon: Daemon, n: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("train.py", f"f{n}.py"):
            member = tarfile.TarInfo(name)
            member.size = len(b"%d" % n)
            tar.addfile(member, io.BytesIO(b"%d" % n))
    packed.seek(0)
    look(daemon, lambda client: client.upload("root", "crash", packed))


def installation(home: Path) -> str:
    store = Store(home / "polylocal.db")
    try:
        return store.installation()
    finally:
        store.close()


def all_of(daemon: Daemon, run: RunReference) -> dict[str, Any]:
    """All keys of a run, except for the daemon's address and folder."""
    said = look(daemon, lambda client: {**client.run(run), "history": client.statuses(run)})
    return {
        key: json.dumps(value).replace(daemon.url, "URL").replace(str(daemon.home), "HOME")
        for key, value in said.items()
    }


def test_a_backup_under_load_and_a_daemon_on_it(start, to_sweep: list[str], tmp_path: Path, raw_engine):
    daemon = start()
    ended = submit(daemon, job('echo "out $((6*7))"; printf "no end"; echo kept > $POLYAXON_RUN_OUTPUTS_PATH/kept'))
    finished(daemon, ended)
    token = polylocal("user", "add", "ann", "--home", str(daemon.home)).strip()
    upload(daemon, 0)
    going = submit(daemon, job("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done"))
    eventually(lambda: log_has(daemon, going, b"line 10\n"), 60)
    stopped = threading.Event()

    def uploads() -> None:
        n = 0
        while not stopped.is_set():
            n += 1
            upload(daemon, n)

    thread = threading.Thread(target=uploads)
    thread.start()
    try:
        said = polylocal("backup", str(tmp_path / "b.tar.gz"), "--home", str(daemon.home))
    finally:
        stopped.set()
        thread.join()
    assert "left out" not in said
    before, known = log(daemon, going), all_of(daemon, ended)

    home = tmp_path / "back"
    said = polylocal("restore", str(tmp_path / "b.tar.gz"), "--home", str(home))
    assert "1 run unfinished" in said
    to_sweep.append(installation(home))
    assert installation(home) != installation(daemon.home)
    back = start_daemon(home)
    try:
        assert back.token == daemon.token
        assert dict(all_of(back, ended).items() ^ known.items()) == {}
        assert look(back, lambda client: client.whoami()["username"]) == "root"
        assert log(back, ended) == b"out 42\nno end"
        kept = Path(look(back, lambda client: client.run(ended)["outputs_path"])) / "kept"
        assert kept.is_relative_to(home)
        assert kept.read_text() == "kept\n"
        ann = Client(back.url, token)
        assert ann.whoami()["username"] == "ann"
        ann.close()
        code = look(back, lambda client: client.call("GET", "/api/v1/root/crash/repo/download").content)
        with tarfile.open(fileobj=io.BytesIO(code)) as tar:
            assert any(name.endswith("train.py") for name in tar.getnames())
        # the active run belongs to the other daemon: it is lost here, and continues there
        assert finished(back, going)["last_status"] == "failed"
        *lines, marked = log(back, going).splitlines(keepends=True)
        assert before.startswith(b"".join(lines))
        assert (lines[0], marked[:22]) == (b"line 0\n", b"polylocal: engine-lost")
        again = submit(back, job("echo again"))
        assert finished(back, again)["last_status"] == "succeeded"
        assert log(back, again) == b"again\n"
        upload(back, 99)
    finally:
        back.kill()
    assert status(daemon, going) == "running"
    assert [container.status for container in containers_of(raw_engine, going, daemon)] == ["running"]
    seen = len(log(daemon, going))
    eventually(lambda: len(log(daemon, going)) > seen)


def test_restored_in_its_own_place_the_run_is_taken_up(start, tmp_path: Path, raw_engine: docker.DockerClient):
    daemon = start()
    run = submit(daemon, job("i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.05; done", BUSYBOX))
    eventually(lambda: log_has(daemon, run, b"line 10\n"), 60)
    polylocal("backup", str(tmp_path / "b.tar.gz"), "--home", str(daemon.home))
    daemon.kill()
    daemon.home.rename(tmp_path / "lost")
    said = polylocal("restore", str(tmp_path / "b.tar.gz"), "--home", str(daemon.home))
    assert "separate installation" not in said
    daemon = start()
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert log(daemon, run) == b"".join(b"line %d\n" % n for n in range(200))
    eventually(lambda: not containers_of(raw_engine, run, daemon))
