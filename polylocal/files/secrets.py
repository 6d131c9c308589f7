"""Secret values by name: files under the home folder that only its owner reads. They are in no row, answer or log."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from polylocal.errors import InvalidInput, NotFound
from polylocal.files.disk import write_private
from polylocal.files.folders import remove_tree

MOST = 64 * 1024  # characters of a value: a variable holds no more than twice that
_NAME = re.compile(r"[-a-zA-Z0-9_]{1,128}")
_IDENTITY = ".user"  # in a user's folder: whose it is, since names are given again; no name of a secret begins so
_ASIDE = ".deleted"  # no user's name has a dot
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SecretStore:
    """The secrets under `folder`, one folder a user: nobody names those of another one. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, user: str) -> list[str]:
        try:
            return sorted(path.name for path in (self._folder / user).iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def read(
        self, user: str, name: str, keys: Iterable[str] | None = None, *, identity: str | None = None
    ) -> dict[str, str]:
        """{variable: value}; `keys`: of these alone. Raises NotFound, with what to do.

        `identity`: of the user as the database knows them. Secrets of an earlier user of that name are not read.
        """
        if identity and not self._claimed(user, identity):
            raise NotFound(
                f"The secrets in {self._folder / user} are those of an earlier user named {user}: make them anew with"
                f" `polylocal secret set {name} VARIABLE --user {user}`, which removes the earlier ones."
            )
        try:
            found: dict[str, str] = json.loads(self._path(user, name).read_text())
        except (FileNotFoundError, InvalidInput, ValueError) as error:  # ValueError: somebody wrote into it
            message = (
                f"{user} has no secret `{name}`; make it with `polylocal secret set {name} VARIABLE --user {user}`."
            )
            raise NotFound(message) from error
        missing = [key for key in keys or () if key not in found]
        if missing:
            raise NotFound(f"The secret `{name}` of {user} has no `{missing[0]}`; it has {', '.join(sorted(found))}.")
        return found if keys is None else {key: found[key] for key in keys}

    def write(self, user: str, name: str, values: Mapping[str, str], *, identity: str | None = None) -> None:
        """As a whole or not at all. Raises InvalidInput for a name that can't stand in a file or a variable.

        `identity`: as for `read`; the secrets of an earlier user of that name are removed.
        """
        for key, value in values.items():
            if not _KEY.fullmatch(key):
                raise InvalidInput([f"`{key}` can't be the name of a variable: letters, digits and underscores."])
            if not value or "\0" in value:
                raise InvalidInput([f"The value of `{key}` is empty, or holds a zero byte."])
            if len(value) > MOST:
                raise InvalidInput([f"The value of `{key}` has more than {MOST} characters."])
        path = self._path(user, name)
        if identity and not self._claimed(user, identity):
            remove_tree(self._folder / user)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if identity:
            self._claimed(user, identity)
        write_private(path, json.dumps(dict(values)))

    def remove(self, user: str, name: str) -> None:
        """Raises NotFound."""
        self.read(user, name)
        self._path(user, name).unlink()

    @contextmanager
    def forgetting(self, user: str) -> Iterator[None]:
        """Remove all of a user's, who is deleted in the block; if that is refused, they stay.

        They are put aside first: another user may have this name a moment later, and must not find them.
        """
        mine, aside = self._folder / user, self._folder / f"{user}{_ASIDE}"
        remove_tree(aside)
        with suppress(FileNotFoundError):
            mine.rename(aside)
        try:
            yield
        except BaseException:
            with suppress(FileNotFoundError):
                aside.rename(mine)
            raise
        remove_tree(aside)

    def settle(self, users: Container[str]) -> None:
        """At a start: finish what a process before this one began. `users`: those that there are."""
        for aside in self._folder.glob(f"*{_ASIDE}"):
            mine = self._folder / aside.name.removesuffix(_ASIDE)
            if mine.name in users and not mine.exists():
                aside.rename(mine)
            else:
                remove_tree(aside)

    def _claimed(self, user: str, identity: str) -> bool:
        """Whether the folder is this user's. One that is nobody's yet, as every folder was once, becomes theirs."""
        marker = self._folder / user / _IDENTITY
        try:
            return marker.read_text().strip() == identity
        except FileNotFoundError:
            if marker.parent.is_dir():
                with suppress(OSError):  # a full disk: it is marked by one of the next looks
                    write_private(marker, identity + "\n")
            return True

    def _path(self, user: str, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInput([f"`{name}` can't be the name of a secret: letters, digits, hyphens and underscores."])
        return self._folder / user / name
