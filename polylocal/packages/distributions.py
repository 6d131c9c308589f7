"""Python distributions: reading wheels and source distributions, and the index that pip and uv install them from.

The index follows the Simple Repository API 1.1 of the Python Packaging User Guide: PEP 503 (pages), PEP 592 (yanked
files), PEP 629 (version of the API), PEP 658 and 714 (metadata files), PEP 691 and 700 (JSON).
"""

from __future__ import annotations

import hashlib
import html
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from packaging.utils import InvalidName, canonicalize_name

from polylocal.packages.description import Description
from polylocal.packages.facts import IndexedFile
from polylocal.packages.tools import ToolError

API_VERSION = "1.1"
_WHEEL, _SDIST = ".whl", ".tar.gz"
_MOST_METADATA = 1 << 22  # bytes
_MOST_MEMBERS, _MOST_UNPACKED = 100_000, 1 << 30  # of an archive that is searched; bytes
# A text in a database must be valid Unicode, and clients compare the digest of the exact bytes of a metadata file.
# In this encoding each byte is one character, and every sequence of bytes is a text.
_BYTES_AS_TEXT = "iso-8859-1"


def describe(path: Path, file_name: str) -> Description | None:
    """What a distribution says of itself; None: the file is no distribution. Raises ToolError: it is a broken one."""
    content = _metadata(path, file_name)
    return None if content is None else _described(content, file_name)


def about(path: Path, file_name: str) -> Mapping[str, str]:
    """What the index needs to know of a file: the texts for `Facts.about`. Raises ToolError, as `describe` does.

    The keys are `name` and `version`; and `requires_python` and `metadata`, where there is such a thing. `metadata` is
    the file METADATA of a wheel: each character stands for one byte (ISO 8859-1), so that the bytes are kept exactly.
    A wheel with more than 4 MiB of it has none. The mapping is empty for a file that is no distribution.
    """
    content = _metadata(path, file_name)
    if content is None:
        return {}
    found = _described(content, file_name)
    texts = {"name": found.name, "version": found.version}
    if found.requires_python:
        texts["requires_python"] = found.requires_python
    if file_name.endswith(_WHEEL) and len(content) <= _MOST_METADATA:
        texts["metadata"] = content.decode(_BYTES_AS_TEXT)
    return texts


# -- reading ---------------------------------------------------------------------------------------------------------


def _metadata(path: Path, file_name: str) -> bytes | None:
    """The core metadata of a distribution: the whole, or one byte more than is kept. None: it is no distribution."""
    try:
        if file_name.endswith(_WHEEL):
            return _of_wheel(path, file_name)
        return _of_sdist(path, file_name) if file_name.endswith(_SDIST) else None
    except ToolError:
        raise
    except Exception as error:  # an archive can be broken in every way, and each library has errors of its own for that
        raise ToolError(f"{file_name} can't be read: {type(error).__name__}: {error}") from error


def _of_wheel(path: Path, file_name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = {n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA")}
        if not names:
            raise ToolError(f"{file_name} is no wheel: it has no METADATA")
        if len(names) > 1:  # pip refuses such a wheel
            raise ToolError(f"{file_name} has more than one METADATA: {', '.join(sorted(names)[:5])}")
        with archive.open(names.pop()) as file:
            return file.read(_MOST_METADATA + 1)


def _of_sdist(path: Path, file_name: str) -> bytes | None:
    """A tar.gz without PKG-INFO in its top folder is some other archive."""
    with tarfile.open(path, "r:gz") as archive:
        for number, member in enumerate(archive):
            if number >= _MOST_MEMBERS or member.offset_data + member.size > _MOST_UNPACKED:
                raise ToolError(f"{file_name} holds more than is looked through for its PKG-INFO")
            if member.isfile() and member.name.count("/") == 1 and member.name.endswith("/PKG-INFO"):
                opened = archive.extractfile(member)
                return opened.read(_MOST_METADATA + 1) if opened else b""
    return None


def _described(content: bytes, file_name: str) -> Description:
    from packaging.metadata import parse_email  # takes 50 ms to import: a daemon's start does not wait for it

    try:
        fields, others = parse_email(content[:_MOST_METADATA])
    except Exception as error:  # of the parsers of emails, which do not say what they raise
        raise ToolError(f"{file_name}: its metadata can't be read: {type(error).__name__}: {error}") from error
    said = {"Name": fields.get("name"), "Version": fields.get("version")}
    texts = {field: (value or "").strip() for field, value in said.items()}
    for field, text in texts.items():
        if not text:
            is_repeated = len(others.get(field.lower(), ())) > 1
            raise ToolError(f"{file_name} {'says more than once' if is_repeated else 'does not say'} its {field}")
    try:
        canonicalize_name(texts["Name"], validate=True)
    except InvalidName as error:
        raise ToolError(f"{file_name}: {texts['Name'][:40]!r} is no name of a Python package") from error
    python = " ".join((fields.get("requires_python") or "").split())  # a folded header has line ends
    kind = "binary" if file_name.endswith(_WHEEL) else "source"
    return Description(texts["Name"], kind, None, texts["Version"], "", requires_python=python or None)


# -- the index -------------------------------------------------------------------------------------------------------


def index(files: Sequence[IndexedFile]) -> Mapping[str, bytes]:
    """The files of the index by their paths below the folder of the repository. Pure.

    `simple/` has a page as HTML and as JSON, and so has each project below it. The metadata of a wheel lies beside the
    wheel, as `<path>.metadata`. Files that are no distributions are not in the index.
    """
    projects: dict[str, list[IndexedFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        if file.name.endswith((_WHEEL, _SDIST)) and "name" in file.facts.about:
            projects.setdefault(canonicalize_name(file.facts.about["name"], validate=True), []).append(file)
    made = {"simple/index.html": _root_page(projects), "simple/index.json": _root_json(projects)}
    for name, held in sorted(projects.items()):
        made[f"simple/{name}/index.html"] = _project_page(name, held)
        made[f"simple/{name}/index.json"] = _project_json(name, held)
        for file in held:
            content = _kept_metadata(file)
            if content is not None:
                made[f"{file.path}.metadata"] = content
    return made


def _kept_metadata(file: IndexedFile) -> bytes | None:
    text = file.facts.about.get("metadata")
    return None if text is None else text.encode(_BYTES_AS_TEXT)


def _metadata_digest(file: IndexedFile) -> str | None:
    content = _kept_metadata(file)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _url(file: IndexedFile) -> str:
    """Relative to the page of a project."""
    return f"../../{quote(file.path)}"


def _root_page(projects: Mapping[str, object]) -> bytes:
    anchors = [f'<a href="{quote(name)}/">{html.escape(name)}</a><br>\n' for name in sorted(projects)]
    return _page("Simple index", anchors)


def _project_page(name: str, files: Sequence[IndexedFile]) -> bytes:
    return _page(f"Links for {name}", [_anchor(file) for file in files])


def _anchor(file: IndexedFile) -> str:
    attributes = {"href": f"{_url(file)}#sha256={file.facts.sha256}"}
    if python := file.facts.about.get("requires_python"):
        attributes["data-requires-python"] = python
    if digest := _metadata_digest(file):
        attributes["data-core-metadata"] = f"sha256={digest}"
        attributes["data-dist-info-metadata"] = f"sha256={digest}"  # the name of PEP 658, for pip before 23.2
    if file.yanked is not None:
        attributes["data-yanked"] = file.yanked
    said = " ".join(f'{attribute}="{html.escape(value)}"' for attribute, value in attributes.items())
    return f"<a {said}>{html.escape(file.name)}</a><br>\n"


def _page(title: str, anchors: Sequence[str]) -> bytes:
    version = f'<meta name="pypi:repository-version" content="{API_VERSION}">'
    head = f'<meta charset="utf-8">{version}<title>{html.escape(title)}</title>'
    body = "".join(anchors)
    return f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{body}</body></html>\n".encode()


def _root_json(projects: Mapping[str, object]) -> bytes:
    return _json({"projects": [{"name": name} for name in sorted(projects)]})


def _project_json(name: str, files: Sequence[IndexedFile]) -> bytes:
    versions = sorted({file.facts.about["version"] for file in files})
    return _json({"name": name, "versions": versions, "files": [_entry(file) for file in files]})


def _entry(file: IndexedFile) -> dict[str, object]:
    entry: dict[str, object] = {
        "filename": file.name,
        "url": _url(file),
        "hashes": {"sha256": file.facts.sha256},
        "size": file.facts.size,
    }
    if python := file.facts.about.get("requires_python"):
        entry["requires-python"] = python
    if digest := _metadata_digest(file):
        # not under the name of PEP 658 as well: pip 22.3 to 23.0 fails where JSON has it
        entry["core-metadata"] = {"sha256": digest}
    if file.yanked is not None:
        entry["yanked"] = file.yanked or True
    return entry


def _json(values: Mapping[str, object]) -> bytes:
    return json.dumps({"meta": {"api-version": API_VERSION}, **values}, separators=(",", ":")).encode()
