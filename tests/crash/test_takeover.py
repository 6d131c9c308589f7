"""A daemon on a home folder of the previous version, whose outputs are named after users and projects."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support import eventually, job, unpack

from polylocal.client.http import RunReference
from polylocal.store import Store

from .test_kill import finished, log, log_has, look, submit

pytestmark = pytest.mark.engine

BEFORE = Path(__file__).parents[1] / "homes" / "before_ids.home.tar.gz"


def test_a_daemon_takes_an_older_home_over(start: Any, tmp_path: Path) -> None:
    with tarfile.open(BEFORE) as tar:
        unpack(tar, tmp_path, "fully_trusted")
    daemon = start()

    def read_kept(owner: str, project: str, n: int) -> str:
        path = f"/api/v1/{owner}/{project}/jobs/{n}/outputs/files"
        return look(daemon, lambda client: client.call("GET", path, params={"path": "kept"}).text)

    assert [read_kept("ann", "ry", 1), read_kept("ann", "ry", 2), read_kept("ann", "rx", 3)] == [
        "hidden-job\n",
        "hidden-later\n",
        "public-job\n",
    ]
    shown = Path(look(daemon, lambda client: client.run(RunReference("ann", "ry", "job", 1)))["outputs_path"])
    assert (shown / "kept").read_text() == "hidden-job\n"
    by_name = daemon.home / "outputs" / "by-name"
    assert (by_name / "ann" / "ry" / "jobs" / "1").resolve() == shown
    assert not (by_name / "ann" / "rx" / "jobs" / "1").exists()
    assert sorted(os.listdir(by_name / "root" / "zoo" / "groups" / "1")) == ["4", "5"]
    again = look(daemon, lambda client: client.clone(RunReference("root", "zoo", "job", 4), "resume", {}))
    assert finished(daemon, RunReference("root", "zoo", "job", again["id"]))["last_status"] == "succeeded"


def test_a_running_run_continues_and_may_be_restarted(start: Any) -> None:
    """The container has mounted the folder by the old path, and is restarted with it."""
    daemon = start()
    script = (
        "cd $POLYAXON_RUN_OUTPUTS_PATH; echo try >> tries; echo began; while [ ! -e go ]; do sleep 0.05; done; rm go;"
        " [ $(wc -l < tries) -ge 2 ]"
    )
    run = submit(daemon, job(script, environment={"max_restarts": 1}))
    eventually(lambda: log_has(daemon, run, b"began\n"), 60)
    daemon.kill()
    to_names(daemon.home)
    daemon = start()
    folder = Path(look(daemon, lambda client: client.run(run)["outputs_path"]))
    assert folder.is_relative_to(daemon.home / "outputs")
    assert "crash" not in folder.parts
    (folder / "go").touch()
    eventually(lambda: log(daemon, run).count(b"began\n") == 2, 60)
    (folder / "go").touch()
    assert finished(daemon, run)["last_status"] == "succeeded"
    assert (folder / "tries").read_text() == "try\ntry\n"
    daemon.kill()
    start()
    assert not (daemon.home / "outputs" / "root").exists()


def to_names(home: Path) -> None:
    """Rename the outputs of the only project from its uuid to its name, as in the previous version."""
    store = Store(home / "polylocal.db")
    project = store.projects.get("root", "crash")
    old = home / "outputs" / "root" / "crash"
    old.parent.mkdir()
    (home / "outputs" / project.uuid).rename(old)
    with store.database.write() as db:
        db.execute("update runs set outputs = replace(outputs, ?, 'root/crash')", (project.uuid,))
        db.execute("pragma user_version = 7")
    store.close()
