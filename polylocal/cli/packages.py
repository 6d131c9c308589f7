"""Commands that build and publish packages, and manage platforms and repositories."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, ProjectOption, connection, project_of
from polylocal.cli.uploading import upload_folder
from polylocal.client.http import Client, Json
from polylocal.client.packages import BuildOptions, PackagesClient, has_succeeded
from polylocal.errors import InvalidInput
from polylocal.packages import kinds
from polylocal.packages.install_lines import install_lines
from polylocal.packages.statuses import CONTAINER_WORDS, UPDATE_TYPES, WORDS, BuildStatus, ContainerStatus

app = typer.Typer(help="Build packages and publish them in your own repositories.", no_args_is_help=True)
platforms = typer.Typer(help="Manage platforms: the systems that packages are built for.", no_args_is_help=True)
repositories = typer.Typer(help="Manage repositories: the places where packages are published.", no_args_is_help=True)
app.add_typer(platforms, name="platform")
app.add_typer(repositories, name="repository")

_POLL_S = 0.3
_BUSY = (BuildStatus.WAITING, BuildStatus.PENDING, BuildStatus.STARTED, BuildStatus.CANCELING)
_COLOURS = {BuildStatus.COMPLETE: "green", BuildStatus.PUBLISHED: "green", BuildStatus.STARTED: "cyan"}

NumberArgument = Annotated[int, typer.Argument(help="The number of the build list.", metavar="NUMBER")]
RepositoryArgument = Annotated[str, typer.Argument(help="`platform/repository`.", metavar="REPOSITORY")]
ProjectArgument = Annotated[str, typer.Argument(help="`name` or `user/name`.", metavar="PROJECT")]
_HELD = "Not published yet: {name} may be locked. `polylocal package repository unlock` continues the publication"
_HELD_AFTER_S = 60.0
_ONLY_SDISTS = "The build made no wheel: pip has to build the source distribution before it installs it."
_ONLY_SOURCES = "The build made only source packages, which can't be installed."
_HIDDEN = "The platform is hidden: write a user and a token into the addresses, as in http://USER:TOKEN@HOST/."
_APT = "Add this line to a file in /etc/apt/sources.list.d:"
_APT_SIGNED = "Run the first line as root to fetch the key; add the second to a file in /etc/apt/sources.list.d:"
_DNF = "Add these lines to a file in /etc/yum.repos.d:"


@contextmanager
def _client(home: Path | None) -> Iterator[tuple[Client, PackagesClient]]:
    with connection(home) as client:
        yield client, PackagesClient(client)


@platforms.command("create")
def create_platform(
    name: Annotated[str, typer.Argument(help="The name: letters, digits, dots, hyphens and underscores.")],
    kind: Annotated[str, typer.Option("--type", help=f"The type: {', '.join(kinds.KINDS[:-1])} or {kinds.KINDS[-1]}.")],
    image: Annotated[
        str | None, typer.Option(help="The image that packages are built in; default: depends on the type.")
    ] = None,
    command: Annotated[str | None, typer.Option(help="The build command; default: depends on the type.")] = None,
    network: Annotated[bool, typer.Option(help="Give builds access to the network.")] = False,
    description: Annotated[str | None, typer.Option(help="A description of the platform.")] = None,
    home: HomeOption = None,
) -> None:
    """Create a platform with a repository `main`."""
    if kind not in kinds.KINDS:
        raise InvalidInput([f"--type: must be one of {', '.join(kinds.KINDS)}, not `{kind}`"])
    values: Json = {"name": name, "distrib_type": kind, "build_image": image, "build_command": command}
    values |= {"build_network": network, "description": description}
    with _client(home) as (_, api):
        made = api.create_platform({key: value for key, value in values.items() if value is not None})
        api.create_repository({"platform_id": made["id"], "name": "main"})
    console.line(f"Platform {name} created, with the repository {name}/main")
    if advice := made["message"].removeprefix("Platform has been created successfully").lstrip(". "):
        console.say(advice, "yellow")


@platforms.command("ls")
def list_platforms(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the platforms that you may build for."""
    with _client(home) as (_, api):
        found = api.platforms()
    if json:
        return console.as_json(found)
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
    """Print the public key that verifies the repositories of a platform."""
    with _client(home) as (_, api):
        found = api.platform_key(name)
    if json:
        return console.as_json(found)
    for line in found["key"].splitlines():
        console.line(line)


@repositories.command("create")
def create_repository(
    name: RepositoryArgument,
    qa: Annotated[bool, typer.Option("--qa", help="Publish nothing automatically: each build needs approval.")] = False,
    home: HomeOption = None,
) -> None:
    """Create a repository."""
    platform, slash, own = name.partition("/")
    if not slash or not own:
        raise InvalidInput([f"`{name}` is not the name of a repository; write `platform/repository`"])
    with _client(home) as (_, api):
        found = api.platform(platform)
        api.create_repository({"platform_id": found["id"], "name": own, "publish_without_qa": not qa})
    console.line(f"Repository {platform}/{own} created")


@repositories.command("add")
def add_project(name: RepositoryArgument, project: ProjectArgument, home: HomeOption = None) -> None:
    """Allow a project to publish in a repository."""
    with _client(home) as (client, api):
        owner, named = project_of(client, project, Path.cwd())
        api.add_project(api.repository(name)["id"], api.project(owner, named)["id"])
    console.line(f"{owner}/{named} may publish in {name}")


@repositories.command("remove")
def remove_project(name: RepositoryArgument, project: ProjectArgument, home: HomeOption = None) -> None:
    """Stop a project from publishing in a repository and remove what it published."""
    with _client(home) as (client, api):
        owner, named = project_of(client, project, Path.cwd())
        api.remove_project(api.repository(name)["id"], api.project(owner, named)["id"])
    console.line(f"{owner}/{named} may no longer publish in {name}")


@repositories.command()
def lock(name: RepositoryArgument, home: HomeOption = None) -> None:
    """Lock a repository: publications wait until it is unlocked."""
    with _client(home) as (_, api):
        api.lock(api.repository(name)["id"])
    console.line(f"{name} is locked: publications wait until it is unlocked")


@repositories.command()
def unlock(name: RepositoryArgument, home: HomeOption = None) -> None:
    """Unlock a repository: waiting publications continue."""
    with _client(home) as (_, api):
        api.unlock(api.repository(name)["id"])
    console.line(f"{name} is unlocked")


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="The folder with the source code.")] = Path("."),
    into: Annotated[
        str | None,
        typer.Option("--to", help="Publish in this `platform/repository`; default: your personal repository."),
    ] = None,
    platform: Annotated[
        str | None, typer.Option("--for", help="The platform to build for; default: the platform of --to.")
    ] = None,
    project: ProjectOption = None,
    ref: Annotated[
        str | None, typer.Option(help="Build this branch, tag or commit of the project instead of uploading a folder.")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="The architecture; default: that of this machine.")] = None,
    update_type: Annotated[str, typer.Option(help=f"{', '.join(UPDATE_TYPES[:-1])} or {UPDATE_TYPES[-1]}.")] = "bugfix",
    publish_it: Annotated[bool, typer.Option("--publish/--no-publish", help="Publish a successful build.")] = True,
    container: Annotated[bool, typer.Option(help="With --no-publish: create a repository for this build.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for the end of the build.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Upload a folder, build a package from it and publish the package. The exit code is 1 if any step fails."""
    options = BuildOptions(into, platform, arch, ref, update_type, publish_it, container)
    with _client(home) as (client, api):
        owner, named = project_of(client, project, folder)
        plan = api.plan_build(owner, named, options)
        described = None
        if ref is None:
            described = _describe(folder.absolute(), named)
            upload_folder(client, owner, named, folder.absolute(), quiet=json, as_git=True)
        number = api.start_build(plan, described)
        if detach:
            _report(api, api.build_list(number), client.url, json)
            return
        if not json:
            console.say(f"Build list {number} of {owner}/{named} for {plan.platform}", "dim")
        ended = _follow(api, number, quiet=json)
        _report(api, ended, client.url, json)
    if _is_held(ended):
        console.say(_HELD.format(name=plan.repository), "yellow")
    raise typer.Exit(0 if has_succeeded(ended, publish_it) else 1)


def _describe(folder: Path, project: str) -> str | None:
    """`git describe` of a local folder, since an upload does not contain its tags; None without a tag."""
    from polylocal.git import version_tags

    found = version_tags.of_folder(folder, project)
    return str(found) if found else None


def _follow(api: PackagesClient, number: int, *, quiet: bool = False) -> Json:
    """Print the log of a build until the build has ended or its publication is held."""
    offset = 0
    while True:
        found = api.build_list(number)
        if not quiet:
            written = api.log(number, offset)
            offset += len(written)
            console.log_bytes(written)
        if found["status"] not in (*_BUSY, BuildStatus.PUBLISHING) or _is_held(found):
            return found
        time.sleep(_POLL_S)


def _is_held(found: Json) -> bool:
    """Whether a publication waits for a locked repository. It may stay locked for days."""
    waits = found["status"] == BuildStatus.PUBLISHING
    return waits and time.time() - float(found["updated_at"]) > _HELD_AFTER_S


@app.command("ls")
def ls(
    status: Annotated[int | None, typer.Option(help="List only build lists with this status code.")] = None,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="List only projects with this in their name.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", "-a", help="Include the build lists of other users.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", help="List at most this many, up to 100.")] = 20,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List build lists, the last changed first."""
    filters = {"status": None if status is None else str(status), "project_name": project}
    filters["ownership"] = "everything" if everybody else None
    with _client(home) as (_, api):
        found = api.build_lists(limit, **{name: value for name, value in filters.items() if value is not None})
    if json:
        return console.as_json(found)
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
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the build is done.")] = False,
    home: HomeOption = None,
) -> None:
    """Print the log of a build, byte for byte, including control characters."""
    with _client(home) as (_, api):
        api.build_list(number)  # raises NotFound
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
    """Publish the packages of a build."""
    _act(number, "publish", home)


@app.command()
def reject(number: NumberArgument, home: HomeOption = None) -> None:
    """Reject the publication of a build in a repository with QA."""
    _act(number, "reject_publish", home)


@app.command("container")
def make_container(number: NumberArgument, home: HomeOption = None) -> None:
    """Create a separate repository for the packages of one build, so that others can test them."""
    _act(number, "create_container", home)


@app.command("yank")
def yank(
    number: NumberArgument,
    reason: Annotated[str | None, typer.Option(help="The reason, in one line, which pip prints.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Offer the packages again.")] = False,
    home: HomeOption = None,
) -> None:
    """Withdraw published Python packages: pip then installs them only if exactly this version is requested."""
    if undo and reason is not None:
        raise InvalidInput(["--reason and --undo can't be used together"])
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
        return console.as_json(found)
    container = ContainerStatus(found["container_status"])
    save_to, arch = found["save_to_repository"], found["arch"]["name"]
    named = (f"{item['name']} {_version(item)} ({item['type']})" for item in found["packages"])
    packages = dict.fromkeys(named)  # a Debian source package is several files
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
            ("repository", _repository_url(api, found, url) if found["status"] == BuildStatus.PUBLISHED else None),
            *(("file", f"{item['file_name']}  {item['url']}") for item in found["logs"]),
        ]
    )
    if refusal := found.get("not_published"):  # missing in the answers of older daemons
        console.line(refusal["message"], "yellow")
    if found["status"] == BuildStatus.PUBLISHED and found["packages"]:
        _say_how_to_install(api, found, url)


def _say_how_to_install(api: PackagesClient, found: Json, url: str) -> None:
    """Print the lines that install the packages, or say that there are only source packages."""
    kind = api.platform_by_id(found["build_for_platform"]["id"])["distrib_type"]
    names = list(dict.fromkeys(item["name"] for item in found["packages"]))
    if _has_only_sources(found):
        console.say(_ONLY_SDISTS if kind == "pypi" else _ONLY_SOURCES, "yellow")
        if kind != "pypi":
            return
    platform = found["save_to_repository"]["platform"]["name"]
    key_url = api.key_url(platform)
    try:
        lines = install_lines(kind, _repository_url(api, found, url), platform, names, key_url)
    except InvalidInput as error:
        console.say(str(error), "yellow")
        return
    if found["save_to_repository"]["platform"]["visibility"] == "hidden":
        console.say(_HIDDEN, "yellow")
    label = {"deb": _APT_SIGNED if key_url else _APT, "pypi": "To install:"}.get(kind, _DNF)
    console.say(label, "dim")
    for line in lines:
        console.line(line)


def _has_only_sources(found: Json) -> bool:
    return {item["type"] for item in found["packages"]} == {"source"}


def _version(package: Json) -> str:
    epoch = f"{package['epoch']}:" if package["epoch"] else ""
    release = f"-{package['release']}" if package["release"] else ""
    return f"{epoch}{package['version']}{release}"


def _repository_url(api: PackagesClient, found: Json, url: str) -> str:
    """The URL of the repository for package managers. A released platform publishes in `updates`.

    A build that made only source packages is in the folder of sources.
    """
    save_to = found["save_to_repository"]
    sub = "updates" if api.platform(save_to["platform"]["name"])["released"] else "release"
    top = f"{url.rstrip('/')}/downloads/{save_to['platform']['name']}/repository"
    middle = "" if save_to["platform"]["platform_type"] == "main" else f"/{found['build_for_platform']['name']}"
    arch = "SRPMS" if _has_only_sources(found) else found["arch"]["name"]
    return f"{top}{middle}/{arch}/{save_to['name']}/{sub}/"
