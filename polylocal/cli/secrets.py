"""Commands for secrets, which runs and builds use by name in `environment.secret_refs`."""

import sys
from contextlib import suppress
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, home_folder, open_store
from polylocal.errors import InvalidInput, NotFound
from polylocal.files.masking import MIN_HIDDEN
from polylocal.files.secrets import SecretStore
from polylocal.paths import Home

app = typer.Typer(help="Store secret values that runs and builds use by name.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The name that polyaxonfiles use in environment.secret_refs.")]
UserOption = Annotated[str, typer.Option(help="The user whose runs may use the secret.")]


@app.command("set")
def set_values(
    name: NameArgument,
    variables: Annotated[list[str], typer.Argument(help="The environment variables to set.")],
    user: UserOption = "root",
    home: HomeOption = None,
) -> None:
    """Store one value for each variable.

    The command asks for the values, or reads them from standard input, one a line.
    """
    if wrong := [variable for variable in variables if "=" in variable]:
        given = wrong[0].partition("=")[0]
        raise InvalidInput([f"name `{given}` alone, without a value: the shell keeps commands in its history"])
    values = dict(zip(variables, _values(variables), strict=True))
    folder = home_folder(home)
    SecretStore(folder.secrets).write(user, name, values, identity=_identity(folder, user))
    console.line(f"Secret {name} of {user} contains {', '.join(values)}")
    if short := [variable for variable, value in values.items() if len(value) < MIN_HIDDEN]:
        console.say(f"{', '.join(short)}: not hidden in logs, shorter than {MIN_HIDDEN} characters", "yellow")


@app.command("ls")
def list_secrets(user: UserOption = "root", home: HomeOption = None, json: JsonOption = False) -> None:
    """List secrets and their variables, without the values."""
    secret_store = SecretStore(home_folder(home).secrets)
    found = {name: sorted(secret_store.read(user, name)) for name in secret_store.names(user)}
    if json:
        return console.as_json([{"name": name, "variables": variables} for name, variables in found.items()])
    rows = [[name, ", ".join(variables)] for name, variables in found.items()]
    console.table(["SECRET", "VARIABLES"], rows, empty=f"{user} has no secrets.")


@app.command("rm")
def remove(name: NameArgument, user: UserOption = "root", home: HomeOption = None) -> None:
    """Delete a secret. Runs that have started keep its values."""
    SecretStore(home_folder(home).secrets).remove(user, name)
    console.line(f"Secret {name} of {user} deleted")


def _identity(folder: Home, user: str) -> str | None:
    """The identity of a user; None if the user does not exist: the first user of that name will own the secrets."""
    if not folder.database.exists():
        return None
    with open_store(folder) as store, suppress(NotFound):
        return store.users.get(user).identity
    return None


def _values(variables: list[str]) -> list[str]:
    if sys.stdin.isatty():
        return [console.ask_hidden(variable) for variable in variables]
    text = sys.stdin.read()
    if len(variables) == 1:
        return [text.removesuffix("\n")]  # it may have several lines
    lines = text.splitlines()
    if len(lines) != len(variables):
        raise InvalidInput([f"standard input has {len(lines)} lines for {len(variables)} variables; write one a line"])
    return lines
