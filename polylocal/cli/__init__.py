"""The command line. Commands print; they decide nothing."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from polylocal import __version__
from polylocal.cli import backup, console, daemon, groups, packages, projects, runs, secrets, service, space
from polylocal.cli.streams import OutputError
from polylocal.errors import InvalidInput, PolylocalError
from polylocal.files.disk import is_trouble

app = typer.Typer(
    name="polylocal",
    help="The Polyaxon v0 API on one machine, with nothing but Docker.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_DAEMON, _RUNS, _PACKAGES, _PROJECTS = "The daemon", "Runs", "Packages", "Projects and people"


def _version(wanted: bool) -> None:
    if wanted:
        console.line(f"polylocal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """The Polyaxon v0 API on one machine, with nothing but Docker."""


app.command("serve", rich_help_panel=_DAEMON)(daemon.serve)
app.command("start", rich_help_panel=_DAEMON)(daemon.start)
app.command("stop", rich_help_panel=_DAEMON)(daemon.stop)
app.command("status", rich_help_panel=_DAEMON)(daemon.status)
app.command("doctor", rich_help_panel=_DAEMON)(daemon.run_doctor)
app.command("gc", rich_help_panel=_DAEMON)(space.gc)
app.add_typer(service.app, name="service", rich_help_panel=_DAEMON)
app.command("backup", rich_help_panel=_DAEMON)(backup.backup)
app.command("restore", rich_help_panel=_DAEMON)(backup.restore)
app.command("run", rich_help_panel=_RUNS)(runs.run)
app.command("ls", rich_help_panel=_RUNS)(runs.ls)
app.command("show", rich_help_panel=_RUNS)(runs.show_run)
app.command("logs", rich_help_panel=_RUNS)(runs.logs)
app.command("statuses", rich_help_panel=_RUNS)(runs.statuses)
app.command("restart", rich_help_panel=_RUNS)(runs.restart)
app.command("resume", rich_help_panel=_RUNS)(runs.resume)
app.command("copy", rich_help_panel=_RUNS)(runs.copy)
app.command("rm", rich_help_panel=_RUNS)(runs.remove)
app.command("outputs", rich_help_panel=_RUNS)(runs.outputs)
app.add_typer(groups.app, name="group", rich_help_panel=_RUNS)
app.add_typer(packages.app, name="package", rich_help_panel=_PACKAGES)
app.add_typer(projects.app, name="project", rich_help_panel=_PROJECTS)
app.command("upload", rich_help_panel=_PROJECTS)(projects.upload)
app.command("token", rich_help_panel=_PROJECTS)(daemon.token)
app.add_typer(daemon.users, name="user", rich_help_panel=_PROJECTS)
app.add_typer(secrets.app, name="secret", rich_help_panel=_PROJECTS)


def main() -> None:
    """The program `polylocal`: an error is one line that says what to do."""
    try:
        with console.guarded():
            _main()
    except BrokenPipeError:
        sys.exit(141)  # the reader of our output has left
    except OutputError as error:
        with console.guarded():
            _complain(str(error))


def _main() -> None:
    try:
        code = app(standalone_mode=False)  # what it raises is shown below, as everything is
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Abort:
        console.say("Aborted.", "red")
        sys.exit(1)
    except InvalidInput as error:
        messages = error.messages
        lines = (
            [f"{k}: {text}" for k, texts in messages.items() for text in texts]
            if isinstance(messages, dict)
            else messages
        )
        _complain(*lines)
    except PolylocalError as error:
        _complain(str(error))
    except (BrokenPipeError, OutputError):
        raise
    except OSError as error:
        if not is_trouble(error):
            console.bug()
            sys.exit(1)
        where = error.filename or "the home folder"
        _complain(f"{where} can't be written: {error.strerror}; make room there, or take another folder with --home")
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own; from which module they are imported depends on its version
            console.wrong_usage(error)
            sys.exit(getattr(error, "exit_code", 2))
        console.bug()
        sys.exit(1)


def _complain(*lines: str) -> None:
    for line in lines:
        console.complain(f"polylocal: {line}")
    sys.exit(1)
