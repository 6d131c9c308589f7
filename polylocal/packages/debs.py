"""Debian packages: reading .deb and .dsc files, and writing the indexes of a flat repository for apt.

Formats: deb(5), deb-control(5), dsc(5), and the page DebianRepository/Format of Debian's wiki.
"""

import bz2
import email
import gzip
import hashlib
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import IO, Any

from polylocal.errors import PackageError
from polylocal.packages import extra
from polylocal.packages.description import Description, is_epoch
from polylocal.packages.facts import Facts, IndexedFile

BINARIES = (".deb", ".udeb")
SOURCE = ".dsc"
_MAX_TEXT = 1 << 22  # bytes of a stanza
_MAX_UNPACKED = 1 << 26  # bytes of a control.tar
_MAX_PARTS = 100  # members of the ar archive: a package has three
_MAX_FIELDS = 1000
_AR = b"!<arch>\n"
_FIELD = re.compile(r"[!-9;-~]+")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:^@%=,!_-]*")
_VERSION = re.compile(r"[!-~]+")
_ARCHITECTURE = re.compile(r"[0-9A-Za-z-]+")
# One package with a dependency that apt can't parse stops apt on every machine that reads the index (deb-control(5)).
_DEPENDENCIES = frozenset(
    "depends pre-depends recommends suggests enhances breaks conflicts replaces provides obsoletes".split()
)
_DEPENDENCY = re.compile(r"[^\s()\[\]<>]+ ?(\( ?[<>=]{1,2} ?[^\s()<>=]+ ?\))?", re.ASCII)
# fields that the index adds to a stanza
_OF_INDEX = frozenset("filename size md5sum sha1 sha256 sha512 directory package-type".split())
_LISTS = {"Files": "md5", "Checksums-Sha1": "sha1", "Checksums-Sha256": "sha256"}


def _open_zstd(file: io.BytesIO) -> Any:
    """Decompress zstd. Raises PackageError: the extra is not installed."""
    with extra.needed_for("a .deb file that is compressed with zstd"):
        import zstandard
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file)


_OPENERS: dict[str, Callable[[io.BytesIO], Any]] = {
    "": lambda file: file,
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".xz": lzma.LZMAFile,
    ".lzma": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
    ".zst": _open_zstd,
}


@dataclass(frozen=True)
class Release:
    """The fields of the file `Release` of a repository.

    `origin` and `codename` are None for repositories that were published without them before: apt refuses a repository
    whose origin or codename changes.
    """

    suite: str = ""
    architectures: Iterable[str] = ()
    origin: str | None = None
    codename: str | None = None
    label: str = "polylocal"
    date: datetime = field(default_factory=lambda: datetime.now(UTC))


def describe(path: Path, file_name: str) -> Description:
    """Read the description of a .deb, .udeb or .dsc file. Raises PackageError, and errors of libraries."""
    if file_name.endswith(SOURCE):
        fields = _dsc(path, file_name)
        version = split_version(_version(fields, file_name))
        return Description(_require(fields, "Source", file_name), "source", *version, parts=_parts(fields))
    fields = _control(path, file_name)
    version = split_version(_version(fields, file_name))
    return Description(fields["Package"].strip(), "binary", *version)


def index_texts(path: Path, file_name: str) -> Mapping[str, str]:
    """Read the texts for `Facts.about`. Raises the same errors as `describe`.

    `stanza`: the fields of the index that do not depend on the path, size or digest of the file. A binary package also
    has `architecture`; a source package has `parts`, and its lists of files by the names in `_LISTS`.
    """
    if not file_name.endswith(SOURCE):
        fields = _control(path, file_name)
        return {"stanza": _stanza(fields), "architecture": fields["Architecture"].strip()}
    fields = _dsc(path, file_name)
    lists = {name: _list(fields, name) for name in _LISTS}
    others = {name: value for name, value in fields.items() if name not in ("Source", "Package", *_LISTS)}
    named = {"Package": _require(fields, "Source", file_name), **others}
    return {"stanza": _stanza(named), "parts": "\n".join(_parts(fields)), **lists}


def split_version(text: str) -> tuple[int | None, str, str]:
    """Split a Debian version into epoch, version and release. The epoch is None if the text has none."""
    epoch, colon, rest = text.partition(":")
    if not colon or not is_epoch(epoch):
        epoch, rest = "", text
    version, dash, release = rest.rpartition("-")
    return (int(epoch) if epoch else None), (version if dash else rest), (release if dash else "")


def parts(facts: Facts) -> Sequence[str]:
    """The names of the files that a .dsc file refers to. They must be in the same folder."""
    return facts.about["parts"].split()


def index(files: Sequence[IndexedFile], release: Release) -> Mapping[str, bytes]:
    """The indexes of a flat repository: path relative to its folder → content."""
    binaries = [file for file in files if file.name.endswith(BINARIES)]
    sources = [file for file in files if file.name.endswith(SOURCE)]
    lists = {"Packages": "\n".join(map(_binary, binaries))}
    if sources:
        lists["Sources"] = "\n".join(map(_source, sources))
    made: dict[str, bytes] = {}
    for name, text in lists.items():
        made[name] = text.encode()
        made[f"{name}.gz"] = gzip.compress(made[name], mtime=0)
    found = {file.facts.about["architecture"] for file in binaries} | ({"source"} if sources else set())
    by_hash = {f"by-hash/SHA256/{hashlib.sha256(content).hexdigest()}": content for content in made.values()}
    return {**made, **by_hash, "Release": _release(release, found, made)}


def _release(release: Release, found: set[str], made: Mapping[str, bytes]) -> bytes:
    fields = {
        "Origin": release.origin,
        "Label": release.label,
        "Suite": release.suite,
        "Codename": release.codename,
        "Date": format_datetime(release.date, usegmt=True),
        "Architectures": " ".join(sorted({*found, *release.architectures})),
        "Acquire-By-Hash": "yes",
    }
    text = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    for name, algorithm in (("MD5Sum", "md5"), ("SHA1", "sha1"), ("SHA256", "sha256")):
        text += f"{name}:\n"
        for path, content in made.items():
            digest = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
            text += f" {digest} {len(content):>16} {path}\n"
    return text.encode()


def _binary(file: IndexedFile) -> str:
    facts = file.facts
    return (
        f"{facts.about['stanza']}Filename: ./{file.path}\nSize: {facts.size}\nMD5sum: {facts.md5}\nSHA1: {facts.sha1}\n"
        f"SHA256: {facts.sha256}\n"
    )


def _source(file: IndexedFile) -> str:
    facts = file.facts
    text = f"{facts.about['stanza']}Directory: {file.path.rpartition('/')[0] or '.'}\n"
    for name, algorithm in _LISTS.items():
        text += f"{name}:\n {getattr(facts, algorithm)} {facts.size} {file.name}\n{facts.about[name]}"
    return text


# -- reading ---------------------------------------------------------------------------------------------------------


def _control(path: Path, file_name: str) -> Mapping[str, str]:
    """The fields of `control` in a binary package. Raises PackageError: a part or a field is missing or invalid."""
    size = path.stat().st_size
    with path.open("rb") as file:
        members = list(_members(file, size, file_name))
        found = next((member for member in members if member.name.startswith("control.tar")), None)
        has_data = any(member.name.startswith("data.tar") for member in members)
        opened = _OPENERS.get(found.name.removeprefix("control.tar")) if found else None
        if members[0].name != "debian-binary" or found is None or opened is None or not has_data:
            raise PackageError(
                f"{file_name} is not a Debian package: `debian-binary`, `control.tar` or `data.tar` is missing"
            )
        if found.size > _MAX_UNPACKED:
            raise PackageError(f"{file_name}: its `control.tar` has more than {_MAX_UNPACKED >> 20} MiB")
        file.seek(found.offset)
        with opened(io.BytesIO(file.read(found.size))) as unpacked:
            fields = _fields(_control_file(unpacked, file_name), file_name)
    _require(fields, "Package", file_name)
    _version(fields, file_name)
    architecture = _require(fields, "Architecture", file_name)
    if not _ARCHITECTURE.fullmatch(architecture):
        raise PackageError(f"{file_name}: {architecture[:40]!r} is not a valid name of an architecture")
    for name, value in fields.items():
        if name.lower() in _DEPENDENCIES and value.strip():
            _check_dependencies(name, value, file_name)
    return fields


def _check_dependencies(name: str, value: str, file_name: str) -> None:
    """Raises PackageError: apt can't parse a dependency. As in apt, the list may end with a comma."""
    for word in re.split(r"[,|]", " ".join(value.split()).removesuffix(",")):
        if not _DEPENDENCY.fullmatch(word.strip(" ")):
            raise PackageError(f"{file_name}: the field {name} has the invalid dependency {word[:60]!r}")


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int
    size: int  # bytes


def _members(file: IO[bytes], size: int, file_name: str) -> Iterator[_Member]:
    """The members of an ar archive of `size` bytes. Raises PackageError: the archive is empty or truncated."""
    if file.read(len(_AR)) != _AR:
        raise PackageError(f"{file_name} is not a Debian package: it is not an ar archive")
    offset = len(_AR)
    for _ in range(_MAX_PARTS):
        header = file.read(60)
        digits = header[48:58].strip()
        offset += len(header)
        if len(header) < 60 or header[58:] != b"`\n" or not digits.isdigit() or offset + int(digits) > size:
            raise PackageError(f"{file_name} is truncated, or not a Debian package")
        yield _Member(header[:16].rstrip(b" ").rstrip(b"/").decode("ascii", "replace"), offset, int(digits))
        offset += int(digits) + int(digits) % 2
        if offset >= size:
            return
        file.seek(offset)
    raise PackageError(f"{file_name} is not a Debian package: it has more than {_MAX_PARTS} members")


def _control_file(unpacked: IO[bytes], file_name: str) -> str:
    bounded = io.BytesIO(unpacked.read(_MAX_UNPACKED + 1))
    if bounded.getbuffer().nbytes > _MAX_UNPACKED:
        raise PackageError(f"{file_name}: its `control.tar` unpacks to more than {_MAX_UNPACKED >> 20} MiB")
    with tarfile.open(fileobj=bounded, mode="r:") as archive:
        for member in archive:
            if member.isfile() and member.name.removeprefix("./") == "control":
                opened = archive.extractfile(member)
                return _text(opened.read(_MAX_TEXT) if opened else b"")
    raise PackageError(f"{file_name} is not a Debian package: its `control.tar` has no file `control`")


def _dsc(path: Path, file_name: str) -> Mapping[str, str]:
    with path.open("rb") as file:
        text = _text(file.read(_MAX_TEXT))
    if text.startswith("-----BEGIN PGP SIGNED MESSAGE-----"):
        text = text.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE-----")[0]
    return _fields(text, file_name)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").replace("\r\n", "\n")


def _fields(text: str, file_name: str) -> Mapping[str, str]:
    """The fields of the first stanza, by name. Values keep their line breaks. Raises PackageError."""
    fields: dict[str, str] = {}
    seen: set[str] = set()
    found = email.message_from_string(text.lstrip("\n")).items()
    if len(found) > _MAX_FIELDS:
        raise PackageError(f"{file_name} has more than {_MAX_FIELDS} fields")
    for name, value in found:
        if not _FIELD.fullmatch(name) or name.lower() in seen:
            raise PackageError(f"{file_name}: {name[:40]!r} is an invalid or repeated name of a field")
        seen.add(name.lower())
        fields[name] = str(value)
    return fields


def _stanza(fields: Mapping[str, str]) -> str:
    """Format the fields in their order, without the fields that an index adds. An empty line would end the stanza."""
    kept = {name: value for name, value in fields.items() if name.lower() not in _OF_INDEX}
    return "".join(f"{name}:{_fold(value)}\n" for name, value in kept.items() if value.strip())


def _fold(value: str) -> str:
    first, *more = [line.rstrip() for line in re.split(r"[\r\n]+", value)]
    lines = (line if line[0] in " \t" else f" {line}" for line in more if line)
    return "\n".join([f" {first.lstrip()}" if first else "", *lines])


def _list(fields: Mapping[str, str], name: str) -> str:
    """The lines of `Files` or of another list of a .dsc file: digest, size and name."""
    lines = (line.split() for line in fields.get(name, "").split("\n"))
    return "".join(f" {' '.join(words)}\n" for words in lines if len(words) == 3 and _PART.fullmatch(words[2]))


def _parts(fields: Mapping[str, str]) -> Sequence[str]:
    return [line.split()[2] for line in _list(fields, "Files").splitlines()]


def _version(fields: Mapping[str, str], file_name: str) -> str:
    """The version of a package. Raises PackageError: it is missing or invalid."""
    found = _require(fields, "Version", file_name)
    if not _VERSION.fullmatch(found):
        raise PackageError(f"{file_name} has an invalid version: {found[:40]!r}")
    return found


def _require(fields: Mapping[str, str], name: str, file_name: str) -> str:
    """The value of a field. Raises PackageError: it is missing or empty."""
    found = fields.get(name, "").strip()
    if not found:
        raise PackageError(f"{file_name} has no {name}")
    return found
