"""Secret values that runs and builds name in `environment.secret_refs`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, home_folder, open_store
from polylocal.errors import InvalidInput, NotFound
from polylocal.files.masking import LEAST_HIDDEN
from polylocal.files.secrets import SecretStore
from polylocal.paths import Home

app = typer.Typer(help="Keep values that runs and builds get by name only.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="As runs name it in environment.secret_refs.")]
UserOption = Annotated[str, typer.Option(help="Whose runs get it.")]


@app.command("set")
def set_values(
    name: NameArgument,
    variables: Annotated[list[str], typer.Argument(help="What the values are called in the environment.")],
    user: UserOption = "root",
    home: HomeOption = None,
) -> None:
    """Keep one value for each variable: asked for, or read from standard input, one a line."""
    if wrong := [variable for variable in variables if "=" in variable]:
        said = wrong[0].partition("=")[0]
        raise InvalidInput([f"name `{said}` alone: what stands in a command is kept in the shell's history"])
    values = dict(zip(variables, _values(variables), strict=True))
    folder = home_folder(home)
    SecretStore(folder.secrets).write(user, name, values, identity=_identity(folder, user))
    console.line(f"Secret {name} of {user} holds {', '.join(values)}")
    if short := [variable for variable, value in values.items() if len(value) < LEAST_HIDDEN]:
        console.say(f"{', '.join(short)}: shorter than {LEAST_HIDDEN} characters, and not hidden in logs", "yellow")


@app.command("ls")
def list_secrets(user: UserOption = "root", home: HomeOption = None, json: JsonOption = False) -> None:
    """List secrets and their variables; no values."""
    secret_store = SecretStore(home_folder(home).secrets)
    found = {name: sorted(secret_store.read(user, name)) for name in secret_store.names(user)}
    if json:
        console.as_json([{"name": name, "variables": variables} for name, variables in found.items()])
        return
    rows = [[name, ", ".join(variables)] for name, variables in found.items()]
    console.table(["SECRET", "VARIABLES"], rows, empty=f"{user} has no secrets.")


@app.command("rm")
def remove(name: NameArgument, user: UserOption = "root", home: HomeOption = None) -> None:
    """Forget a secret. Runs that have begun keep what they got."""
    SecretStore(home_folder(home).secrets).remove(user, name)
    console.line(f"Secret {name} of {user} is gone")


def _identity(folder: Home, user: str) -> str | None:
    """Of the user; None before there is one: then the secrets become those of whoever gets that name first."""
    if not folder.database.exists():
        return None
    store = open_store(folder)
    try:
        return store.users.get(user).identity
    except NotFound:
        return None
    finally:
        store.close()


def _values(variables: list[str]) -> list[str]:
    if sys.stdin.isatty():
        return [console.ask_hidden(variable) for variable in variables]
    text = sys.stdin.read()
    if len(variables) == 1:
        return [text.removesuffix("\n")]  # it may have several lines
    lines = text.splitlines()
    if len(lines) != len(variables):
        raise InvalidInput([f"{len(variables)} variables, and {len(lines)} lines on standard input: one for each"])
    return lines
