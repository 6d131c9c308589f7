"""Commands for projects and their code."""

from pathlib import Path
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, JsonOption, ProjectOption, connection, project_of
from polylocal.cli.uploading import upload_folder

app = typer.Typer(help="Create, list, change and delete projects.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="`name` or `user/name`.", metavar="PROJECT")]
DescriptionOption = Annotated[str | None, typer.Option(help="A description of the project.")]
TagsOption = Annotated[str | None, typer.Option(help="Tags, separated by commas.")]
PrivateOption = Annotated[bool | None, typer.Option("--private/--public", help="Whether to hide it from other users.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The name: letters, digits, hyphens and underscores.")],
    description: DescriptionOption = None,
    tags: TagsOption = None,
    private: PrivateOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Create a project."""
    values = {"name": name, "description": description, "tags": tags, "is_public": not private}
    with connection(home) as api:
        made = api.create_project({key: value for key, value in values.items() if value is not None})
    if json:
        console.as_json(made)
    else:
        console.line(f"Project {made['user']}/{made['name']} created")


@app.command("ls")
def ls(
    user: Annotated[str | None, typer.Argument(help="The owner of the projects; default: you.")] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List projects."""
    with connection(home) as api:
        found = api.projects(user or api.whoami()["username"])
    if json:
        return console.as_json(found)
    rows = [
        [f"{item['user']}/{item['name']}", console.local_time(item["updated_at"]), item["description"]]
        for item in found
    ]
    console.table(["PROJECT", "CHANGED", "DESCRIPTION"], rows, empty="No projects yet.")


@app.command("show")
def show_project(name: NameArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show one project."""
    with connection(home) as api:
        found = api.project(*project_of(api, name, Path.cwd()))
    if json:
        return console.as_json(found)
    console.fields(
        [
            ("project", f"{found['user']}/{found['name']}"),
            ("description", console.text(found["description"] or "", has_lines=True)),
            ("tags", ", ".join(found["tags"] or [])),
            ("public", "yes" if found["is_public"] else "no"),
            ("code", "uploaded" if found["has_code"] else "none yet"),
            ("jobs", str(found["num_jobs"])),
            ("builds", str(found["num_builds"])),
            ("created", console.local_time(found["created_at"])),
        ]
    )


@app.command()
def update(
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="The new name.")] = None,
    description: DescriptionOption = None,
    tags: TagsOption = None,
    private: PrivateOption = None,
    home: HomeOption = None,
) -> None:
    """Change a project."""
    values = {
        "name": new_name,
        "description": description,
        "tags": tags,
        "is_public": None if private is None else not private,
    }
    with connection(home) as api:
        owner, named = project_of(api, name, Path.cwd())
        changed = api.update_project(owner, named, {k: v for k, v in values.items() if v is not None})
    console.line(f"Project {changed['user']}/{changed['name']} changed")


@app.command("rm")
def remove(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    home: HomeOption = None,
) -> None:
    """Delete a project with its runs, logs, outputs and code."""
    with connection(home) as api:
        owner, named = project_of(api, name, Path.cwd())
        if not yes:
            console.confirm(f"Delete {owner}/{named} with everything in it?", abort=True)
        frees = api.disk_of_project(owner, named)["size_bytes"]
        api.delete_project(owner, named)
    console.line(f"Project {owner}/{named} deleted; {console.size(frees)} freed")


def upload(
    folder: Annotated[Path, typer.Argument(help="The folder with the code.")] = Path("."),
    project: ProjectOption = None,
    home: HomeOption = None,
) -> None:
    """Upload a folder as the code of a project. Files that .polyaxonignore names are left out.

    Without a .polyaxonignore, .gitignore and .dockerignore apply.
    """
    with connection(home) as api:
        owner, named = project_of(api, project, folder)
        upload_folder(api, owner, named, folder.absolute())
