"""Commands about packages: what they are built for, building them, publishing them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, ProjectOption, connected, project_of
from polylocal.cli.uploading import upload_folder
from polylocal.client.http import Client, Json
from polylocal.client.packages import PackagesClient
from polylocal.errors import InvalidInput, NotFound
from polylocal.packages import kinds, refusals
from polylocal.packages.install_lines import install_lines
from polylocal.packages.statuses import CONTAINER_WORDS, UPDATE_TYPES, WORDS, BuildStatus, ContainerStatus

app = typer.Typer(help="Build packages and publish them into repositories of your own.", no_args_is_help=True)
platforms = typer.Typer(help="What packages are built for.", no_args_is_help=True)
repositories = typer.Typer(help="Where packages are published.", no_args_is_help=True)
app.add_typer(platforms, name="platform")
app.add_typer(repositories, name="repository")

_LOOK_S = 0.3
_BUSY = (BuildStatus.WAITING, BuildStatus.PENDING, BuildStatus.STARTED, BuildStatus.CANCELING)
_COLOURS = {BuildStatus.COMPLETE: "green", BuildStatus.PUBLISHED: "green", BuildStatus.STARTED: "cyan"}

NumberArgument = Annotated[int, typer.Argument(help="The number of the build list.", metavar="NUMBER")]
RepositoryArgument = Annotated[str, typer.Argument(help="`platform/repository`.", metavar="REPOSITORY")]
ProjectArgument = Annotated[str, typer.Argument(help="`name` or `user/name`.", metavar="PROJECT")]


@contextmanager
def _client(home: Path | None) -> Iterator[tuple[Client, PackagesClient]]:
    with connected(home) as client:
        yield client, PackagesClient(client)


# -- platforms -------------------------------------------------------------------------------------------------------


@platforms.command("create")
def create_platform(
    name: Annotated[str, typer.Argument(help="Letters, digits, dots, hyphens and underscores.")],
    kind: Annotated[str, typer.Option("--type", help=f"{', '.join(kinds.KINDS[:-1])} or {kinds.KINDS[-1]}.")],
    image: Annotated[
        str | None, typer.Option(help="The image that packages are built in; default: one of the type.")
    ] = None,
    command: Annotated[str | None, typer.Option(help="Builds a package; default: the tools of the type.")] = None,
    network: Annotated[bool, typer.Option(help="Let builds reach the network.")] = False,
    description: Annotated[str | None, typer.Option(help="What it is.")] = None,
    home: HomeOption = None,
) -> None:
    """Make a platform, with a repository `main`."""
    if kind not in kinds.KINDS:
        raise InvalidInput([f"--type: must be one of {', '.join(kinds.KINDS)}, not `{kind}`"])
    values: Json = {"name": name, "distrib_type": kind, "build_image": image, "build_command": command}
    values |= {"build_network": network, "description": description}
    with _client(home) as (_, api):
        made = api.create_platform({key: value for key, value in values.items() if value is not None})
        api.create_repository({"platform_id": made["id"], "name": "main"})
    console.line(f"Platform {name} made, with the repository {name}/main")
    if advice := made["message"].removeprefix("Platform has been created successfully").lstrip(". "):
        console.say(advice, "yellow")


@platforms.command("ls")
def list_platforms(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the platforms that one may build for."""
    with _client(home) as (_, api):
        found = api.platforms()
    if json:
        console.as_json(found)
        return
    rows: list[list[console.Cell]] = [
        [item["name"], item["owner"]["uname"], ", ".join(found["name"] for found in item["repositories"])]
        for item in found
    ]
    console.table(["PLATFORM", "OWNER", "REPOSITORIES"], rows, empty="No platforms yet.")


@platforms.command("key")
def platform_key(
    name: Annotated[str, typer.Argument(help="The name of the platform.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Print the public key that signs the repositories of a platform."""
    with _client(home) as (_, api):
        found = api.platform_key(name)
    if json:
        console.as_json(found)
        return
    for line in found["key"].splitlines():
        console.line(line)


# -- repositories ----------------------------------------------------------------------------------------------------


@repositories.command("create")
def create_repository(
    name: RepositoryArgument,
    qa: Annotated[bool, typer.Option("--qa", help="Nothing is published before somebody has said so.")] = False,
    home: HomeOption = None,
) -> None:
    """Make a repository."""
    platform, slash, own = name.partition("/")
    if not slash or not own:
        raise InvalidInput([f"`{name}` names no repository; say `platform/repository`"])
    with _client(home) as (_, api):
        found = api.platform(platform)
        api.create_repository({"platform_id": found["id"], "name": own, "publish_without_qa": not qa})
    console.line(f"Repository {platform}/{own} made")


@repositories.command("add")
def add_project(name: RepositoryArgument, project: ProjectArgument, home: HomeOption = None) -> None:
    """Let a project publish there."""
    with _client(home) as (client, api):
        owner, named = project_of(client, project, Path.cwd())
        api.add_project(api.repository(name)["id"], api.project(owner, named)["id"])
    console.line(f"{owner}/{named} may publish into {name}")


@repositories.command("remove")
def remove_project(name: RepositoryArgument, project: ProjectArgument, home: HomeOption = None) -> None:
    """No more; what it has published goes from there."""
    with _client(home) as (client, api):
        owner, named = project_of(client, project, Path.cwd())
        api.remove_project(api.repository(name)["id"], api.project(owner, named)["id"])
    console.line(f"{owner}/{named} is not in {name} any more")


@repositories.command()
def lock(name: RepositoryArgument, home: HomeOption = None) -> None:
    """Hold whatever is to be published there."""
    with _client(home) as (_, api):
        api.lock(api.repository(name)["id"])
    console.line(f"{name} is locked: what is published waits")


@repositories.command()
def unlock(name: RepositoryArgument, home: HomeOption = None) -> None:
    """Go on."""
    with _client(home) as (_, api):
        api.unlock(api.repository(name)["id"])
    console.line(f"{name} is unlocked")


# -- build lists -----------------------------------------------------------------------------------------------------


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="The folder with the code.")] = Path("."),
    into: Annotated[
        str | None, typer.Option("--to", help="`platform/repository`; default: your personal repository.")
    ] = None,
    platform: Annotated[
        str | None, typer.Option("--for", help="The platform to build for; default: that of --to.")
    ] = None,
    project: ProjectOption = None,
    ref: Annotated[
        str | None, typer.Option(help="Build this branch, tag or commit of the project; nothing is uploaded then.")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="Default: this machine's.")] = None,
    update_type: Annotated[str, typer.Option(help=f"{', '.join(UPDATE_TYPES[:-1])} or {UPDATE_TYPES[-1]}.")] = "bugfix",
    publish_it: Annotated[bool, typer.Option("--publish/--no-publish", help="Publish it if it can be built.")] = True,
    container: Annotated[bool, typer.Option(help="Without --publish: make a container of it.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for its end.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Build a package: upload a folder, build it, publish it. The exit code says whether all of that went well."""
    with _client(home) as (client, api):
        owner, named = project_of(client, project, folder)
        if update_type not in UPDATE_TYPES:
            raise InvalidInput([f"--update-type: must be one of {', '.join(UPDATE_TYPES)}, not `{update_type}`"])
        me = client.whoami()["username"]
        own = f"{me}_personal/main"
        save_to = api.repository(into or own)
        build_for = api.platform(platform or save_to["platform"]["name"])
        if build_for["platform_type"] != "main":
            raise InvalidInput(["--for: name the platform to build for; `polylocal package platform ls` lists them"])
        arch_id = _arch(api, arch)
        found = _project(api, owner, named, may_make=ref is None and owner == me)
        described = _described(folder.absolute(), named) if ref is None else None
        if ref is None:
            upload_folder(client, owner, named, folder.absolute(), quiet=json, as_git=True)
        if save_to["id"] not in [item["id"] for item in found["repositories"]]:
            api.add_project(save_to["id"], found["id"])
        number = api.build(
            {
                "project_id": found["id"],
                "commit_hash": None,
                "project_version": ref or "master",
                "update_type": update_type,
                "save_to_repository_id": save_to["id"],
                "build_for_platform_id": build_for["id"],
                "arch_id": arch_id,
                "include_repos": [item["id"] for item in build_for["repositories"]],
                "auto_publish_status": "default" if publish_it else "none",
                "auto_create_container": container,
                **({"git_describe": described} if described else {}),
            }
        )
        if detach:
            _report(api, api.build_list(number), client.url, json)
            return
        if not json:
            console.say(f"Build list {number} of {owner}/{named} for {build_for['name']}", "dim")
        ended = _follow(api, number, quiet=json)
        _report(api, ended, client.url, json)
    if _is_held(ended):
        console.say(_HELD.format(name=into or own), "yellow")
    raise typer.Exit(0 if _went_well(ended, publish_it) else 1)


def _went_well(ended: Json, is_to_publish: bool) -> bool:
    """Whether all that was asked for was done; a publication that waits for QA is as far as a build comes."""
    if ended["status"] != BuildStatus.COMPLETE:
        return bool(ended["status"] == BuildStatus.PUBLISHED)
    refusal = ended.get("not_published")
    return not is_to_publish or (refusal is not None and refusal["reason"] == refusals.QA)


_HELD = "Not published yet: somebody may have locked {name}; `polylocal package repository unlock` lets it go on"


def _described(folder: Path, project: str) -> str | None:
    """The code by the tags of its repository, which an upload does not have."""
    from polylocal.git import version_tags

    found = version_tags.of_folder(folder, project)
    return str(found) if found else None


def _project(api: PackagesClient, owner: str, name: str, *, may_make: bool) -> Json:
    try:
        return api.project(owner, name)
    except NotFound:
        if not may_make:
            raise
    api.create_project(name)
    return api.project(owner, name)


def _arch(api: PackagesClient, name: str | None) -> int:
    found = api.arches()
    if name is None:
        return int(found[0]["id"])
    number = next((item["id"] for item in found if item["name"] == name), None)
    if number is None:
        raise InvalidInput([f"--arch: this machine builds for {', '.join(item['name'] for item in found)}"])
    return int(number)


def _follow(api: PackagesClient, number: int, *, quiet: bool = False) -> Json:
    """Its output as it comes, until it has come to rest."""
    offset = 0
    while True:
        found = api.build_list(number)
        if not quiet:
            written = api.log(number, offset)
            offset += len(written)
            console.log_bytes(written)
        if found["status"] not in (*_BUSY, BuildStatus.PUBLISHING) or _is_held(found):
            return found
        time.sleep(_LOOK_S)


def _is_held(found: Json) -> bool:
    """Whether its publication waits for somebody who has locked the repository: that may take days."""
    waits = found["status"] == BuildStatus.PUBLISHING
    return waits and time.time() - float(found["updated_at"]) > _PATIENCE_S


_PATIENCE_S = 60.0


@app.command("ls")
def ls(
    status: Annotated[int | None, typer.Option(help="Only those with this code.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="A part of a project's name.")] = None,
    everybody: Annotated[bool, typer.Option("--all", "-a", help="Also those of others.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, up to 100.")] = 20,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List build lists, the last changed first."""
    filters = {"status": None if status is None else str(status), "project_name": project}
    filters["ownership"] = "everything" if everybody else None
    with _client(home) as (_, api):
        found = api.build_lists(limit, **{name: value for name, value in filters.items() if value is not None})
    if json:
        console.as_json(found)
        return
    rows: list[list[console.Cell]] = [[str(item["id"]), item["name"], _status(item["status"])] for item in found]
    console.table(["BUILD LIST", "PROJECT", "STATUS"], rows, empty="No build lists yet.")


@app.command("show")
def show_one(number: NumberArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show one build list."""
    with _client(home) as (client, api):
        _report(api, api.build_list(number), client.url, json)


@app.command()
def logs(
    number: NumberArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it is done.")] = False,
    home: HomeOption = None,
) -> None:
    """What a build has written, byte for byte: also bytes that steer the terminal."""
    with _client(home) as (_, api):
        api.build_list(number)  # whether there is one
        if follow:
            _follow(api, number)
        else:
            console.log_bytes(api.log(number))


@app.command()
def cancel(number: NumberArgument, home: HomeOption = None) -> None:
    """Stop a build."""
    _act(number, "cancel", home)


@app.command("publish")
def publish(number: NumberArgument, home: HomeOption = None) -> None:
    """Publish what was built."""
    _act(number, "publish", home)


@app.command()
def reject(number: NumberArgument, home: HomeOption = None) -> None:
    """Say that it is not to be published; where the repository has QA."""
    _act(number, "reject_publish", home)


@app.command("container")
def make_container(number: NumberArgument, home: HomeOption = None) -> None:
    """Make a repository of its own for this one build, for others to try."""
    _act(number, "create_container", home)


@app.command("yank")
def yank(
    number: NumberArgument,
    reason: Annotated[str | None, typer.Option(help="The reason, in one line; pip prints it.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Offer the packages again.")] = False,
    home: HomeOption = None,
) -> None:
    """Withdraw published Python packages: pip installs them only where exactly this version is asked for."""
    if undo and reason is not None:
        raise InvalidInput(["--reason: only a withdrawal has one; leave out --reason or --undo"])
    with _client(home) as (_, api):
        console.line(f"{number}: {api.undo_yank(number) if undo else api.yank(number, reason or '')}")


def _act(number: int, action: str, home: Path | None) -> None:
    with _client(home) as (_, api):
        console.line(f"{number}: {api.act(number, action)}")


def _status(code: int) -> console.Cell:
    words = WORDS[BuildStatus(code)]
    return console.text(
        words, style=_COLOURS.get(BuildStatus(code), "yellow" if code in _BUSY else "red" if code else "")
    )


def _report(api: PackagesClient, found: Json, url: str, json: bool) -> None:
    if json:
        console.as_json(found)
        return
    container = ContainerStatus(found["container_status"])
    save_to, arch = found["save_to_repository"], found["arch"]["name"]
    named = (f"{item['name']} {_version(item)} ({item['type']})" for item in found["packages"])
    packages = dict.fromkeys(named)  # a Debian source is several files
    console.fields(
        [
            ("build list", str(found["id"])),
            ("project", found["project"]["fullname"]),
            ("status", _status(found["status"])),
            ("built for", f"{found['build_for_platform']['name']} {arch}"),
            ("saved to", f"{save_to['platform']['name']}/{save_to['name']}"),
            ("commit", found["commit_hash"]),
            ("took", f"{found['duration']} s" if found["duration"] is not None else None),
            *(("package", package) for package in packages),
            ("yanked", (found["yanked_reason"] or "yes, without a reason") if found.get("yanked") else None),
            ("container", CONTAINER_WORDS[container] if container != ContainerStatus.WAITING else None),
            ("at", found["container_path"]),
            ("repository", _served(api, found, url) if found["status"] == BuildStatus.PUBLISHED else None),
            *(("file", f"{item['file_name']}  {item['url']}") for item in found["logs"]),
        ]
    )
    if refusal := found.get("not_published"):  # older daemons do not tell
        console.line(refusal["message"], "yellow")
    if found["status"] == BuildStatus.PUBLISHED and found["packages"]:
        _say_how_to_install(api, found, url)


def _say_how_to_install(api: PackagesClient, found: Json, url: str) -> None:
    """The lines to paste; that nothing can be installed, where a build has made source packages alone."""
    kind = api.platform_by_id(found["build_for_platform"]["id"])["distrib_type"]
    names = list(dict.fromkeys(item["name"] for item in found["packages"]))
    if _is_source_alone(found):
        console.say(_ONLY_SDISTS if kind == "pypi" else _ONLY_SOURCES, "yellow")
        if kind != "pypi":
            return
    platform = found["save_to_repository"]["platform"]["name"]
    key_url = api.key_url(platform)
    try:
        lines = install_lines(kind, _served(api, found, url), platform, names, key_url)
    except InvalidInput as error:
        console.say(str(error), "yellow")
        return
    if found["save_to_repository"]["platform"]["visibility"] == "hidden":
        console.say(_HIDDEN, "yellow")
    label = {"deb": _APT_SIGNED if key_url else _APT, "pypi": "To install:"}.get(kind, _DNF)
    console.say(label, "dim")
    for line in lines:
        console.line(line)


_ONLY_SDISTS = "There is no wheel among the packages: pip has to build the source distribution before it installs it."
_ONLY_SOURCES = "There are only source packages: nothing can be installed from them."
_HIDDEN = "The platform is hidden: write a user and a token into the addresses, as in http://USER:TOKEN@HOST/."
_APT = "A line for a file in /etc/apt/sources.list.d:"
_APT_SIGNED = "A command for root, which fetches the key, and a line for a file in /etc/apt/sources.list.d:"
_DNF = "Lines for a file in /etc/yum.repos.d:"


def _is_source_alone(found: Json) -> bool:
    return {item["type"] for item in found["packages"]} == {"source"}


def _version(package: Json) -> str:
    epoch = f"{package['epoch']}:" if package["epoch"] else ""
    release = f"-{package['release']}" if package["release"] else ""
    return f"{epoch}{package['version']}{release}"


def _served(api: PackagesClient, found: Json, url: str) -> str:
    """Where package managers find it; a released platform has its updates beside `release`.

    A build that has made source packages alone lies in the folder of sources.
    """
    save_to = found["save_to_repository"]
    sub = "updates" if api.platform(save_to["platform"]["name"])["released"] else "release"
    top = f"{url.rstrip('/')}/downloads/{save_to['platform']['name']}/repository"
    middle = "" if save_to["platform"]["platform_type"] == "main" else f"/{found['build_for_platform']['name']}"
    arch = _SOURCES if _is_source_alone(found) else found["arch"]["name"]
    return f"{top}{middle}/{arch}/{save_to['name']}/{sub}/"


_SOURCES = "SRPMS"
