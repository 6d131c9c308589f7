"""rpm packages: reading them, and writing the metadata of a repository (rpm-md) for dnf and yum.

The elements and their order are those of createrepo_c.
"""

import gzip
import hashlib
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from xml.sax import saxutils

from polylocal.errors import PackageError
from polylocal.packages import rpm_headers
from polylocal.packages.description import Description
from polylocal.packages.facts import IndexedFile
from polylocal.packages.rpm_headers import Header

_MAX_TEXT = 64 << 20  # characters: of the paths of a package, and of its metadata
_CHANGELOGS = 10  # entries of a package
_GHOST = 1 << 6  # RPMFILE_GHOST
_BEFORE = 1 << 6  # RPMSENSE_PREREQ: needed before the package is installed
_ANY_BEFORE = _BEFORE | 1 << 9 | 1 << 10  # RPMSENSE_SCRIPT_PRE, _SCRIPT_POST
_COMPARISON = 0xF
_COMPARISONS = {2: "LT", 4: "GT", 8: "EQ", 10: "LE", 12: "GE"}  # of RPMSENSE_LESS, _GREATER, _EQUAL
_DEPENDENCIES = {  # in the order of createrepo_c
    "provides": "provides",
    "requires": "requirename",
    "conflicts": "conflictname",
    "obsoletes": "obsoletes",
    "suggests": "suggestname",
    "enhances": "enhancename",
    "recommends": "recommendname",
    "supplements": "supplementname",
}
_NAMESPACE = "http://linux.duke.edu/metadata"
_ROOTS = {
    "primary": f'metadata xmlns="{_NAMESPACE}/common" xmlns:rpm="{_NAMESPACE}/rpm"',
    "filelists": f'filelists xmlns="{_NAMESPACE}/filelists"',
    "other": f'otherdata xmlns="{_NAMESPACE}/other"',
}

Dependency = tuple[str, int, str]  # name, flags, version


def describe(path: Path, file_name: str) -> Description:
    """Read the name and version of a package. Raises PackageError: it is damaged, or no index can list it; OSError."""
    header = _header(path, file_name)
    with _add_file_name(file_name):
        _index_texts(header)  # raises an error for a package that `index` can't list, before its publication
        return _description(header)


def index_texts(path: Path, file_name: str) -> Mapping[str, str]:
    """Return the parts of the metadata that depend only on the content of a package. Raises PackageError, OSError.

    `file_name`: for messages. The values are XML, except `name` and `arch`.
    """
    header = _header(path, file_name)
    with _add_file_name(file_name):
        return _index_texts(header)


def index(files: Sequence[IndexedFile], revision: int) -> Mapping[str, bytes]:
    """Return the metadata files by their path in the repository. The same packages in any order give the same bytes.

    `revision`: seconds since 1970, which readers compare to find the newer metadata.
    """
    ordered = sorted(files, key=lambda file: (file.name, file.path))
    packages = {
        "primary": map(_primary, ordered),
        "filelists": (_package(file, "files") for file in ordered),
        "other": (_package(file, "changelogs") for file in ordered),
    }
    found: dict[str, bytes] = {}
    records = []
    for kind, elements in packages.items():
        text = _document(kind, len(ordered), elements)
        packed = gzip.compress(text, mtime=0)
        path = f"repodata/{hashlib.sha256(packed).hexdigest()}-{kind}.xml.gz"
        found[path] = packed
        records.append(_record(kind, path, text, packed, revision))
    found["repodata/repomd.xml"] = _repomd(records, revision)
    return found


# -- reading a package -----------------------------------------------------------------------------------------------


def _header(path: Path, file_name: str) -> Header:
    with _add_file_name(file_name):
        return rpm_headers.read(path)


@contextmanager
def _add_file_name(file_name: str) -> Iterator[None]:
    """Add the name of the file to the message of a PackageError."""
    try:
        yield
    except PackageError as error:
        raise PackageError(f"{file_name} can't be read: {error}") from error


def _description(header: Header) -> Description:
    name, version, release = (_require(header, tag) for tag in ("name", "version", "release"))
    kind = "source" if header.is_source else "binary"
    return Description(name, kind, header.number("serial") or None, version, release)


def _require(header: Header, tag: str) -> str:
    found = header.text(tag)
    if not found:
        raise PackageError(f"the header has no {tag}")
    return found


def _index_texts(header: Header) -> dict[str, str]:
    found = _description(header)
    files = _files(header)
    texts = {tag: header.text(tag) for tag in ("summary", "description", "packager", "url")}
    built = header.number("buildtime")
    sizes: dict[str, str | int] = {
        "installed": header.number("longsize", "size"),
        "archive": header.number("longarchivesize", "archivesize", "payloadsize"),
    }
    version = _element("version", epoch=found.epoch or 0, ver=found.version, rel=found.release)
    kept = {
        "name": found.name,
        "arch": "src" if header.is_source else _require(header, "arch"),
        "version": version,
        # the build time stands for the file's time, so that copies of the file have the same metadata
        "texts": "".join(_element(tag, text) for tag, text in texts.items())
        + _element("time", file=built, build=built),
        "sizes": _attributes(sizes),
        "format": _format(header, files),
        "files": "".join(map(_file, files)),
        "changelogs": "".join(_changelogs(header)),
    }
    if sum(map(len, kept.values())) > _MAX_TEXT:
        raise PackageError(f"the metadata of the package has more than {_MAX_TEXT} characters")
    return kept


def _format(header: Header, files: Sequence[tuple[str, str]]) -> str:
    tags = {"license": "copyright", "vendor": "vendor", "group": "group", "buildhost": "buildhost"}
    parts = [_element(f"rpm:{name}", header.text(tag)) for name, tag in {**tags, "sourcerpm": "sourcerpm"}.items()]
    parts.append(_element("rpm:header-range", start=header.start, end=header.end))
    for kind, tag in _DEPENDENCIES.items():
        entries = rpm_headers.dependencies(header, tag)
        if kind == "requires":
            provided = {
                (name, flags & _COMPARISON, version)
                for name, flags, version in rpm_headers.dependencies(header, "provides")
            }
            entries = _reduce_requirements(entries, provided, {path for path, _ in files if _is_primary(path)})
        parts.append(_entries(kind, entries))
    parts += [_file(file) for file in files if _is_primary(file[0])]
    return "".join(parts)


def _files(header: Header) -> list[tuple[str, str]]:
    """Return the path of each file, and its type: "dir", "ghost" or ""."""
    paths = header.texts("oldfilenames") or _join_paths(header)
    modes = header.numbers("filemodes") or (0,) * len(paths)
    flags = header.numbers("fileflags") or (0,) * len(paths)
    if not len(paths) == len(modes) == len(flags):
        raise PackageError(f"the header has {len(paths)} files, {len(modes)} modes and {len(flags)} flags of files")
    return [(path, _kind(mode, flag)) for path, mode, flag in zip(paths, modes, flags, strict=True)]


def _join_paths(header: Header) -> list[str]:
    names, folders = header.texts("basenames"), header.texts("dirnames")
    indexes = header.numbers("dirindexes")
    if len(names) != len(indexes):
        raise PackageError(f"the header has {len(names)} names of files, and folders for {len(indexes)} files")
    if any(place >= len(folders) for place in indexes):
        raise PackageError(f"a file has a folder that the header lacks: the header has {len(folders)} folders")
    # the header has the name of a folder once, however many files are in it
    if sum(len(folders[place]) for place in indexes) > _MAX_TEXT:
        raise PackageError(f"the paths of the files have more than {_MAX_TEXT} characters")
    return [folders[place] + name for place, name in zip(indexes, names, strict=True)]


def _kind(mode: int, flags: int) -> str:
    if stat.S_ISDIR(mode):
        return "dir"
    return "ghost" if flags & _GHOST else ""


def _is_primary(path: str) -> bool:
    """Whether primary.xml lists the file. Readers look there first for a file that a package requires."""
    return path.startswith("/etc/") or "bin/" in path or path == "/usr/lib/sendmail"


def _file(file: tuple[str, str]) -> str:
    path, kind = file
    return _element("file", path, **({"type": kind} if kind else {}))


def _changelogs(header: Header) -> Iterator[str]:
    """Return the newest entries as XML, the oldest of these first."""
    times, authors, texts = header.numbers("changelogtime"), header.texts("authors"), header.texts("comments")
    if not len(times) == len(authors) == len(texts):
        raise PackageError(f"the changelog has {len(times)} times, {len(authors)} authors and {len(texts)} texts")
    newest = list(islice(zip(times, authors, texts, strict=True), _CHANGELOGS))
    for time, same in groupby(reversed(newest), key=itemgetter(0)):
        # readers sort entries by time, and rpm records the day only: a second makes entries of one day differ
        for later, (_, author, text) in enumerate(same):
            yield _element("changelog", text, author=author.rstrip(" "), date=time + later)


# -- dependencies ----------------------------------------------------------------------------------------------------


def _reduce_requirements(
    entries: Iterable[Dependency], provided: Collection[Dependency], files: Collection[str]
) -> list[Dependency]:
    """Remove duplicates and the requirements that the package itself or rpm provides; keep one version of libc."""
    found: dict[Dependency, None] = {}
    libc: Dependency | None = None
    newest: list[tuple[int, str]] = []  # symbols of `libc`, kept because a name can be long
    for name, flags, version in entries:
        entry = (name, flags & _COMPARISON, version)
        if name.startswith("rpmlib(") or name in files or entry in provided:
            continue
        before = _BEFORE if flags & _ANY_BEFORE else 0
        if not name.startswith("libc.so.6"):
            found[name, entry[1] | before, version] = None
        elif (symbols := _symbols(name)) > newest or libc is None:
            newest = symbols
            libc = (name, entry[1] | before, version)  # a libc with the newest symbols has the older ones
    return [*found, libc] if libc else list(found)


def _symbols(name: str) -> list[tuple[int, str]]:
    """The version of symbols of libc, as a key to sort by: `libc.so.6(GLIBC_2.34)(64bit)` is version 2, 34."""
    inside = name.partition("(")[2].partition(")")[0]
    numbers = (number.lstrip("0") for number in re.findall(r"[0-9]+", inside))
    return [(len(number), number) for number in numbers]


def _entries(kind: str, entries: Sequence[Dependency]) -> str:
    inside = "".join(_entry(kind, *entry) for entry in entries if entry[0])
    return f"<rpm:{kind}>\n{inside}</rpm:{kind}>\n" if inside else ""


def _entry(kind: str, name: str, flags: int, version: str) -> str:
    found: dict[str, str | int] = {"name": name}
    comparison = _COMPARISONS.get(flags & _COMPARISON)
    if comparison:
        found |= {"flags": comparison, **_parts(version)}
    if kind == "requires" and flags & _BEFORE:
        found["pre"] = 1
    return _element("rpm:entry", **found)


def _parts(text: str) -> dict[str, str]:
    """Split `2:1.0-3` into epoch, version and release. Empty parts are left out; the epoch is 0 by default."""
    if not text:
        return {}
    epoch, colon, rest = text.partition(":")
    if not colon or epoch.strip("0123456789"):
        epoch, rest = "", text
    version, _, release = rest.partition("-")
    found = {"epoch": epoch or "0", "ver": version, "rel": release}
    return {name: value for name, value in found.items() if value}


# -- metadata --------------------------------------------------------------------------------------------------------


def _primary(file: IndexedFile) -> str:
    facts = file.facts
    kept = facts.about
    return (
        '<package type="rpm">\n'
        + _element("name", kept["name"])
        + _element("arch", kept["arch"])
        + kept["version"]
        + _element("checksum", facts.sha256, type="sha256", pkgid="YES")
        + kept["texts"]
        + f'<size package="{facts.size}" {kept["sizes"]}/>\n'
        + _element("location", href=file.path)  # not quoted as a URL: readers of local repositories open it as a path
        + f"<format>\n{kept['format']}</format>\n</package>\n"
    )


def _package(file: IndexedFile, part: str) -> str:
    kept = file.facts.about
    package = _attributes({"pkgid": file.facts.sha256, "name": kept["name"], "arch": kept["arch"]})
    return f"<package {package}>\n{kept['version']}{kept[part]}</package>\n"


def _document(kind: str, count: int, packages: Iterable[str]) -> bytes:
    root = _ROOTS[kind]
    name = root.partition(" ")[0]
    inside = "".join(packages)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} packages="{count}">\n{inside}</{name}>\n'.encode()


def _record(kind: str, path: str, text: bytes, packed: bytes, revision: int) -> str:
    return (
        f'<data type="{kind}">\n'
        + _element("checksum", hashlib.sha256(packed).hexdigest(), type="sha256")
        + _element("open-checksum", hashlib.sha256(text).hexdigest(), type="sha256")
        + _element("location", href=path)
        + _element("timestamp", str(revision))
        + _element("size", str(len(packed)))
        + _element("open-size", str(len(text)))
        + "</data>\n"
    )


def _repomd(records: Iterable[str], revision: int) -> bytes:
    root = f'repomd xmlns="{_NAMESPACE}/repo" xmlns:rpm="{_NAMESPACE}/rpm"'
    inside = _element("revision", str(revision)) + "".join(records)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>\n{inside}</repomd>\n'.encode()


def _element(name: str, text: str = "", /, **attributes: str | int) -> str:
    head = f"{name} {_attributes(attributes)}" if attributes else name
    if not text:
        return f"<{head}/>\n"
    # a parser of XML replaces a plain carriage return with a line feed
    return f"<{head}>{saxutils.escape(text, {chr(13): '&#13;'})}</{name}>\n"


def _attributes(values: Mapping[str, str | int]) -> str:
    return " ".join(f"{name}={saxutils.quoteattr(str(value))}" for name, value in values.items())
