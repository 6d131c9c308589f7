"""Shared by all commands: common options, the connection to the daemon, and the lookup of projects and runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polylocal.client import http
from polylocal.client.http import Client, RunReference
from polylocal.daemon import home_lock
from polylocal.errors import InvalidInput, NotFound, SetupError
from polylocal.paths import DEFAULT_HOME, Home

if TYPE_CHECKING:
    from polylocal.store import Store

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The folder that holds all data of polylocal.", envvar="POLYLOCAL_HOME")
]
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project", "-p", help="`name` or `user/name`; default: the folder's name.", envvar="POLYLOCAL_PROJECT"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for use by programs.")]
RunArgument = Annotated[str, typer.Argument(help="`3` or `job/3` for a job, `experiment/4`, `build/2`.", metavar="RUN")]

_RUN = re.compile(r"(?:(?P<kind>[a-z]+?)s?[/ .])?(?P<id>\d+)")
_UNIQUE = re.compile(r"(?P<owner>[-\w]+)[./](?P<project>[-\w]+)[./](?P<kind>[a-z]+)s[./](?P<id>\d+)/?")


def home_folder(home: Path | None) -> Home:
    return Home((home or Path(os.environ.get("POLYLOCAL_HOME") or DEFAULT_HOME)).expanduser().absolute())


@contextmanager
def connection(home: Path | None) -> Iterator[Client]:
    """A client of the daemon at POLYLOCAL_URL, or else of the daemon that uses the home folder."""
    folder = home_folder(home)
    here = home_lock.running(folder)
    url = os.environ.get("POLYLOCAL_URL") or (here.url if here and here.url else None)
    with closing(http.connect(folder.root, url, os.environ.get("POLYLOCAL_TOKEN"))) as found:
        yield found


@contextmanager
def open_store(folder: Home) -> Iterator[Store]:
    """Open the database directly, and close it at the end of the block.

    Raises SetupError if there is no database yet, or if a daemon of an older version uses it: opening the database
    migrates its tables, and the older daemon would then lose data.
    """
    from polylocal.store import Store
    from polylocal.store.database import is_older

    if not folder.database.exists():
        raise SetupError(f"there is no database in {folder.root} yet; the first `polylocal start` creates one")
    if is_older(folder.database) and home_lock.running(folder):
        raise SetupError(
            f"the daemon that uses {folder.root} is an older version, or is just starting: restart it first"
            " (`polylocal stop`, then `polylocal start`; running containers continue)"
        )
    with closing(Store(folder.database)) as store:
        yield store


def project_of(api: Client, named: str | None, folder: Path) -> tuple[str, str]:
    """(owner, name) of the project `named`, or else of the project with the folder's name. Raises SetupError."""
    if named is None:
        slug = re.sub(r"[^-\w]+", "-", folder.absolute().name, flags=re.ASCII).strip("-")
        if not slug:
            raise SetupError("the name of this folder can't be a project name; name the project with --project")
        named = slug
    owner, slash, name = named.replace(".", "/").rpartition("/")
    return (owner, name) if slash else (str(api.whoami()["username"]), name)


def run_of(api: Client, text: str) -> RunReference:
    """Look up a run given as `3`, `job/3`, `jobs.3` or `root.quick-start.jobs.3`. Raises InvalidInput, NotFound."""
    if whole := _UNIQUE.fullmatch(text):
        return RunReference(whole["owner"], whole["project"], whole["kind"], int(whole["id"]))
    short = _RUN.fullmatch(text)
    if not short:
        raise InvalidInput([f"`{text}` does not name a run; write `3` or `job/3` for a job, `build/2` for a build"])
    kind = short["kind"] or "job"
    if kind == "package":
        raise InvalidInput([f"a package build has its own commands: `polylocal package show {short['id']}`"])
    try:
        found = api.find_run(kind, int(short["id"]))
    except NotFound as error:
        raise NotFound(f"there is no {kind}/{short['id']}; `polylocal ls` lists the runs") from error
    return reference(found)


def reference(found: http.Json) -> RunReference:
    """The reference of a run that the API returned."""
    owner, _, project = found["project"].partition(".")
    word = found["unique_name"].split(".")[2]
    # the unique names of experiments and groups do not contain the kind
    kind = word.removesuffix("s") if not word.isdigit() else "group" if "group_type" in found else "experiment"
    return RunReference(owner, project, found.get("kind") or kind, found["id"])
