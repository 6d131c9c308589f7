"""The table of commands. A command's module is imported when the command is called or its help is shown."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from polylocal import __version__

_DAEMON, _RUNS, _PACKAGES, _PROJECTS = "The daemon", "Runs", "Packages", "Projects and people"

# name → module, function or group of commands, panel of the help
_COMMANDS = {
    "serve": ("serve", "serve", _DAEMON),
    "start": ("daemon", "start", _DAEMON),
    "stop": ("daemon", "stop", _DAEMON),
    "status": ("daemon", "status", _DAEMON),
    "doctor": ("daemon", "run_doctor", _DAEMON),
    "gc": ("space", "gc", _DAEMON),
    "backup": ("backup", "backup", _DAEMON),
    "restore": ("backup", "restore", _DAEMON),
    "run": ("runs", "run", _RUNS),
    "ls": ("runs", "ls", _RUNS),
    "show": ("runs", "show_run", _RUNS),
    "logs": ("runs", "logs", _RUNS),
    "statuses": ("runs", "statuses", _RUNS),
    "restart": ("runs", "restart", _RUNS),
    "resume": ("runs", "resume", _RUNS),
    "copy": ("runs", "copy", _RUNS),
    "rm": ("runs", "remove", _RUNS),
    "outputs": ("runs", "outputs", _RUNS),
    "upload": ("projects", "upload", _PROJECTS),
    "token": ("daemon", "token", _PROJECTS),
    "service": ("service", "app", _DAEMON),
    "group": ("groups", "app", _RUNS),
    "package": ("packages", "app", _PACKAGES),
    "project": ("projects", "app", _PROJECTS),
    "user": ("daemon", "users", _PROJECTS),
    "secret": ("secrets", "app", _PROJECTS),
}


class _Commands(TyperGroup):
    """Builds each command on first use: building all of them takes longer than most commands run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        wanted = [cmd_name] if cmd_name in _COMMANDS else _COMMANDS  # typer suggests similar names for an unknown one
        for name in wanted:
            if name not in self.commands:
                self.commands[name] = _build(name)
        return self.commands.get(cmd_name)


def _build(name: str) -> Any:
    """Returns a command of click, or of the copy of click in newer versions of typer."""
    module, attribute, panel = _COMMANDS[name]
    found: Any = getattr(importlib.import_module(f"polylocal.cli.{module}"), attribute)
    alone = typer.Typer(rich_markup_mode="rich")
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name, rich_help_panel=panel)
    else:
        alone.command(name, rich_help_panel=panel)(found)
    return typer.main.get_group(alone).commands[name]


app = typer.Typer(
    name="polylocal",
    cls=_Commands,
    help="The Polyaxon v0 API on one machine, with nothing but Docker.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        from polylocal.cli import console

        console.line(f"polylocal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """The Polyaxon v0 API on one machine, with nothing but Docker."""
