"""Commands that install the daemon as a service of systemd or launchd."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, home_folder
from polylocal.daemon import home_lock
from polylocal.errors import SetupError

if TYPE_CHECKING:
    from polylocal.daemon import autostart

app = typer.Typer(help="Let systemd or launchd start the daemon.", no_args_is_help=True)


@app.command("install")
def install(
    home: HomeOption = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the service file and change nothing.")] = False,
) -> None:
    """Start the daemon now, at each log-in, and again when it fails."""
    from polylocal.daemon import autostart

    found = autostart.manager(os.environ)
    folder = home_folder(home)
    wanted = autostart.Service(folder, environment=autostart.kept_variables(os.environ))
    if only_print:
        console.page(found.render(wanted))
        return
    here = home_lock.running(folder)
    if here and found.would_start_another():
        raise SetupError(
            f"a daemon is already running for {folder.root} (process {here.pid}); run `polylocal stop` first"
        )
    _print(found.install(wanted))


@app.command("remove")
def remove() -> None:
    """Stop the daemon and remove the service. The home folder and running containers stay."""
    from polylocal.daemon import autostart

    _print(autostart.manager(os.environ).remove())


@app.command("status")
def status() -> None:
    """Show whether the service is installed and running."""
    from polylocal.daemon import autostart

    console.line(autostart.manager(os.environ).status())


def _print(done: autostart.Outcome) -> None:
    for line in done.lines:
        console.line(line)
    if done.next_commands:
        console.line("Now run:")
        for line in done.next_commands:
            console.line(f"  {line}")
