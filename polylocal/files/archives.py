"""Folders → members of a tar, while programs may be at work in them.

No member has a setuid, setgid or sticky bit. Holes of files stay holes, and further names of one file become links, so
an archive takes time and room by what lies on the disk.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from typing import BinaryIO

from polylocal.files import sparse
from polylocal.files.folders import Entry

PERMISSIONS = 0o777
MAX_NAME = 3072  # bytes of a member's name: to be unpacked into some folder, it must stay below 4096 with that


class Archive:
    """Writes to `tar`. `say` is told what could not be taken in as it was, and why."""

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
        self._names: dict[tuple[int, int], str] = {}  # of files that have several

    def add(self, entry: Entry, name: str, shown: object) -> bool:
        """A folder, a file or a link; other things are left out. `shown`: what it is called if it is.

        False: it has vanished, or could not be read.
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
        """An open file. `may_be_link`: where it is a further name of one that was added, a link to that will do."""
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
            self._say(f"{shown} lacks {content.lack} bytes at its end, zeros stand for them: {content.why}")
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
        self._tar.members = []  # type: ignore[attr-defined]  # it would remember every one


def kind(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFLNK: "a link"}
    return kinds.get(stat.S_IFMT(mode), "a device")
