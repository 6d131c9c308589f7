"""Which locale a run gets: the one that its image names, or one that the image has.

A program that can't set its locale says so first thing, as bash does on the first line of the log. Known are glibc's
compiled locales (a folder each, or all in one archive) and musl, which takes any name. Not looked at: `LOCPATH`, and
names that `locale.alias` maps to others.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping

from polylocal.runner.engine.base import Engine

UTF8, PLAIN = "C.UTF-8", "C"
FOLDER = "/usr/lib/locale"
ARCHIVE = f"{FOLDER}/locale-archive"
_MACHINES = ("x86_64", "aarch64", "armhf", "i386", "ppc64le", "s390x", "riscv64")
_MUSL = [f"/lib/ld-musl-{machine}.so.1" for machine in _MACHINES]
_ARCHIVE_HEAD = 1 << 20  # bytes, in which all names are: the locales themselves come after them
_MAGIC = 0xDE020109  # of glibc's locarchive.h
_NAME = re.compile(r"(?P<place>[^.@/]+)(?:\.(?P<charset>[^@/]+))?(?P<modifier>@[^/]+)?")


def substitute(engine: Engine, container_id: str, *, has_bash: bool) -> str:
    """The locale for programs of this container in place of the one that its image names; "": the image has that one.

    The container need not have been started.
    """
    wanted = named(engine.image_environment(container_id))
    if not wanted or all(_has(engine, container_id, name) for name in wanted):
        return ""
    if not has_bash and not engine.has_file(container_id, FOLDER):
        return ""  # a libc without locales: it takes any name for C
    if any(engine.has_file(container_id, path) for path in _MUSL):
        return ""
    return UTF8 if _has(engine, container_id, UTF8) else PLAIN


def named(environment: Mapping[str, str]) -> list[str]:
    """The locales that an environment asks for. LC_ALL counts before all others; C and POSIX are everywhere."""
    everything = environment.get("LC_ALL")
    others = [value for name, value in sorted(environment.items()) if name == "LANG" or name.startswith("LC_")]
    wanted = [everything] if everything else others
    return list(dict.fromkeys(value for value in wanted if value not in ("", "C", "POSIX")))


def spellings(name: str) -> list[str]:
    """The names under which glibc finds a locale: as it is written, and with the character set as glibc spells it."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return []
    found = [name]
    if charset := parts["charset"]:
        plain = re.sub(r"[^a-z0-9]", "", charset.lower())
        plain = f"iso{plain}" if plain.isdigit() else plain
        found.append(f"{parts['place']}.{plain}{parts['modifier'] or ''}")
    return list(dict.fromkeys(found))


def names_in_archive(head: bytes) -> Iterator[str]:
    """The locales of a glibc archive, by its beginning."""
    for order in "<>":
        header = struct.Struct(f"{order}8I")
        if len(head) >= header.size and header.unpack_from(head)[0] == _MAGIC:
            start, used = header.unpack_from(head)[5:7]
            yield from (word.decode("ascii", "replace") for word in head[start : start + used].split(b"\0") if word)
            return


def _has(engine: Engine, container_id: str, name: str) -> bool:
    known = spellings(name)
    if any(engine.has_file(container_id, f"{FOLDER}/{spelling}/LC_CTYPE") for spelling in known):
        return True
    head = engine.read_file(container_id, ARCHIVE, _ARCHIVE_HEAD)
    return head is not None and not set(known).isdisjoint(names_in_archive(head))
