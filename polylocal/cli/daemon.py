"""Commands about the daemon, its users and the machine.

The daemon's own modules are imported where they are used: the other commands need not wait for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, connected, home_folder, open_store
from polylocal.cli.runs import stop_run
from polylocal.cli.serve import EngineOption, HostOption, PortOption, RunsOption
from polylocal.daemon import home_lock
from polylocal.errors import SetupError
from polylocal.files.disk import Disk
from polylocal.paths import Home

users = typer.Typer(help="Add and list the people who may use this daemon.", no_args_is_help=True)

_READY_S = 30.0


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
        console.line(f"polylocal runs already, on {found.url} (process {found.pid})")
        return
    given = {"--host": host, "--port": port, "--max-runs": max_runs, "--engine": engine}
    flags = [part for flag, value in given.items() if value is not None for part in (flag, str(value))]
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _made_anew(folder.daemon_output) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "polylocal", "serve", "--background", "--home", str(folder.root), *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    here = _wait_until_ready(folder, process)
    console.line(f"polylocal listens on {here.url} (process {here.pid}, log {folder.daemon_log})")
    console.line("End it with: polylocal stop")


def stop(
    run: Annotated[
        str | None, typer.Argument(help="A run to stop; without one the daemon is ended.", metavar="[RUN]")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Stop a run; or, with no run named, end the daemon: its runs go on."""
    if run is not None:
        with connected(home) as api:
            stop_run(api, run)
        return
    found = home_lock.stop(home_folder(home))
    if found:
        console.line("The daemon has ended; its runs go on, and the next start takes them up")
    else:
        console.line(f"No daemon works on {home_folder(home).root}")


def status(home: HomeOption = None, json: JsonOption = False) -> None:
    """Say whether the daemon runs. Exit code 3 if it does not."""
    folder = home_folder(home)
    found = home_lock.running(folder)
    if json:
        console.as_json({"running": bool(found), "pid": found and found.pid, "url": found and found.url})
    elif found:
        console.line(f"polylocal runs on {found.url} (process {found.pid}, home {folder.root})")
    else:
        console.line(f"No daemon works on {folder.root}; start one with `polylocal start`")
    if not found:
        raise typer.Exit(3)


def token(home: HomeOption = None) -> None:
    """Print the admin's token."""
    path = home_folder(home).token
    if not path.exists():
        raise SetupError(f"there is no token in {path.parent} yet; the first `polylocal start` makes one")
    console.page(path.read_text())


def run_doctor(home: HomeOption = None, port: PortOption = None, json: JsonOption = False) -> None:
    """Say what is wrong with this machine, and how to mend it. Exit code 1 if something is."""
    from polylocal import settings
    from polylocal.daemon import doctor

    read = settings.load(home=home, port=port)
    findings = doctor.examine(read)
    if json:
        console.as_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            mark = {"ok": "ok  ", "note": "note", "problem": "BAD "}[finding.state]
            words = console.text(f"  {finding.subject}: {finding.message}", "default")
            console.line(console.joined(console.text(mark, _COLOUR[finding.state]), words))
            if finding.fix:
                console.line(f"      {finding.fix}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


@users.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="Letters, digits, hyphens and underscores.")],
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    password_stdin: Annotated[bool, typer.Option(help="Read a password from standard input.")] = False,
    email: Annotated[str | None, typer.Option(help="Their address; it lets them in as the name does.")] = None,
    home: HomeOption = None,
) -> None:
    """Add a user and print the token that is theirs."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else None
    store = open_store(home_folder(home))
    try:
        made = store.users.add(name, is_superuser=admin, password=password, email=email)
        console.line(store.users.new_token(made))
    finally:
        store.close()


@users.command("ls")
def list_users(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the users."""
    store = open_store(home_folder(home))
    try:
        found = store.users.all()
    finally:
        store.close()
    if json:
        console.as_json([{"username": user.username, "is_superuser": user.is_superuser} for user in found])
        return
    rows = [
        [user.username, "admin" if user.is_superuser else "", console.local_time(user.created_at)] for user in found
    ]
    console.table(["USER", "", "SINCE"], rows, empty="No users yet.")


@users.command("token")
def new_token(name: Annotated[str, typer.Argument(help="Whose.")], home: HomeOption = None) -> None:
    """Print a further token of a user; those before it stay good."""
    store = open_store(home_folder(home))
    try:
        console.line(store.users.new_token(store.users.get(name)))
    finally:
        store.close()


@users.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Whose.")], home: HomeOption = None) -> None:
    """Make every token and browser session of a user worthless; their runs go on. Give them a new one with `token`."""
    from polylocal.daemon import accounts

    store = open_store(home_folder(home))
    try:
        user = store.users.get(name)
        count, is_in_file = accounts.revoke(store.users, user, home_folder(home))
    finally:
        store.close()
    console.line(f"{count} tokens of {name} are good no more")
    if is_in_file:
        console.line(f"A new one is in {home_folder(home).token}")


_COLOUR = {"ok": "green", "note": "yellow", "problem": "red"}


def _made_anew(path: Path) -> BinaryIO:
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
