"""Data folders: folders of this machine, listed under `[data]` in polylocal.toml, that are mounted into runs."""

import itertools
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

ROOT = PurePosixPath("/plx-data")  # in a container: parent of the folders without a `mount`

# Folders that contain the system of a container: a mount at, in or above one would hide programs or the kernel's files.
# Mounts in other folders of an image (/opt, /root, /usr/share) are allowed.
_SYSTEM = """
/bin /boot /dev /etc /lib /lib32 /lib64 /libx32 /proc /run /sbin /sys /usr/bin /usr/lib /usr/lib32 /usr/lib64
/usr/libexec /usr/local/bin /usr/local/lib /usr/local/sbin /usr/sbin /var/run
"""
_RESERVED = tuple(PurePosixPath(path) for path in ("/code", *_SYSTEM.split()))
_OWN = "plx-"  # prefix of polylocal's own folders at the root of a container


def _check_not_empty(value: object) -> object:
    if isinstance(value, str) and not value:
        raise ValueError("the path is empty; write the folder's absolute path")
    return value


def _make_absolute(path: Path) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(f"`{path}`: {error}") from error
    if not path.is_absolute():
        raise ValueError(f"`{path}` is a relative path; write an absolute one")
    _check_printable(str(path))
    return path


def _check_mount(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute():
        raise ValueError(f"`{path}` is a relative path; write an absolute path in the container, as `/data`")
    if ".." in path.parts:
        raise ValueError(f"`{path}` contains `..`; write the path without it")
    path = PurePosixPath("/", *path.parts[1:])  # `//data` becomes `/data`
    if path == PurePosixPath("/"):
        raise ValueError("`/` is the root of the container; write a path below it, as `/data`")
    if path.parts[1].startswith(_OWN):
        raise ValueError(f"`{path}`: folders /{_OWN}… are polylocal's own; write another path, as `/data`")
    for reserved in _RESERVED:
        if _overlap(path, reserved):
            where = "is" if path == reserved else "is in" if reserved in path.parents else "contains"
            raise ValueError(f"`{path}` {where} `{reserved}` of the container; write another path, as `/data`")
    _check_printable(str(path))
    return path


def _check_printable(path: str) -> None:
    if not path.isprintable():
        raise ValueError(f"{path!a} contains characters that can't be printed")


class DataFolder(BaseModel):
    """The path of a data folder on this machine and in containers, and the runs that see it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[Path, BeforeValidator(_check_not_empty), AfterValidator(_make_absolute)]
    mount: Annotated[PurePosixPath, AfterValidator(_check_mount)] | None = None  # None: /plx-data/<name>
    always: bool = False  # mounted into runs that do not name it, too
    read_only: bool = False

    def target(self, name: str) -> PurePosixPath:
        """The folder's path in a container."""
        return self.mount or ROOT / name

    def problem(self, name: str) -> str | None:
        """The reason why runs can't use the folder now; None: they can, or only the engine may access it."""
        try:
            mode = self.path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return f"the data folder `{name}` does not exist: create {self.path}, or change polylocal.toml [data]."
        except PermissionError:
            return None
        except OSError as error:
            return f"the data folder `{name}` can't be used: {error}."
        return None if stat.S_ISDIR(mode) else f"the data folder `{name}` is not a folder: {self.path}."


def _expand_short_form(value: object) -> object:
    """Accept the short form `name = "/srv/x"`."""
    return {"path": value} if isinstance(value, str | Path) else value


def _check_together(folders: Mapping[str, DataFolder]) -> Mapping[str, DataFolder]:
    if problems := [*_name_problems(folders), *_overlap_problems(folders)]:
        raise ValueError("; ".join(problems))
    return folders


def _name_problems(folders: Mapping[str, DataFolder]) -> Iterator[str]:
    for name in folders:
        if not name or name in (".", "..") or "/" in name or not name.isprintable():
            yield f"{name!a} can't be the name of a data folder: it names a folder below {ROOT}"


def _overlap_problems(folders: Mapping[str, DataFolder]) -> Iterator[str]:
    """Nested mounts: the engine would create the inner mount point in the outer folder."""
    for (one, first), (other, second) in itertools.combinations(folders.items(), 2):
        here, there = first.target(one), second.target(other)
        if here == there:
            yield f"`{one}` and `{other}` have the same mount, `{here}`"
        elif _overlap(here, there):
            yield f"the mounts of `{one}` and `{other}` contain one another: `{here}`, `{there}`"


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one == other or one in other.parents or other in one.parents


DataFolders = Annotated[
    dict[str, Annotated[DataFolder, BeforeValidator(_expand_short_form)]], AfterValidator(_check_together)
]


def select(folders: Mapping[str, DataFolder], named: Iterable[str], *, all_of_them: bool) -> dict[str, DataFolder]:
    """The folders that a run sees: the named ones and those with `always`. Raises KeyError for an unknown name."""
    if all_of_them:
        return dict(folders)
    return {
        **{name: folder for name, folder in folders.items() if folder.always},
        **{name: folders[name] for name in named},
    }


def unknown_message(folders: Mapping[str, DataFolder], name: str) -> str:
    """The message for an unknown name."""
    return f"no data folder `{name}`; polylocal.toml [data] names {', '.join(sorted(folders)) or 'none'}."
