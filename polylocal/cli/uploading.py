"""Uploads code: checks the daemon's limits, packs the folder, lists left-out files, sends the archive.

`packing` is imported inside the function that uses it, because most commands upload nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polylocal.cli import console
from polylocal.client.http import Client, Json
from polylocal.errors import InvalidInput

if TYPE_CHECKING:
    from polylocal.client.packing import Code

WARN_UPLOAD_MIB = 100
_MIB = 2**20
_FORM = 4096  # upper bound of the bytes that the multipart form adds to the archive
_MAX_NAMED = 3


def upload_folder(
    api: Client,
    owner: str,
    project: str,
    folder: Path,
    quiet: bool = False,
    known: Sequence[str] = (),
    *,
    as_git: bool = False,
) -> Code:
    """Pack and upload a folder, and print a summary. Returns the uploaded code.

    `as_git`: upload the files that git would track, as in `packing.survey`. `known`: lines about left-out files that
    were printed before. Raises InvalidInput before anything is sent.
    """
    from polylocal.client import packing

    if not folder.is_dir():
        raise InvalidInput([f"there is no folder {folder}"])
    limits = api.upload_limits(owner, project)
    with tempfile.TemporaryFile() as archive:
        with console.spinner("Packing the code …"):
            code = packing.survey(folder, as_git=as_git)
            _check_unpacked(code, limits)
            count, n_bytes = packing.pack(folder, archive, code)
        packed = archive.tell()
        _check_packed(code, packed, limits)
        for line, style in omissions(code):
            if line not in known and not (quiet and style == "dim"):
                console.say(line, style)
        if packed > WARN_UPLOAD_MIB * _MIB:
            hint = f"{console.size(packed)} is a lot for code; list unneeded files in {code.rules.ignore_file}"
            console.say(hint, "yellow")
        archive.seek(0)
        with console.spinner(f"Uploading {console.size(packed)} …"):
            api.upload(owner, project, archive)
    if not quiet:
        console.say(f"Uploaded {count} files ({console.size(n_bytes)}) of {folder}", "dim")
    return code


def omissions(code: Code) -> list[tuple[str, str]]:
    """Lines, with their styles, about the files that are not uploaded."""
    lines: list[tuple[str, str]] = []
    if code.is_as_git:
        lines += _git_omissions(code)
    elif code.substitutes:
        verb = "names" if len(code.substitutes) == 1 else "name"
        lines.append((f"Left out the files that {' and '.join(code.substitutes)} {verb}", "dim"))
    if code.links_out:
        many = len(code.links_out) > 1
        what, it = ("links that lead", "them") if many else ("a link that leads", "it")
        hint = f"; give runs such data by data_refs, or name {it} in .polyaxonignore" if not code.is_as_git else ""
        lines.append((f"Left out {list_names(code.links_out)}: {what} out of the folder{hint}", "yellow"))
    return lines


def _git_omissions(code: Code) -> Iterator[tuple[str, str]]:
    if code.left:
        yield f"Left out {list_names(code.left)}: git ignores {'it' if len(code.left) == 1 else 'them'}", "dim"
    if code.empty:
        what = "the folder is" if len(code.empty) == 1 else "the folders are"
        yield f"Left out {list_names(code.empty)}: {what} empty, and git does not record empty folders", "dim"


def list_names(names: Sequence[str]) -> str:
    """The first names of a list, and the number of the others."""
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _check_unpacked(code: Code, limits: Json) -> None:
    """Raises InvalidInput if there are no files to upload, or more than the daemon accepts."""
    if not code.items and code.is_cut:
        rules = " and ".join(code.substitutes) or code.rules.ignore_file
        raise InvalidInput([f"there are no files to upload in {code.folder}: {rules} excludes all of them"])
    most = limits.get("max_unpacked_mib")
    if most is not None and code.size > most * _MIB:
        raise _too_much(code, _mib(code.size), "max_unpacked_mib", most)
    most = limits.get("max_upload_files")
    if most is not None and code.count > most:
        raise _too_much(code, f"{code.count} files and folders", "max_upload_files", most, by_count=True)


def _check_packed(code: Code, packed: int, limits: Json) -> None:
    most = limits.get("max_upload_mib")
    if most is not None and packed + _FORM > most * _MIB:
        raise _too_much(code, _mib(packed), "max_upload_mib", most)


def _too_much(code: Code, what: str, setting: str, most: int, *, by_count: bool = False) -> InvalidInput:
    largest = code.largest(by_count=by_count)[:_MAX_NAMED]
    named = ", ".join(f"{name} {amount if by_count else _mib(amount)}" for name, amount in largest)
    return InvalidInput(
        [
            f"nothing was uploaded: the code has {what}, and `{setting}` is {most}; the largest: {named}. List unneeded"
            f" files in {code.rules.ignore_file}, or raise the setting"
        ]
    )


def _mib(n_bytes: int) -> str:
    amount = n_bytes / _MIB
    return f"{amount:.0f} MiB" if amount >= 10 else f"{amount:.1f} MiB"
