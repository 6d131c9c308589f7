"""Commands that control the daemon, check the machine and manage users.

The daemon's modules are imported inside the commands that use them, so that the other commands start faster.
"""

import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, connection, home_folder, open_store
from polylocal.cli.runs import stop_run
from polylocal.cli.serve import EngineOption, HostOption, PortOption, RunsOption
from polylocal.daemon import home_lock
from polylocal.errors import SetupError
from polylocal.files.disk import Disk
from polylocal.paths import Home

users = typer.Typer(help="Manage the users of the daemon.", no_args_is_help=True)

_READY_S = 30.0
_COLOUR = {"ok": "green", "note": "yellow", "problem": "red"}


def start(
    home: HomeOption = None,
    host: HostOption = None,
    port: PortOption = None,
    max_runs: RunsOption = None,
    engine: EngineOption = None,
) -> None:
    """Start the daemon in the background."""
    from polylocal import settings

    read = settings.load(home=home, host=host, port=port, max_runs=max_runs, engine=engine)
    folder = read.folders
    if found := home_lock.running(folder):
        console.line(f"polylocal is already running on {found.url} (process {found.pid})")
        return
    given = {"--host": host, "--port": port, "--max-runs": max_runs, "--engine": engine}
    flags = [part for flag, value in given.items() if value is not None for part in (flag, str(value))]
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _create_private(folder.daemon_output) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "polylocal", "serve", "--background", "--home", str(folder.root), *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    here = _wait_until_ready(folder, process)
    console.line(f"polylocal listens on {here.url} (process {here.pid}, log {folder.daemon_log})")
    console.line("Stop it with: polylocal stop")


def stop(
    run: Annotated[
        str | None, typer.Argument(help="The run to stop; without it, the daemon stops.", metavar="[RUN]")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Stop a run. Without RUN, stop the daemon; its runs continue."""
    if run is not None:
        with connection(home) as api:
            stop_run(api, run)
        return
    found = home_lock.stop(home_folder(home))
    if found:
        console.line("The daemon has stopped. Its runs continue, and the next start resumes tracking them")
    else:
        console.line(f"No daemon is running for {home_folder(home).root}")


def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Show whether the daemon is running. The exit code is 3 if it is not."""
    folder = home_folder(home)
    found = home_lock.running(folder)
    if json:
        console.as_json({"running": bool(found), "pid": found and found.pid, "url": found and found.url})
    elif found:
        console.line(f"polylocal is running on {found.url} (process {found.pid}, home {folder.root})")
    else:
        console.line(f"No daemon is running for {folder.root}; start one with `polylocal start`")
    if not found:
        raise typer.Exit(3)


def token(home: HomeOption = None) -> None:
    """Print the admin's token."""
    path = home_folder(home).token
    if not path.exists():
        raise SetupError(f"there is no token in {path.parent} yet; the first `polylocal start` creates one")
    console.page(path.read_text())


def run_doctor(home: HomeOption = None, port: PortOption = None, json: JsonOption = False) -> None:
    """Check this machine and say how to fix each problem. The exit code is 1 if there is one."""
    from polylocal import settings
    from polylocal.daemon import doctor

    read = settings.load(home=home, port=port)
    findings = doctor.examine(read)
    if json:
        console.as_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = {"ok": "ok  ", "note": "note", "problem": "BAD "}[finding.state]
            words = console.text(f"  {finding.subject}: {finding.message}", "default")
            console.line(console.join(console.text(mark, _COLOUR[finding.state]), words))
            if finding.fix:
                console.line(f"      {finding.fix}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


@users.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="The name: letters, digits, hyphens and underscores.")],
    admin: Annotated[bool, typer.Option("--admin", help="Give the user all rights.")] = False,
    password_stdin: Annotated[bool, typer.Option(help="Read a password from standard input.")] = False,
    email: Annotated[str | None, typer.Option(help="The user's e-mail address, which also works to log in.")] = None,
    home: HomeOption = None,
) -> None:
    """Add a user and print their token."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else None
    with open_store(home_folder(home)) as store:
        made = store.users.add(name, is_superuser=admin, password=password, email=email)
        console.line(store.users.new_token(made))


@users.command("ls")
def list_users(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the users."""
    with open_store(home_folder(home)) as store:
        found = store.users.all()
    if json:
        return console.as_json([{"username": user.username, "is_superuser": user.is_superuser} for user in found])
    rows = [
        [user.username, "admin" if user.is_superuser else "", console.local_time(user.created_at)] for user in found
    ]
    console.table(["USER", "", "SINCE"], rows, empty="No users yet.")


@users.command("token")
def new_token(name: Annotated[str, typer.Argument(help="The name of the user.")], home: HomeOption = None) -> None:
    """Create another token for a user and print it. Earlier tokens stay valid."""
    with open_store(home_folder(home)) as store:
        console.line(store.users.new_token(store.users.get(name)))


@users.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="The name of the user.")], home: HomeOption = None) -> None:
    """Revoke all tokens and browser sessions of a user. Their runs continue. `user token` creates a new token."""
    from polylocal.daemon import accounts

    with open_store(home_folder(home)) as store:
        count, is_in_file = accounts.revoke(store.users, store.users.get(name), home_folder(home))
    console.line(f"{count} tokens of {name} are revoked")
    if is_in_file:
        console.line(f"A new token is in {home_folder(home).token}")


def _create_private(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _wait_until_ready(folder: Home, process: subprocess.Popen[bytes]) -> home_lock.Running:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        found = home_lock.running(folder)
        if found and found.pid == process.pid and found.url:
            return found
        if process.poll() is not None:
            lines = folder.daemon_output.read_text(errors="replace").strip().splitlines()
            why = Disk(folder.root, 1).problem() or "the daemon ended at once"
            raise SetupError(lines[-1].removeprefix("polylocal: ") if lines else why)
        time.sleep(0.02)
    raise SetupError(
        f"the daemon was not ready within {_READY_S:g} s; see {folder.daemon_log} and {folder.daemon_output}"
    )
