"""Writes folders into a tar archive, even while programs change them.

No member has a setuid, setgid or sticky bit. Holes and hard links are kept, so the time and the size of an archive
depend on the bytes on the disk.
"""

import os
import stat
import tarfile
from collections.abc import Callable
from typing import BinaryIO

from polylocal.files import sparse
from polylocal.files.folders import Entry

PERMISSIONS = 0o777
MAX_NAME = 3072  # bytes of a member's name; the system's limit of 4096 includes the folder it is unpacked into


class Archive:
    """Writes to `tar`. `say` receives a sentence for each entry that could not be archived completely."""

    def __init__(
        self,
        tar: tarfile.TarFile,
        say: Callable[[str], None] = lambda line: None,
        *,
        with_owners: bool = False,
        with_holes: bool = True,
    ) -> None:
        self.files = 0
        self.content = 0  # bytes
        self._tar = tar
        self._say = say
        self._with_owners = with_owners
        self._with_holes = with_holes
        self._names: dict[tuple[int, int], str] = {}  # of the first member of files with several names

    def add(self, entry: Entry, name: str, shown: object) -> bool:
        """Add a folder, a file or a link. `shown`: the entry's name in messages.

        Returns False if the entry vanished, could not be read or is of another kind.
        """
        if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME:
            self._say(f"{shown} has a path of more than {MAX_NAME} bytes")
            return False
        if entry.is_file:
            return self._add_entry(entry, name, shown)
        member = self.member(name, entry.stat)
        try:
            if entry.is_folder:
                member.type = tarfile.DIRTYPE
            elif (target := entry.target) is not None:
                member.type, member.linkname = tarfile.SYMTYPE, target
            else:
                self._say(f"{shown} is {kind(entry.stat.st_mode)}")
                return False
        except OSError:
            return False
        self.write(member)
        return True

    def _add_entry(self, entry: Entry, name: str, shown: object) -> bool:
        try:
            file = entry.open()
        except FileNotFoundError:
            return False
        except OSError as error:
            self._say(f"{shown} can't be read: {error.strerror}")
            return False
        with file:
            return self.add_file(file, name, shown)

    def add_file(self, file: BinaryIO, name: str, shown: object, *, may_be_link: bool = True) -> bool:
        """Add an open file. `may_be_link`: a further name of a file that was added becomes a hard link to it."""
        about = os.fstat(file.fileno())
        number = (about.st_dev, about.st_ino)
        member = self.member(name, about)
        has_names = may_be_link and about.st_nlink > 1
        if has_names and number in self._names:
            member.type, member.linkname = tarfile.LNKTYPE, self._names[number]
            self.write(member)
            return True
        try:
            content = sparse.prepare(member, file, self._with_holes)
        except OSError as error:
            self._say(f"{shown} is left out: {error.strerror}")
            return False
        self.files += 1
        self.content += content.size
        self.write(member, content)
        if has_names:
            self._names[number] = name
        if content.lack:
            self._say(f"{shown} lacks {content.lack} bytes at its end, replaced by zeros: {content.why}")
        return True

    def member(self, name: str, about: os.stat_result) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.mode = stat.S_IMODE(about.st_mode) & PERMISSIONS
        member.mtime = int(about.st_mtime)
        if self._with_owners:
            member.uid, member.gid, member.mtime = about.st_uid, about.st_gid, about.st_mtime
        return member

    def write(self, member: tarfile.TarInfo, content: sparse.Content | None = None) -> None:
        self._tar.addfile(member, content)
        self._tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all members


def kind(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFLNK: "a link"}
    return kinds.get(stat.S_IFMT(mode), "a device")
