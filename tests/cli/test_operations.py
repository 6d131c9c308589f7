"""The commands `backup`, `restore` and `service`."""

from __future__ import annotations

import io
import sqlite3
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from support import unpack

from polylocal.api.api_context import ApiContext
from polylocal.daemon import home_lock
from polylocal.paths import Home
from polylocal.statuses import Kind
from polylocal.store import NewRun, Store
from polylocal.store.database import SCHEMA_VERSION
from polylocal.store.rows import Project, User

from .conftest import Cli
from .test_cli import good, one_line

HOMES = Path(__file__).parents[1] / "homes"


def test_a_backup_and_what_is_made_of_it(
    polylocal: Cli, store: Store, project: Project, root: User, context: ApiContext, tmp_path: Path
) -> None:
    run = store.runs.insert(project, root, NewRun(Kind.JOB, config={}))
    (context.outputs_path(run) or tmp_path).mkdir(parents=True)
    store.installation()
    file = tmp_path / "b.tar.gz"
    said = good(polylocal("backup", str(file)))
    assert (said.out, said.err.startswith(f"{file}: 1 run, 1 file (")) == ("", True)
    one_line(polylocal("backup", str(file)), "exists already", "--force")
    good(polylocal("backup", str(file), "--force", "--without-outputs"))
    with tarfile.open(file) as tar:
        assert "outputs" not in tar.getnames()
    one_line(polylocal("restore", str(file)), "is not empty", "--home")
    said = good(polylocal("restore", str(file), "--home", str(tmp_path / "back")))
    assert f"{tmp_path / 'back'}: 1 run, 1 file (" in said.err
    assert "made without outputs" in said.err
    assert "1 run unfinished" in said.err
    assert f"polylocal start --home {tmp_path / 'back'}" in said.err
    one_line(polylocal("restore", str(tmp_path / "nosuch"), "--home", str(tmp_path / "more")), "No such file")
    one_line(polylocal("backup", str(tmp_path / "c"), "--home", str(tmp_path / "nosuch")), "there is no database")


@pytest.mark.skipif(sys.platform != "linux", reason="the file of systemd")
def test_a_service(polylocal: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: ApiContext) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / ".config" / "systemd" / "user" / "polylocal.service"
    printed = good(polylocal("service", "install", "--print")).out
    assert f'"{sys.executable}" "-m" "polylocal" "serve" "--background" "--home" "{context.home.root}"' in printed
    assert not file.exists()
    assert "not installed" in good(polylocal("service", "status")).out
    said = good(polylocal("service", "install")).out
    assert f"{file} written\n" in said
    assert "  systemctl --user daemon-reload\n" in said
    assert file.read_text() == printed
    assert "exists already" in good(polylocal("service", "install")).out
    assert "removed" in good(polylocal("service", "remove")).out
    assert "nothing to remove" in good(polylocal("service", "remove")).out


@pytest.mark.skipif(sys.platform != "linux", reason="with a systemctl")
def test_a_service_beside_a_daemon(
    polylocal: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: ApiContext
) -> None:
    """Two daemons can't use one home folder: the second would fail and be started again and again."""
    (tmp_path / "systemctl").write_text('#!/bin/sh\ncase "$*" in *is-active*) exit 3 ;; esac\n')
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    lock = home_lock.take(context.home)
    one_line(polylocal("service", "install"), "a daemon is already running for", "polylocal stop")
    lock.close()
    assert "enable-linger" in good(polylocal("service", "install")).out


def test_a_newer_command_changes_no_tables_under_an_older_daemon(
    polylocal: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older daemon would continue to write rows of its own version, which the newer tables would lose."""
    with tarfile.open(HOMES / "before_ids.home.tar.gz") as tar:
        unpack(tar, tmp_path, "fully_trusted")
    home = Home(tmp_path / "home")

    def version() -> int:
        with closing(sqlite3.connect(home.database)) as db:
            return int(db.execute("pragma user_version").fetchone()[0])

    older = version()
    assert older < SCHEMA_VERSION
    lock = home_lock.take(home)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a value"))
    for command in (("user", "ls"), ("user", "token", "ann"), ("secret", "set", "s", "KEY")):
        one_line(polylocal(*command, "--home", str(home.root)), "older version", "polylocal stop")
    assert version() == older
    lock.close()
    assert "ann" in good(polylocal("user", "ls", "--home", str(home.root))).out
    assert version() == SCHEMA_VERSION
