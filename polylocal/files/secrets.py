"""Stores secret values by name, in private files under the home folder. No row, response or log contains them."""

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from polylocal.errors import InvalidInput, NotFound
from polylocal.files.disk import write_private
from polylocal.files.folders import remove_tree

MAX_VALUE = 64 * 1024  # characters of a value; an environment variable holds at most twice as many
_NAME = re.compile(r"[-a-zA-Z0-9_]{1,128}")
_IDENTITY = ".user"  # file with the user's identity, since names are reused; not a valid name of a secret
_ASIDE = ".deleted"  # not part of any user name, which has no dots
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SecretStore:
    """The secrets under `folder`, with a subfolder for each user. Thread-safe."""

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
        """The secret as {variable: value}, or only its variables `keys`. Raises NotFound with advice.

        `identity`: the user's identity in the database. Secrets of an earlier user of the same name are not read.
        """
        command = f"`polylocal secret set {name} VARIABLE --user {user}`"
        if identity and not self._belongs_to(user, identity):
            text = f"The secrets in {self._folder / user} are those of an earlier user named {user}"
            raise NotFound(f"{text}: create them again with {command}, which removes the earlier ones.")
        try:
            found: dict[str, str] = json.loads(self._path(user, name).read_text())
        except (FileNotFoundError, InvalidInput, ValueError) as error:  # ValueError: the file was edited
            raise NotFound(f"{user} has no secret `{name}`; make it with {command}.") from error
        missing = [key for key in keys or () if key not in found]
        if missing:
            raise NotFound(f"The secret `{name}` of {user} has no `{missing[0]}`; it has {', '.join(sorted(found))}.")
        return found if keys is None else {key: found[key] for key in keys}

    def write(self, user: str, name: str, values: Mapping[str, str], *, identity: str | None = None) -> None:
        """Write a secret atomically. Raises InvalidInput for an invalid name, variable or value.

        `identity`: as for `read`. Secrets of an earlier user of the same name are removed.
        """
        for key, value in values.items():
            if not _KEY.fullmatch(key):
                raise InvalidInput([f"`{key}` can't be the name of a variable: letters, digits and underscores."])
            if not value or "\0" in value:
                raise InvalidInput([f"The value of `{key}` is empty, or contains a NUL byte."])
            if len(value) > MAX_VALUE:
                raise InvalidInput([f"The value of `{key}` has more than {MAX_VALUE} characters."])
        path = self._path(user, name)
        if identity and not self._belongs_to(user, identity):
            remove_tree(self._folder / user)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if identity:
            self._belongs_to(user, identity)
        write_private(path, json.dumps(dict(values)))

    def remove(self, user: str, name: str) -> None:
        """Raises NotFound."""
        self.read(user, name)
        self._path(user, name).unlink()

    @contextmanager
    def forgetting(self, user: str) -> Iterator[None]:
        """Remove all secrets of a user whom the block deletes. If the block fails, the secrets stay.

        They are renamed first: a new user may get the same name at once, and must not find them.
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

    def finish_removals(self, users: Container[str]) -> None:
        """Finish the removals that an earlier process began. `users`: the existing users."""
        for aside in self._folder.glob(f"*{_ASIDE}"):
            mine = self._folder / aside.name.removesuffix(_ASIDE)
            if mine.name in users and not mine.exists():
                aside.rename(mine)
            else:
                remove_tree(aside)

    def _belongs_to(self, user: str, identity: str) -> bool:
        """Whether the folder belongs to this user. An older folder without an owner becomes theirs."""
        marker = self._folder / user / _IDENTITY
        try:
            return marker.read_text().strip() == identity
        except FileNotFoundError:
            if marker.parent.is_dir():
                with suppress(OSError):  # disk full: a later call marks it
                    write_private(marker, identity + "\n")
            return True

    def _path(self, user: str, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInput([f"`{name}` can't be the name of a secret: letters, digits, hyphens and underscores."])
        return self._folder / user / name
