"""Chooses the locale of a run: the one that its image names, or another that the image has.

A program that can't set its locale prints a warning, as bash does on the first line of a log. Supported are glibc's
compiled locales (a folder for each, or one archive) and musl, which accepts any name. `LOCPATH` and the names of
`locale.alias` are not supported.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property

from polylocal.engine.containers import Containers

UTF8, PLAIN = "C.UTF-8", "C"
UTF8_SPELLINGS = frozenset(("C.UTF-8", "C.utf8"))
FOLDER = "/usr/lib/locale"
ARCHIVE = f"{FOLDER}/locale-archive"
_MACHINES = ("x86_64", "aarch64", "armhf", "i386", "ppc64le", "s390x", "riscv64")
_MUSL = [f"/lib/ld-musl-{machine}.so.1" for machine in _MACHINES]
_ARCHIVE_HEAD = 1 << 20  # bytes at the start of the archive that hold all names
_MAGIC = 0xDE020109  # of glibc's locarchive.h
_NAME = re.compile(r"(?P<place>[^.@/]+)(?:\.(?P<charset>[^@/]+))?(?P<modifier>@[^/]+)?")


def substitute(engine: Containers, container_id: str, environment: Mapping[str, str], *, has_bash: bool) -> str:
    """The locale to use instead of the one that the environment names; "": the image has that one.

    The container need not have been started. Raises EngineError.
    """
    wanted = named_locales(environment)
    if not wanted:
        return ""
    there = _Locales(engine, container_id)
    if all(there.has(name) for name in wanted):
        return ""
    if there.has(UTF8):
        return UTF8
    if not has_bash and not engine.has_file(container_id, FOLDER):
        return ""  # a libc without locales takes any name for C
    if any(engine.has_file(container_id, path) for path in _MUSL):
        return ""
    return PLAIN


def likely_locale(environment: Mapping[str, str]) -> str:
    """The most likely result of `substitute`: most images have C.UTF-8 and no other locale."""
    return "" if UTF8_SPELLINGS.issuperset(named_locales(environment)) else UTF8


def named_locales(environment: Mapping[str, str]) -> list[str]:
    """The locales that an environment names. LC_ALL overrides all others; C and POSIX always exist."""
    everything = environment.get("LC_ALL")
    others = [value for name, value in sorted(environment.items()) if name == "LANG" or name.startswith("LC_")]
    wanted = [everything] if everything else others
    return list(dict.fromkeys(value for value in wanted if value not in ("", "C", "POSIX")))


def locales_set_by_run(own: Mapping[str, str], inherited: Mapping[str, str]) -> list[tuple[str, str]]:
    """The locale variables that a run sets itself, and the locales that they name."""
    wanted = named_locales({**inherited, **own})
    names = ["LC_ALL"] if own.get("LC_ALL") else sorted(own)
    return [(name, own[name]) for name in names if own[name] in wanted and named_locales({name: own[name]})]


def spellings(name: str) -> list[str]:
    """The names under which glibc looks for a locale: as written, and with its own spelling of the character set."""
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
    """The locales of a glibc archive. `head`: its first bytes."""
    for order in "<>":
        header = struct.Struct(f"{order}8I")
        if len(head) >= header.size and header.unpack_from(head)[0] == _MAGIC:
            start, used = header.unpack_from(head)[5:7]
            yield from (word.decode("ascii", "replace") for word in head[start : start + used].split(b"\0") if word)
            return


class _Locales:
    """The locales of a container."""

    def __init__(self, engine: Containers, container_id: str) -> None:
        self._engine, self._container_id = engine, container_id

    def has(self, name: str) -> bool:
        known = spellings(name)
        paths = (f"{FOLDER}/{spelling}/LC_CTYPE" for spelling in known)
        has_folder = any(self._engine.has_file(self._container_id, path) for path in paths)
        return has_folder or not self._names_in_archive.isdisjoint(known)

    @cached_property
    def _names_in_archive(self) -> frozenset[str]:
        return frozenset(names_in_archive(self._engine.read_file(self._container_id, ARCHIVE, _ARCHIVE_HEAD) or b""))
