"""The daemon as a service: started when you log in, and again when it fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from polylocal import occupancy
from polylocal.cli import show
from polylocal.cli.context import HomeOption, home_folder
from polylocal.errors import SetupError

if TYPE_CHECKING:
    from polylocal import service

app = typer.Typer(help="Have the daemon started by systemd or launchd.", no_args_is_help=True)


@app.command("install")
def install(
    home: HomeOption = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Write the file's text to standard output and change nothing.")
    ] = False,
) -> None:
    """Start the daemon now, whenever you log in, and again when it fails."""
    from polylocal import service

    found = service.manager(os.environ)
    folder = home_folder(home)
    wanted = service.Service(folder, environment=service.kept(os.environ))
    if only_print:
        show.page(found.render(wanted))
        return
    here = occupancy.running(folder)
    if here and found.would_start_another():
        raise SetupError(
            f"a daemon works on {folder.root} already (process {here.pid}); end it with `polylocal stop`, then install"
        )
    _tell(found.install(wanted))


@app.command("remove")
def remove() -> None:
    """End the daemon and start it no more. Its home folder and running containers stay."""
    from polylocal import service

    _tell(service.manager(os.environ).remove())


@app.command("status")
def status() -> None:
    """Say whether the service is installed, and whether it runs."""
    from polylocal import service

    show.line(service.manager(os.environ).status())


def _tell(done: service.Done) -> None:
    for line in done.lines:
        show.line(line)
    if done.to_type:
        show.line("Now type:")
        for line in done.to_type:
            show.line(f"  {line}")
