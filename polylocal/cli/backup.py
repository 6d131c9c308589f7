"""Commands that back up and restore a home folder."""

from pathlib import Path
from typing import Annotated

import typer

from polylocal.cli import console
from polylocal.cli.context import HomeOption, home_folder


def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write, for example `polylocal.tar.gz`.")],
    home: HomeOption = None,
    without_outputs: Annotated[bool, typer.Option("--without-outputs", help="Leave out the outputs of runs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write the whole home folder into one archive. The daemon may keep running.

    The archive contains tokens and secrets, so only you can read it.
    """
    from polylocal.daemon import backup

    file = file.expanduser().absolute()

    def report_omission(what: str) -> None:
        console.say(f"left out: {what}", "yellow")

    made = backup.make(home_folder(home), file, with_outputs=not without_outputs, replace=force, say=report_omission)
    what = f"{_count(made.runs, 'run')}, {_count(made.files, 'file')} ({console.size(made.content)})"
    console.say(f"{file}: {what} in {console.size(made.size)}, {made.seconds:.1f} s")


def restore(
    file: Annotated[Path, typer.Argument(help="An archive made by `polylocal backup`.")], home: HomeOption = None
) -> None:
    """Restore a backup into a new or empty home folder."""
    from polylocal.daemon import restore

    folder = home_folder(home)
    done = restore.restore(file.expanduser().absolute(), folder)
    about = done.manifest
    what = f"{_count(about.runs, 'run')}, {_count(done.files, 'file')} ({console.size(done.content)})"
    when = console.local_time(about.made_at)
    console.say(f"{folder.root}: {what}, as they were at {when}; {done.seconds:.1f} s")
    if not about.with_outputs:
        console.say("The backup was made without outputs")
    if done.is_new:
        console.say(f"The backup is of {about.home}. The restored folder is a separate installation")
        if done.under_way:
            open_ones = _count(done.under_way, "run")
            console.say(
                f"{open_ones} unfinished: runs with a container belong to {about.home} and count as lost here", "yellow"
            )
    console.say("Start its daemon with: polylocal start" + (f" --home {folder.root}" if home else ""))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
