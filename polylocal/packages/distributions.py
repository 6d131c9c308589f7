"""Python distributions: reading wheels and source distributions, and the index that pip and uv install them from.

The index follows the Simple Repository API 1.1 of the Python Packaging User Guide: PEP 503 (pages), PEP 592 (yanked
files), PEP 629 (version of the API), PEP 658 and 714 (metadata files), PEP 691 and 700 (JSON).
"""

import hashlib
import html
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from functools import cached_property
from io import FileIO
from pathlib import Path
from urllib.parse import quote

from polylocal.errors import PackageError
from polylocal.files.disk import is_transient
from polylocal.packages.description import Description
from polylocal.packages.facts import IndexedFile

API_VERSION = "1.1"
_WHEEL, _SDIST = ".whl", ".tar.gz"
_MAX_METADATA = 1 << 22  # bytes
_MAX_FIELDS = 1000  # the specification has about 40
_MAX_DIRECTORY = 1 << 24  # bytes: that of a wheel with 100,000 files
_MAX_MEMBERS, _MAX_UNPACKED = 100_000, 1 << 30  # of a source distribution; bytes
# A text in a database must be valid Unicode, and clients compare the digest of the exact bytes of a metadata file.
# In this encoding each byte is one character, and every sequence of bytes is a text.
_BYTES_AS_TEXT = "iso-8859-1"


def describe(path: Path, file_name: str) -> Description | None:
    """Read the description of a distribution. None: the file is not one. Raises PackageError: it is broken."""
    content = _metadata(path, file_name)
    return None if content is None else _parse(content, file_name)


def index_texts(path: Path, file_name: str) -> Mapping[str, str]:
    """Read the texts for `Facts.about`. Raises PackageError, as `describe` does.

    The keys are `name` and `version`, and optionally `requires_python` and `metadata`. `metadata` is the file METADATA
    of a wheel, up to 4 MiB: each character stands for one byte (ISO 8859-1), which keeps the bytes exactly. The mapping
    is empty for a file that is not a distribution.
    """
    content = _metadata(path, file_name)
    if content is None:
        return {}
    found = _parse(content, file_name)
    texts = {"name": found.name, "version": found.version}
    if found.requires_python:
        texts["requires_python"] = found.requires_python
    if file_name.endswith(_WHEEL) and len(content) <= _MAX_METADATA:
        texts["metadata"] = content.decode(_BYTES_AS_TEXT)
    return texts


# -- reading ---------------------------------------------------------------------------------------------------------


def _metadata(path: Path, file_name: str) -> bytes | None:
    """The core metadata of a distribution, at most one byte more than the limit. None: the file is not one."""
    try:
        if file_name.endswith(_WHEEL):
            return _wheel_metadata(path, file_name)
        return _sdist_metadata(path, file_name) if file_name.endswith(_SDIST) else None
    except PackageError:
        raise
    except Exception as error:  # each library raises its own errors for a broken archive
        if is_transient(error):
            raise
        raise PackageError(f"{file_name} can't be read: {type(error).__name__}: {error}") from error


class _LimitedFile(FileIO):
    """A file that limits single reads: zipfile reads the directory of an archive at once, and its objects take ten
    times that memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory has {size} bytes, more than {_MAX_DIRECTORY}")
        return super().read(size) or b""


def _wheel_metadata(path: Path, file_name: str) -> bytes:
    with _LimitedFile(path) as opened, zipfile.ZipFile(opened) as archive:
        names = {n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA")}
        if not names:
            raise PackageError(f"{file_name} is not a wheel: it has no METADATA")
        if len(names) > 1:  # pip refuses such a wheel
            raise PackageError(f"{file_name} has more than one METADATA: {', '.join(sorted(names)[:5])}")
        with archive.open(names.pop()) as file:
            return file.read(_MAX_METADATA + 1)


def _sdist_metadata(path: Path, file_name: str) -> bytes | None:
    """The file PKG-INFO in the top folder of a source distribution. None: other archives have no such file."""
    with tarfile.open(path, "r:gz") as archive:
        for number, member in enumerate(archive):
            if number >= _MAX_MEMBERS or member.offset_data + member.size > _MAX_UNPACKED:
                raise PackageError(f"{file_name} is too large to search for PKG-INFO")
            if member.isfile() and member.name.count("/") == 1 and member.name.endswith("/PKG-INFO"):
                opened = archive.extractfile(member)
                return opened.read(_MAX_METADATA + 1) if opened else b""
    return None


def _parse(content: bytes, file_name: str) -> Description:
    # these take 50 ms to import: a daemon's start does not wait for them
    from packaging.metadata import parse_email
    from packaging.utils import InvalidName, canonicalize_name

    kept = content[:_MAX_METADATA]
    try:
        # the time that parse_email takes grows with the square of the number of different fields
        is_too_much = len(set(BytesHeaderParser().parsebytes(kept).keys())) > _MAX_FIELDS
        fields, others = ({}, {}) if is_too_much else parse_email(kept)
    except Exception as error:  # the parsers of emails do not document their errors
        raise PackageError(f"{file_name}: its metadata can't be read: {type(error).__name__}: {error}") from error
    if is_too_much:
        raise PackageError(f"{file_name}: its metadata has more than {_MAX_FIELDS} different fields")
    said = {"Name": fields.get("name"), "Version": fields.get("version")}
    texts = {field: (value or "").strip() for field, value in said.items()}
    for field, text in texts.items():
        if not text:
            is_repeated = len(others.get(field.lower(), ())) > 1
            raise PackageError(f"{file_name} has {'more than one' if is_repeated else 'no'} {field}")
    try:
        canonicalize_name(texts["Name"], validate=True)
    except InvalidName as error:
        raise PackageError(f"{file_name}: {texts['Name'][:40]!r} is not the name of a Python package") from error
    python = " ".join((fields.get("requires_python") or "").split())  # a folded header has line ends
    kind = "binary" if file_name.endswith(_WHEEL) else "source"
    return Description(texts["Name"], kind, None, texts["Version"], "", requires_python=python or None)


# -- the index -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Link:
    """A distribution in the index. It computes the metadata and its digest once for all pages."""

    file: IndexedFile

    @cached_property
    def metadata(self) -> bytes | None:
        text = self.file.facts.about.get("metadata")
        return None if text is None else text.encode(_BYTES_AS_TEXT)

    @cached_property
    def metadata_digest(self) -> str | None:
        return None if self.metadata is None else hashlib.sha256(self.metadata).hexdigest()

    @property
    def url(self) -> str:
        """The URL of the file, relative to the page of its project."""
        return f"../../{quote(self.file.path)}"

    @property
    def python(self) -> str | None:
        return self.file.facts.about.get("requires_python")


def index(files: Sequence[IndexedFile]) -> Mapping[str, bytes]:
    """The files of the index by their paths relative to the folder of the repository. Pure.

    `simple/` has a page as HTML and as JSON, and so has each project below it. The metadata of a wheel is the file
    `<path>.metadata`. The index ignores other files.
    """
    from packaging.utils import canonicalize_name

    projects: dict[str, list[_Link]] = {}
    for file in sorted(files, key=lambda file: file.name):
        if file.name.endswith((_WHEEL, _SDIST)) and "name" in file.facts.about:
            project = canonicalize_name(file.facts.about["name"], validate=True)
            projects.setdefault(project, []).append(_Link(file))
    names = sorted(projects)
    links = [f'<a href="{quote(name)}/">{html.escape(name)}</a><br>\n' for name in names]
    made = {"simple/index.html": _page("Simple index", links)}
    made["simple/index.json"] = _json({"projects": [{"name": name} for name in names]})
    for name in names:
        made[f"simple/{name}/index.html"] = _page(f"Links for {name}", map(_anchor, projects[name]))
        made[f"simple/{name}/index.json"] = _project_json(name, projects[name])
        for link in projects[name]:
            if link.metadata is not None:
                made[f"{link.file.path}.metadata"] = link.metadata
    return made


def _anchor(link: _Link) -> str:
    file = link.file
    attributes = {"href": f"{link.url}#sha256={file.facts.sha256}"}
    if link.python:
        attributes["data-requires-python"] = link.python
    if link.metadata_digest:
        attributes["data-core-metadata"] = f"sha256={link.metadata_digest}"
        # the name of PEP 658, before PEP 714
        attributes["data-dist-info-metadata"] = attributes["data-core-metadata"]
    if file.yanked is not None:
        attributes["data-yanked"] = file.yanked
    said = " ".join(f'{attribute}="{html.escape(value)}"' for attribute, value in attributes.items())
    return f"<a {said}>{html.escape(file.name)}</a><br>\n"


def _page(title: str, anchors: Iterable[str]) -> bytes:
    version = f'<meta name="pypi:repository-version" content="{API_VERSION}">'
    head = f'<meta charset="utf-8">{version}<title>{html.escape(title)}</title>'
    body = "".join(anchors)
    return f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{body}</body></html>\n".encode()


def _project_json(name: str, held: Sequence[_Link]) -> bytes:
    versions = sorted({link.file.facts.about["version"] for link in held})
    return _json({"name": name, "versions": versions, "files": [_entry(link) for link in held]})


def _entry(link: _Link) -> dict[str, object]:
    file = link.file
    entry: dict[str, object] = {
        "filename": file.name,
        "url": link.url,
        "hashes": {"sha256": file.facts.sha256},
        "size": file.facts.size,
    }
    if link.python:
        entry["requires-python"] = link.python
    if link.metadata_digest:
        # not under the name of PEP 658 as well: pip 22.3 to 23.0 fails where JSON has it
        entry["core-metadata"] = {"sha256": link.metadata_digest}
    if file.yanked is not None:
        entry["yanked"] = file.yanked or True
    return entry


def _json(values: Mapping[str, object]) -> bytes:
    return json.dumps({"meta": {"api-version": API_VERSION}, **values}, separators=(",", ":")).encode()
