"""Commands that create, list, show and control runs.

Polyaxonfiles, packing and watching are imported inside `run`, so that the other commands start faster.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from polylocal.cli import console, files, following, groups
from polylocal.cli.context import (
    HomeOption,
    JsonOption,
    ProjectOption,
    RunArgument,
    connection,
    project_of,
    reference,
    run_of,
)
from polylocal.cli.uploading import upload_folder
from polylocal.client.http import Client, Json, RunReference
from polylocal.errors import InvalidInput, NotFound, SetupError
from polylocal.statuses import Kind

_MAX_VALUE = 200  # characters of a variable's value that are printed

FilesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", help="A polyaxonfile; default: the one in this folder. Repeat -f: later files override earlier."
    ),
]
ChangesOption = Annotated[
    list[Path] | None,
    typer.Option("--file", "-f", help="A polyaxonfile that overrides the original's. May be repeated."),
]
ParamsOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-P", metavar="NAME=VALUE", help="Set a param of the polyaxonfile. May be repeated."),
]
VariablesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        "-e",
        metavar="NAME[=VALUE]",
        help="Set a variable of the container, or pass on NAME from this shell. May be repeated. Needs no build.",
    ),
]
UploadOption = Annotated[bool, typer.Option("--upload", "-u", help="Upload the folder of the polyaxonfile first.")]
SecretsOption = Annotated[
    bool, typer.Option("--my-secrets", help="Use your own secrets, not those of the user who wrote the polyaxonfile.")
]
LogsOption = Annotated[bool, typer.Option("--logs", "-l", help="Follow the logs of the build and of the run.")]
# the folder of the first file; the files and options that override the original's polyaxonfile
_Changes = tuple[Path | None, files.Written | None]


def run(
    file: FilesOption = None,
    params: ParamsOption = None,
    env: VariablesOption = None,
    upload: UploadOption = False,
    logs: LogsOption = False,
    watch: Annotated[bool, typer.Option(help="Upload and run again when a file changes.")] = False,
    project: ProjectOption = None,
    create: Annotated[bool, typer.Option("--create", "-c", help="Create the project if it does not exist.")] = False,
    name: Annotated[str | None, typer.Option(help="The name of the run; may contain templates.")] = None,
    description: Annotated[str | None, typer.Option(help="A description of the run.")] = None,
    tags: Annotated[str | None, typer.Option(help="Tags, separated by commas.")] = None,
    priority: Annotated[int | None, typer.Option(help="Runs with a higher priority start first; default 0.")] = None,
    ttl: Annotated[int | None, typer.Option(help="Keep the container this many seconds after the run ends.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Run a polyaxonfile. With -l, the exit code is that of the run's program."""
    paths = files.find(file)
    is_template = files.has_template(name)
    options = files.Options(params or [], env or [], name if is_template else None)
    name = None if is_template else name
    written = files.combine(paths, options)
    kind, folder = files.kind_of(written), paths[0].parent
    about = {"name": name, "description": description, "tags": tags, "priority": priority, "ttl": ttl}
    with connection(home) as api:
        owner, named = project_of(api, project, folder)
        _ensure_project(api, owner, named, create)
        if watch:
            _watch(api, owner, named, paths, options, about)
        if upload:
            upload_folder(api, owner, named, folder, quiet=json)
        made = _create(api, owner, named, kind, written, about)
        reported = reference(made)
        _report(made, reported, json, following_it=logs)
        if kind.is_server and not json:
            console.say(f"Page (after the start; log in with the token of `polylocal token`): {api.url}{made['url']}")
        if logs:
            raise typer.Exit(_follow(api, reported))


def ls(
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            "-p",
            help="Only the runs of this project, `name` or `user/name`; with -q or -s default: the folder's name.",
            envvar="POLYLOCAL_PROJECT",
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help=f"List only this kind: {', '.join(Kind)}.")] = None,
    unfinished: Annotated[bool, typer.Option("--open", help="List only unfinished runs.")] = False,
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="A filter: `status:failed`; with --kind experiment also `params.lr:<0.1`."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", "-s", help="The order: `-started_at`; with --kind experiment also `-metric.loss`."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="List at most this many.")] = 20,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the runs of all projects, the last changed first. With -p, -q or -s, list the runs of one project."""
    named = None
    with connection(home) as api:
        if project or query or sort:
            named = "/".join(project_of(api, project, Path.cwd()))
        found = api.runs(kind=kind, is_open=unfinished, limit=limit, project=named, query=query, sort=sort)
    if json:
        return console.as_json(found)
    rows = [
        [
            str(reference(item)),
            "" if named else item["project"],
            item["name"],
            console.status(item["last_status"]),
            console.short_time(item["created_at"]),
            console.duration(item["started_at"], item["finished_at"]),
            item.get("waits_for") and f"waits for {item['waits_for']}" or item.get("message"),
        ]
        for item in found
    ]
    empty = "No runs match." if query or unfinished else f"No {kind}s yet." if named and kind else "No runs yet."
    console.table(["RUN", "PROJECT", "NAME", "STATUS", "CREATED", "TOOK", "MESSAGE"], rows, empty=empty, one_line=True)


def show_run(run: RunArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show one run."""
    with connection(home) as api:
        found_at = run_of(api, run)
        found = api.run(found_at)
        more = api.find_run(found_at.kind, found_at.id)
    if json:
        return console.as_json(found)
    console.fields(
        [
            ("run", found["unique_name"]),
            ("name", found["name"]),
            ("description", console.text(found["description"] or "", has_lines=True)),
            ("tags", ", ".join(found["tags"] or [])),
            ("status", console.status(found["last_status"])),
            ("message", more["message"]),
            ("waits for", more["waits_for"]),
            ("created", console.local_time(found["created_at"])),
            ("started", console.local_time(found["started_at"])),
            ("finished", console.local_time(found["finished_at"])),
            ("took", console.duration(found["started_at"], found["finished_at"])),
            ("build", found.get("build_job")),
            ("builder", found.get("builder")),
            ("original", found.get("original")),
            ("commit", found.get("commit")),
            ("search", found.get("search_algorithm")),
            ("experiments", _experiments(found)),
            ("best", _best(found)),
            ("params", groups.name_values(found.get("params") or {})),
            ("metrics", groups.name_values(groups.last_metrics(found))),
            ("page", found.get("url") and f"{api.url}{found['url']}"),
            ("command", console.text(_command(found), has_lines=True)),
            *(("variable", variable) for variable in _variables(found)),
            ("outputs", found.get("outputs_path")),
            ("dockerfile", console.text((found.get("dockerfile") or "").strip(), has_lines=True)),
            *(("warning", warning) for warning in found["warnings"]),
        ]
    )


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the run is done.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Print the time before each line.")] = False,
    home: HomeOption = None,
) -> None:
    """Print the log of a run, byte for byte.

    The log may contain control characters, such as those for colours. In all other output polylocal escapes them.
    """
    with connection(home) as api:
        found = run_of(api, run)
        if found.kind == Kind.GROUP:
            raise InvalidInput([f"{found} has no log; its experiments have logs: polylocal show {found}"])
        with api.logs(found, follow=follow, timestamps=timestamps) as chunks:
            for chunk in chunks:
                console.log_bytes(chunk)


def statuses(run: RunArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show the status history of a run."""
    with connection(home) as api:
        found = api.statuses(run_of(api, run))
    if json:
        console.as_json(found)
    else:
        console.history(found)


def restart(
    run: RunArgument,
    file: ChangesOption = None,
    params: ParamsOption = None,
    env: VariablesOption = None,
    upload: UploadOption = False,
    logs: LogsOption = False,
    my_secrets: SecretsOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Repeat a run with new, empty outputs."""
    _clone("restart", run, _changes(file, params, env), upload, logs, my_secrets, home, json)


def resume(
    run: RunArgument,
    file: ChangesOption = None,
    params: ParamsOption = None,
    env: VariablesOption = None,
    logs: LogsOption = False,
    my_secrets: SecretsOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Repeat a run and continue in its outputs."""
    _clone("resume", run, _changes(file, params, env), False, logs, my_secrets, home, json)


def copy(
    run: RunArgument,
    file: ChangesOption = None,
    params: ParamsOption = None,
    env: VariablesOption = None,
    logs: LogsOption = False,
    my_secrets: SecretsOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Repeat a run with a copy of its outputs."""
    _clone("copy", run, _changes(file, params, env), False, logs, my_secrets, home, json)


def remove(
    runs: Annotated[list[str], typer.Argument(help="`3`, `job/3`, `build/2` …", metavar="RUN…")],
    home: HomeOption = None,
) -> None:
    """Stop runs and delete them with their logs and outputs."""
    with connection(home) as api:
        for text in runs:
            found = run_of(api, text)
            frees = api.disk_of_run(found)["size_bytes"]
            api.delete(found)
            console.line(f"{found} deleted; {console.size(frees)} freed")


def outputs(
    run: RunArgument,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="Save the outputs to this tar.gz file.")] = None,
    home: HomeOption = None,
) -> None:
    """Print the folder of a run's outputs, or save the outputs to an archive."""
    with connection(home) as api:
        found = run_of(api, run)
        folder = api.run(found).get("outputs_path")
        if folder is None:
            raise InvalidInput([f"{found} has no outputs"])
        if to is None:
            console.line(folder)
            return
        try:
            n_bytes = api.download_outputs(found, to)
        except OSError as error:
            raise InvalidInput([f"can't write {to}: {error.strerror}"]) from error
    console.line(f"{to}: {console.size(n_bytes)}")


def _experiments(found: Json) -> str | None:
    """The counts of a group's experiments: `8: 5 succeeded, 2 running, 1 pending`."""
    if "num_experiments" not in found or "search_algorithm" not in found:
        return None
    return f"{found['num_experiments']}: {groups.counts(found)}"


def _best(found: Json) -> str | None:
    best = found.get("best_experiment")
    if not best:
        return None
    params = ", ".join(f"{name}={value}" for name, value in best["params"].items())
    return f"experiment/{best['id']}: {best['metric']} {best['value']:g} with {params}"


def _command(found: Json) -> str:
    cmd = (found["config"] or {}).get("run", {}).get("cmd", "")
    return "\n".join(map(str.strip, cmd)) if isinstance(cmd, list) else cmd


def _variables(found: Json) -> list[str]:
    """The variables that the polyaxonfile sets in the container. Long values are truncated."""
    given = ((found["config"] or {}).get("environment") or {}).get("env_vars") or {}
    pairs = given.items() if isinstance(given, Mapping) else [pair for pair in given if len(pair) == 2]
    texts = ((str(name), str(value)) for name, value in pairs)
    return [f"{name}={text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + '…'}" for name, text in texts]


def stop_run(api: Client, text: str) -> None:
    found = run_of(api, text)
    api.stop(found)
    console.line(f"{found} is being stopped")


def _ensure_project(api: Client, owner: str, name: str, create: bool) -> None:
    try:
        api.project(owner, name)
    except NotFound:
        wanted = create or (
            sys.stdin.isatty() and console.confirm(f"There is no project {owner}/{name} yet. Create it?", default=True)
        )
        if not wanted:
            raise SetupError(f"there is no project {owner}/{name}; add --create to create it") from None
        api.create_project({"name": name})
        console.say(f"Project {owner}/{name} created", "dim")


def _create(api: Client, owner: str, project: str, kind: Kind, written: files.Written, about: Json) -> Json:
    body = {name: value for name, value in about.items() if value is not None}
    with _without_field_name():
        return api.create_run(owner, project, kind, {**body, **written.body})


@contextmanager
def _without_field_name() -> Iterator[None]:
    """Drop the field name `content` from errors: each problem of a polyaxonfile already names its place."""
    try:
        yield
    except InvalidInput as error:
        if isinstance(error.messages, Mapping) and set(error.messages) == {"content"}:
            raise InvalidInput(error.messages["content"]) from error
        raise


def _report(made: Json, run: RunReference, json: bool, following_it: bool) -> None:
    if json:
        return console.as_json(made)
    for warning in made["warnings"]:
        console.say(f"Warning: {warning}", "yellow")
    console.say(f"{run} created in {made['project']}", "bold")
    if not following_it:
        console.say(f"Follow it with: polylocal {'show' if run.kind == Kind.GROUP else 'logs -f'} {run}")


def _follow(api: Client, run: RunReference) -> int:
    try:
        found = following.follow(api, run)
    except KeyboardInterrupt:
        console.say("")
        console.say(f"{run} continues. Follow it with `polylocal logs -f {run}`, stop it with `polylocal stop {run}`")
        return 130
    following.summary(api, run, found)
    return following.exit_code(found)


def _changes(paths: list[Path] | None, params: list[str] | None, env: list[str] | None) -> _Changes:
    if not paths and not params and not env:
        return None, None
    found = files.find(paths) if paths else []
    return found[0].parent if found else None, files.combine(found, files.Options(params or [], env or []))


def _clone(
    how: str, run: str, changes: _Changes, upload: bool, logs: bool, my_secrets: bool, home: Path | None, json: bool
) -> None:
    folder, written = changes
    with connection(home) as api:
        original = run_of(api, run)
        if original.kind in ("group", "build") or Kind(original.kind).is_server:
            raise InvalidInput([f"{original} can't be run again; run its polyaxonfile instead"])
        body: dict[str, Any] = written.body if written else {}
        if upload:
            upload_folder(api, original.owner, original.project, folder or Path.cwd(), json)
            body["update_code"] = True
        if my_secrets:
            body["secrets"] = "mine"
        with _without_field_name():
            made = api.clone(original, how, body)
        found = reference(made)
        _report(made, found, json, following_it=logs)
        if logs:
            raise typer.Exit(_follow(api, found))


def _watch(api: Client, owner: str, project: str, paths: list[Path], options: files.Options, about: Json) -> None:
    """Run until interrupted. When the code or a polyaxonfile changes, stop the run, upload and run again."""
    from polylocal.cli import watching
    from polylocal.cli.uploading import omissions

    folder, known = paths[0].parent, list[str]()

    def begin() -> RunReference:
        written = files.combine(paths, options)
        kind = files.kind_of(written)
        code = upload_folder(api, owner, project, folder, known=known)
        known[:] = [line for line, _ in omissions(code)]
        made = _create(api, owner, project, kind, written, about)
        run = reference(made)
        _report(made, run, False, following_it=True)
        return run

    watching.watch(api, folder, paths, begin, partial(_follow, api))
