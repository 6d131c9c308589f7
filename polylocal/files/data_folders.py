"""Data folders: folders of this machine that runs see, as `[data]` in polylocal.toml lists them."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

ROOT = PurePosixPath("/plx-data")  # in a container: folders without a mount of their own lie in it by name

# Folders of a container that hold its system: a mount on one, in one or above one would hide programs or the kernel's
# own files. What images keep elsewhere (/opt, /root, /usr/share) may be wanted there.
_SYSTEM = """
/bin /boot /dev /etc /lib /lib32 /lib64 /libx32 /proc /run /sbin /sys /usr/bin /usr/lib /usr/lib32 /usr/lib64
/usr/libexec /usr/local/bin /usr/local/lib /usr/local/sbin /usr/sbin /var/run
"""
_RESERVED = tuple(PurePosixPath(path) for path in ("/code", *_SYSTEM.split()))
_OWN = "plx-"  # folders at the root of a container that begin so are the platform's


def _path(value: object) -> object:
    if isinstance(value, str) and not value:
        raise ValueError("the path is empty; write the folder's absolute path")
    return value


def _absolute(path: Path) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(f"`{path}`: {error}") from error
    if not path.is_absolute():
        raise ValueError(f"`{path}` is a relative path; write an absolute one")
    _check_printable(str(path))
    return path


def _mount(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute():
        raise ValueError(f"`{path}` is a relative path; write an absolute path in the container, as `/data`")
    if ".." in path.parts:
        raise ValueError(f"`{path}` holds `..`; write the path without it")
    path = PurePosixPath("/", *path.parts[1:])  # of two slashes at the beginning one stays
    if path == PurePosixPath("/"):
        raise ValueError("`/` is the root of the container; write a path below it, as `/data`")
    if path.parts[1].startswith(_OWN):
        raise ValueError(f"`{path}`: folders /{_OWN}… are polylocal's own; write another path, as `/data`")
    for reserved in _RESERVED:
        if _overlap(path, reserved):
            where = "is" if path == reserved else "lies in" if reserved in path.parents else "holds"
            raise ValueError(f"`{path}` {where} `{reserved}` of the container; write another path, as `/data`")
    _check_printable(str(path))
    return path


def _check_printable(path: str) -> None:
    if not path.isprintable():
        raise ValueError(f"{path!a} holds characters that can't be printed")


class DataFolder(BaseModel):
    """One folder: where it is on this machine and in a container, and which runs see it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[Path, BeforeValidator(_path), AfterValidator(_absolute)]
    mount: Annotated[PurePosixPath, AfterValidator(_mount)] | None = None  # None: below /plx-data, by its name
    always: bool = False  # in every run, also in those that do not name it
    read_only: bool = False

    def target(self, name: str) -> PurePosixPath:
        """Where a run finds it."""
        return self.mount or ROOT / name

    def problem(self, name: str) -> str | None:
        """Why runs can't have it now. A folder that the daemon may not look at is left to the engine."""
        try:
            mode = self.path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return f"the data folder `{name}` is not there: make {self.path}, or change polylocal.toml [data]."
        except PermissionError:
            return None
        except OSError as error:
            return f"the data folder `{name}` can't be used: {error}."
        return None if stat.S_ISDIR(mode) else f"the data folder `{name}` is no folder: {self.path}."


def _written_short(value: object) -> object:
    """`name = "/srv/x"` says where it is, and nothing else."""
    return {"path": value} if isinstance(value, str | Path) else value


def _check_together(folders: Mapping[str, DataFolder]) -> Mapping[str, DataFolder]:
    if problems := [*_names(folders), *_overlaps(folders)]:
        raise ValueError("; ".join(problems))
    return folders


def _names(folders: Mapping[str, DataFolder]) -> Iterator[str]:
    for name in folders:
        if not name or name in (".", "..") or "/" in name or not name.isprintable():
            yield f"{name!a} can't be the name of a data folder: it names a folder below {ROOT}"


def _overlaps(folders: Mapping[str, DataFolder]) -> Iterator[str]:
    """Mounts in one another: the engine would make the inner one's mount point in the outer one's folder."""
    for (one, first), (other, second) in itertools.combinations(folders.items(), 2):
        here, there = first.target(one), second.target(other)
        if here == there:
            yield f"`{one}` and `{other}` have the same mount, `{here}`"
        elif _overlap(here, there):
            yield f"the mounts of `{one}` and `{other}` lie in one another: `{here}`, `{there}`"


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one == other or one in other.parents or other in one.parents


DataFolders = Annotated[
    dict[str, Annotated[DataFolder, BeforeValidator(_written_short)]], AfterValidator(_check_together)
]


def chosen(folders: Mapping[str, DataFolder], named: Iterable[str], *, all_of_them: bool) -> dict[str, DataFolder]:
    """The folders that a run sees: those that it names and those that every run sees. Raises KeyError."""
    if all_of_them:
        return dict(folders)
    return {
        **{name: folder for name, folder in folders.items() if folder.always},
        **{name: folders[name] for name in named},
    }


def unknown(folders: Mapping[str, DataFolder], name: str) -> str:
    """What is told of a name that no folder has."""
    return f"no data folder `{name}`; polylocal.toml [data] names {', '.join(sorted(folders)) or 'none'}."
