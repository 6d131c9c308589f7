"""Headers of rpm packages, read with limits on their size.

The library rpmfile decodes the values. For each tag it copies the rest of the data, and it trusts all counts. So this
module checks the index first, and gives rpmfile a header that has only the known tags, each once and of the right type.
"""

import io
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from polylocal.errors import PackageError
from polylocal.packages import extra

_LEAD = struct.Struct(">4s2xH88x")  # magic, type
_INTRODUCTION = struct.Struct(">4s4xII")  # magic, number of entries, bytes of data
_ENTRY = struct.Struct(">IIiI")
_SOURCE = 1  # type
_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
_ALIGNMENT = 8  # bytes: the signature is padded to a multiple

_MAX_ENTRIES = 4096  # of an index; rpm has about 350 tags
_MAX_DATA = 32 << 20  # bytes of one header
_MAX_VALUES = 2_000_000  # of all known tags together; each file in a package has four

_INT16, _INT32, _INT64, _STRING, _STRINGS, _I18N = 3, 4, 5, 6, 8, 9
_SIZES = {_INT16: 2, _INT32: 4, _INT64: 8}  # bytes of one value; the other types are strings

_DEPENDENCIES = {
    "provides": "provide",
    "requirename": "require",
    "conflictname": "conflict",
    "obsoletes": "obsolete",
    "suggestname": "suggest",
    "enhancename": "enhance",
    "recommendname": "recommend",
    "supplementname": "supplement",
}
# names of rpmfile: `serial` is the epoch, `copyright` the license, `authors` and `comments` belong to the changelog
_TYPES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys("name version release url vendor packager arch buildhost sourcerpm copyright".split(), (_STRING,)),
    **dict.fromkeys("summary description group".split(), (_I18N, _STRING)),
    **dict.fromkeys("serial buildtime size archivesize sourcepackage".split(), (_INT32,)),
    **dict.fromkeys("longsize longarchivesize".split(), (_INT64,)),
    **dict.fromkeys("basenames dirnames oldfilenames authors comments".split(), (_STRINGS,)),
    **dict.fromkeys("dirindexes fileflags changelogtime".split(), (_INT32,)),
    "filemodes": (_INT16,),
    **dict.fromkeys(_DEPENDENCIES, (_STRINGS,)),
    **{f"{stem}version": (_STRINGS,) for stem in _DEPENDENCIES.values()},
    **{f"{stem}flags": (_INT32,) for stem in _DEPENDENCIES.values()},
}
_SIGNATURE_TYPES: dict[str, tuple[int, ...]] = {"payloadsize": (_INT32,), "longarchivesize": (_INT64,)}
_LONG = ("longsize", "longarchivesize")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2

Entry = tuple[int, int, int, int]  # of an index: tag, type, offset into the data, count


@dataclass(frozen=True)
class Header:
    """The values of the known tags, by rpmfile's names.

    `start`, `end`: the place of the header in the file, in bytes.
    """

    values: Mapping[str, Any]
    is_source: bool
    start: int
    end: int

    def text(self, name: str) -> str:
        """The text of a tag in the default locale, or "" if the package lacks the tag."""
        return next(iter(self.texts(name)), "")

    def texts(self, name: str) -> list[str]:
        """All texts of a tag."""
        found = self.values.get(name, [])
        return [clean(text) for text in (found if isinstance(found, list) else [found])]

    def number(self, *names: str) -> int:
        """The number of the first tag that the package has, or 0 if it lacks all of them."""
        return next((number for name in names for number in self.numbers(name)), 0)

    def numbers(self, name: str) -> Sequence[int]:
        """All numbers of a tag."""
        found = self.values.get(name, ())
        return found if isinstance(found, tuple) else (found,)


@dataclass(frozen=True)
class _Part:
    """One of the two headers of a package: the known entries of its index, and its data."""

    entries: Sequence[Entry]
    data: bytes

    def length(self, entry: Entry) -> int:
        """The number of bytes that the values of an entry take. Raises PackageError: a text does not end."""
        tag, kind, start, count = entry
        if kind in _SIZES:
            return count * _SIZES[kind]
        end = start
        for _ in range(count):
            end = self.data.find(b"\0", end) + 1
            if not end:
                raise PackageError(f"a text of the tag {tag} does not end within the header")
        return end - start

    def pack(self) -> bytes:
        """The header as a package contains it."""
        index = b"".join(_ENTRY.pack(*entry) for entry in self.entries)
        return _INTRODUCTION.pack(_HEADER_MAGIC, len(self.entries), len(self.data)) + index + self.data


def dependencies(header: Header, name: str) -> list[tuple[str, int, str]]:
    """Return the name, flags and version of each dependency. Raises PackageError: the three lists differ in length.

    `name`: the tag with the names, for example `requirename`.
    """
    stem = _DEPENDENCIES[name]
    names = header.texts(name)
    flags, versions = header.numbers(f"{stem}flags"), header.texts(f"{stem}version")
    if not len(names) == len(flags) == len(versions):
        counts = f"{len(names)} names, {len(flags)} flags and {len(versions)} versions ({stem})"
        raise PackageError(f"the header has {counts}")
    return list(zip(names, flags, versions, strict=True))


def clean(text: bytes) -> str:
    """Decode a text and remove the characters that XML does not allow. A text that is not UTF-8 is read as Latin-1."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    return _NO_XML.sub("", decoded)


def read(path: Path) -> Header:
    """Read the headers of a package, but not its payload. Raises PackageError: they are damaged; OSError."""
    try:
        with path.open("rb") as file:
            return _read(file)
    except (PackageError, OSError):
        raise
    except Exception as error:  # rpmfile raises errors of any type for a bad header
        raise PackageError(f"the header can't be read: {type(error).__name__}: {error}") from error


def _read(file: BinaryIO) -> Header:
    with extra.needed_for("an rpm package"):
        from rpmfile.headers import get_headers, sigtags, tags
    magic, kind = _LEAD.unpack(_read_exactly(file, _LEAD.size))
    if magic != _LEAD_MAGIC:
        raise PackageError("the file is not an rpm package: it does not begin with the magic number")
    signature = _part(file, {sigtags[name]: types for name, types in _SIGNATURE_TYPES.items()})
    _read_exactly(file, -file.tell() % _ALIGNMENT)
    start = file.tell()
    main = _part(file, {tags[name]: types for name, types in _TYPES.items()})
    names = {tags[name]: name for name in _LONG}
    long = {**_decode_long_sizes(signature, names), **_decode_long_sizes(main, names)}
    content = bytes(_LEAD.size) + _pack_without(signature, names) + _pack_without(main, names)
    _, values = get_headers(io.BytesIO(content))
    # old versions of rpm wrote source packages without the tag
    is_source = "sourcepackage" in values or (kind == _SOURCE and "sourcerpm" not in values)
    return Header({**values, **long}, is_source, start, file.tell())


def _part(file: BinaryIO, known: Mapping[int, Sequence[int]]) -> _Part:
    magic, count, size = _INTRODUCTION.unpack(_read_exactly(file, _INTRODUCTION.size))
    if magic != _HEADER_MAGIC:
        raise PackageError("the file is not an rpm package: a header does not begin with its magic number")
    if count > _MAX_ENTRIES or size > _MAX_DATA:
        limits = f"{_MAX_ENTRIES} tags and {_MAX_DATA} bytes"
        raise PackageError(f"the header is too large: it has {count} tags and {size} bytes, the limits are {limits}")
    index = _read_exactly(file, count * _ENTRY.size)
    data = _read_exactly(file, size)
    found: dict[int, Entry] = {}
    for tag, kind, offset, values in _ENTRY.iter_unpack(index):
        if tag in known:
            _check(tag, kind, offset, values, known[tag], size)
            if tag in found:
                raise PackageError(f"the header has the tag {tag} twice")
            found[tag] = (tag, kind, offset, values)
    if sum(number for _, _, _, number in found.values()) > _MAX_VALUES:
        raise PackageError(f"the header has more than {_MAX_VALUES} values")
    part = _Part(list(found.values()), data)
    # texts have no length in the index: if many tags shared one long text, each would take its memory
    if sum(map(part.length, part.entries)) > size:
        raise PackageError("the values of the header overlap")
    return part


def _check(tag: int, kind: int, offset: int, count: int, kinds: Sequence[int], size: int) -> None:
    if kind not in kinds or (kind == _STRING and count != 1):
        raise PackageError(f"the tag {tag} of the header has the wrong type {kind} or count {count}")
    if offset < 0 or offset + count * _SIZES.get(kind, 1) > size or not count:
        raise PackageError(
            f"the tag {tag} of the header has {count} values at byte {offset}, and the header has {size} bytes"
        )


def _decode_long_sizes(part: _Part, names: Mapping[int, str]) -> dict[str, int]:
    """Decode 64-bit sizes, because rpmfile does not. `names`: tag → name."""
    places = {names[tag]: offset for tag, _, offset, _ in part.entries if tag in names}
    return {name: struct.unpack_from(">Q", part.data, offset)[0] for name, offset in places.items()}


def _pack_without(part: _Part, tags: Mapping[int, str]) -> bytes:
    return _Part([entry for entry in part.entries if entry[0] not in tags], part.data).pack()


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise PackageError("the file ends within its header")
    return found
