"""Access, with the real command and daemon: tokens, an address that is open to the network, a full disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from programs import run_polylocal
from support import Daemon, eventually, fill, job, small_disk, start_daemon, sweep

from polylocal.client.http import RunReference
from polylocal.daemon.accounts import MIN_TOKEN
from polylocal.store import Store

from .test_kill import finished, log, look, submit

pytestmark = pytest.mark.engine


def polylocal(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "POLYLOCAL_HOME": str(home), "COLUMNS": "300", "NO_COLOR": "1"}
    return run_polylocal(*arguments, environment=environment)


def says(home: Path, *arguments: str) -> str:
    ended = polylocal(home, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def complains(home: Path, *arguments: str) -> str:
    """The one line of its error message."""
    ended = polylocal(home, *arguments)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    [line] = (ended.stdout + ended.stderr).strip().splitlines()
    return line


def whose(daemon: Daemon, token: str) -> str | None:
    """The user to whom the daemon attributes a token."""
    answer = httpx2.get(f"{daemon.url}/api/v1/users/", headers={"Authorization": f"Token {token}"})
    if answer.status_code == 401:
        return None
    found: str = answer.raise_for_status().json()["username"]
    return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    found = start_daemon(tmp_path_factory.mktemp("exposure") / "home")
    yield found
    found.kill()


# -- tokens ------------------------------------------------------------------------------------------------------


def test_a_users_tokens_are_good_until_they_are_revoked(daemon: Daemon) -> None:
    """This applies to a running daemon. The admin's tokens stay valid."""
    first = says(daemon.home, "user", "add", "ann")
    second = says(daemon.home, "user", "token", "ann")
    assert first != second
    assert [whose(daemon, token) for token in (first, second)] == ["ann", "ann"]
    before = daemon.token
    assert says(daemon.home, "user", "revoke", "ann") == "2 tokens of ann are revoked"
    assert [whose(daemon, token) for token in (first, second)] == [None, None]
    assert (daemon.token, whose(daemon, before)) == (before, "root")
    assert whose(daemon, says(daemon.home, "user", "token", "ann")) == "ann"
    says(daemon.home, "user", "revoke", "ann")


def test_the_token_file_is_renewed_when_its_token_is_revoked(daemon: Daemon) -> None:
    before, path = daemon.token, daemon.home / "token"
    said = says(daemon.home, "user", "revoke", "root").splitlines()
    assert said[0].endswith(" of root are revoked")
    assert said[1] == f"A new token is in {path}"
    after = says(daemon.home, "token")
    assert after == daemon.token != before
    assert path.stat().st_mode & 0o777 == 0o600
    assert (whose(daemon, before), whose(daemon, after)) == (None, "root")
    assert "root" in says(daemon.home, "project", "create", "made-with-the-new-one")


def test_the_token_file_never_gets_another_users_token(daemon: Daemon) -> None:
    """Even if the file's token is invalid: a plain user's token would lock the admin out."""
    before = daemon.token
    says(daemon.home, "user", "add", "bob")
    (daemon.home / "token").write_text("0" * 40 + "\n")
    try:
        says(daemon.home, "user", "revoke", "bob")
        assert whose(daemon, daemon.token) != "bob"
    finally:
        (daemon.home / "token").write_text(before + "\n")


@pytest.mark.parametrize("command", ["token", "revoke"])
def test_an_unknown_user(daemon: Daemon, command: str) -> None:
    assert complains(daemon.home, "user", command, "nobody").startswith("polylocal: ")


# -- an open address ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_guessable_token_keeps_the_address_closed(tmp_path: Path, command: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("secret\n")
    said = complains(home, command, "--host", "0.0.0.0", "--port", "0")
    assert f"the token in {home / 'token'} has only 6 characters, not {MIN_TOKEN}" in said
    assert "delete that file, and the next start creates a new one" in said
    assert "secret" not in said


def test_an_open_address_is_warned_of_once(tmp_path: Path) -> None:
    """Without a guessable token, the daemon starts and warns once."""
    home = tmp_path / "home"
    opened = start_daemon(home, "--host", "0.0.0.0")
    assert len(opened.token) >= MIN_TOKEN
    try:
        assert whose(opened, opened.token) == "root"
    finally:
        opened.kill()
    lines = [json.loads(line) for line in (home / "daemon.log").read_text().splitlines()]
    warned = [line["message"] for line in lines if "open to other machines" in line["message"]]
    assert len(warned) == 1
    assert warned[0].startswith("0.0.0.0 is open to other machines")
    assert opened.token not in json.dumps(lines)


# -- a full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path, engine_address: str) -> Iterator[Path]:
    """A home folder on a separate small disk."""
    if os.geteuid() != 0:
        pytest.skip("mounts a disk: as root")
    with small_disk(tmp_path / "disk", 48) as folder:
        yield folder / "home"
        if (folder / "home" / "polylocal.db").exists():
            store = Store(folder / "home" / "polylocal.db")
            installation = store.installation()
            store.close()
            sweep(engine_address, installation)


@pytest.mark.parametrize("command", ["serve", "start"])
def test_a_first_start_on_a_full_disk_reports_it(disk: Path, command: str) -> None:
    ballast = fill(disk.parent)
    said = complains(disk, command, "--port", "0")
    assert re.search("full|no space left", said, re.IGNORECASE), said
    assert str(disk) in said
    ballast.unlink()
    again = start_daemon(disk, env={"POLYLOCAL_MIN_FREE_MIB": "4"})
    try:
        assert whose(again, again.token) == "root"
    finally:
        again.kill()


def test_a_start_on_a_disk_that_is_full_by_now(disk: Path) -> None:
    """The daemon serves what can be read. When there is room again, it continues automatically."""
    roomy = {"POLYLOCAL_MIN_FREE_MIB": "4"}
    before = start_daemon(disk, env=roomy)
    run = submit(before, job("echo said"))
    assert finished(before, run)["last_status"] == "succeeded"
    before.process.send_signal(signal.SIGTERM)
    before.process.wait()
    ballast = fill(disk.parent)
    daemon = start_daemon(disk, env=roomy)
    try:
        assert log(daemon, run) == b"said\n"
        assert look(daemon, lambda client: client.run(run))["last_status"] == "succeeded"
        url = f"{daemon.url}/api/v1/root/crash/jobs/"
        headers = {"Authorization": f"Token {daemon.token}"}
        refused = httpx2.post(url, headers=headers, json={"config": job()})
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        ballast.unlink()

        def taken() -> RunReference | None:
            with suppress(Exception):
                return submit(daemon, job("echo again"))
            return None

        again = eventually(taken)
        assert again
        assert finished(daemon, again)["last_status"] == "succeeded"
        assert log(daemon, again) == b"again\n"
    finally:
        daemon.kill()
