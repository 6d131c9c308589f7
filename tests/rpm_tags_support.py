"""rpm packages composed from tags, and createrepo_c's description of a package."""

from __future__ import annotations

import gzip
import struct
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polylocal.packages import rpms
from polylocal.packages.facts import Facts, IndexedFile, digests

INT16, INT32, INT64, STRING, STRINGS, I18N = 3, 4, 5, 6, 8, 9
TAGS = {
    "name": (1000, STRING),
    "version": (1001, STRING),
    "release": (1002, STRING),
    "epoch": (1003, INT32),
    "summary": (1004, I18N),
    "description": (1005, I18N),
    "buildtime": (1006, INT32),
    "buildhost": (1007, STRING),
    "size": (1009, INT32),
    "vendor": (1011, STRING),
    "license": (1014, STRING),
    "packager": (1015, STRING),
    "group": (1016, I18N),
    "url": (1020, STRING),
    "arch": (1022, STRING),
    "oldfilenames": (1027, STRINGS),
    "filemodes": (1030, INT16),
    "filedigests": (1035, STRINGS),
    "fileflags": (1037, INT32),
    "sourcerpm": (1044, STRING),
    "archivesize": (1046, INT32),
    "providename": (1047, STRINGS),
    "requireflags": (1048, INT32),
    "requirename": (1049, STRINGS),
    "requireversion": (1050, STRINGS),
    "conflictflags": (1053, INT32),
    "conflictname": (1054, STRINGS),
    "conflictversion": (1055, STRINGS),
    "changelogtime": (1080, INT32),
    "changelogname": (1081, STRINGS),
    "changelogtext": (1082, STRINGS),
    "obsoletename": (1090, STRINGS),
    "sourcepackage": (1106, INT32),
    "provideflags": (1112, INT32),
    "provideversion": (1113, STRINGS),
    "obsoleteflags": (1114, INT32),
    "obsoleteversion": (1115, STRINGS),
    "dirindexes": (1116, INT32),
    "basenames": (1117, STRINGS),
    "dirnames": (1118, STRINGS),
    "longsize": (5009, INT64),
    **{
        f"{stem}{what}": (first + place, kind)
        for stem, first in {"recommend": 5046, "suggest": 5049, "supplement": 5052, "enhance": 5055}.items()
        for place, (what, kind) in enumerate({"name": STRINGS, "version": STRINGS, "flags": INT32}.items())
    },
}
MINIMAL: Mapping[str, Any] = {
    "name": "hello",
    "version": "1.0",
    "release": "1",
    "arch": "noarch",
    "sourcerpm": "hello-1.0-1.src.rpm",
    "providename": ["hello"],
    "provideflags": [8],
    "provideversion": ["1.0-1"],
}
_LEAD = struct.pack(">4sBBHH66sHH16x", b"\xed\xab\xee\xdb", 3, 0, 0, 1, b"hello-1.0-1", 1, 5)
_FORMATS = {INT16: "H", INT32: "I", INT64: "Q"}
_NAMESPACE = "http://linux.duke.edu/metadata"

Entry = tuple[int, int, int, int]  # tag, type, offset, count


def rpm(*, signature: bytes | None = None, main: bytes | None = None, **values: Any) -> bytes:
    """A package without a payload. `values`: tags that replace those of the smallest package; None: remove the tag."""
    if signature is None:
        signature = header(*lay_out({(1007, INT32): 1234}))
    named = {TAGS[name]: value for name, value in {**MINIMAL, **values}.items() if value is not None}
    padded = signature + bytes(-len(signature) % 8)
    return _LEAD + padded + (header(*lay_out(named)) if main is None else main) + b"payload"


def header(entries: Sequence[Entry], data: bytes) -> bytes:
    index = b"".join(struct.pack(">IIiI", *entry) for entry in entries)
    return struct.pack(">4s4xII", b"\x8e\xad\xe8\x01", len(entries), len(data)) + index + data


def lay_out(values: Mapping[tuple[int, int], Any]) -> tuple[list[Entry], bytes]:
    """The index and the data of a header. `values`: (tag, type) → value."""
    entries, data = [], b""
    for (tag, kind), value in sorted(values.items()):
        packed, count = _pack(kind, value)
        data += bytes(-len(data) % struct.calcsize(_FORMATS.get(kind, "B")))
        entries.append((tag, kind, len(data), count))
        data += packed
    return entries, data


def _pack(kind: int, value: Any) -> tuple[bytes, int]:
    several = list(value) if isinstance(value, list | tuple) else [value]
    if kind in _FORMATS:
        return struct.pack(f">{len(several)}{_FORMATS[kind]}", *several), len(several)
    texts = [text if isinstance(text, bytes) else text.encode() for text in several]
    return b"".join(text + b"\0" for text in texts), len(texts)


def dependencies(stem: str, *entries: tuple[str, int, str]) -> dict[str, Any]:
    """The tags for dependencies of one kind. Each dependency: name, flags, version."""
    names, flags, versions = (list(column) for column in zip(*entries, strict=True))
    return {f"{stem}name": names, f"{stem}flags": flags, f"{stem}version": versions}


def files(*entries: tuple[str, int, int]) -> dict[str, Any]:
    """The tags for files. Each file: path, mode, flags."""
    folders = list(dict.fromkeys(path.rpartition("/")[0] + "/" for path, _, _ in entries))
    return {
        "basenames": [path.rpartition("/")[2] for path, _, _ in entries],
        "dirnames": folders,
        "dirindexes": [folders.index(path.rpartition("/")[0] + "/") for path, _, _ in entries],
        "filemodes": [mode for _, mode, _ in entries],
        "fileflags": [flags for _, _, flags in entries],
        "filedigests": [""] * len(entries),  # createrepo_c lists no files without it
    }


# -- metadata --------------------------------------------------------------------------------------------------------


def index_facts(path: Path, href: str | None = None) -> IndexedFile:
    found = digests(path)
    facts = Facts(found["sha1"], found["md5"], found["sha256"], path.stat().st_size, rpms.index_texts(path, path.name))
    return IndexedFile(path.name, href or f"pool/{facts.sha1}/{path.name}", facts)


def documents(index: Mapping[str, bytes]) -> dict[str, ET.Element]:
    """The parsed primary, filelists and other documents of an index."""
    found = {name.rpartition("-")[2].partition(".")[0]: content for name, content in index.items() if "-" in name}
    return {kind: ET.fromstring(gzip.decompress(content)) for kind, content in found.items()}


def describe(path: Path) -> dict[str, Any]:
    """A package as our index describes it."""
    return {kind: normalize(root[0]) for kind, root in documents(rpms.index([index_facts(path, "x.rpm")], 1)).items()}


def describe_by_createrepo_c(path: Path) -> dict[str, Any]:
    """A package as createrepo_c's index describes it."""
    import createrepo_c

    package = createrepo_c.package_from_rpm(str(path), createrepo_c.SHA256, "x.rpm", None, 10)
    dumped = {
        "primary": createrepo_c.xml_dump_primary(package),
        "filelists": createrepo_c.xml_dump_filelists(package),
        "other": createrepo_c.xml_dump_other(package),
    }
    return {kind: normalize(_parse_with_root(kind, text)) for kind, text in dumped.items()}


def _parse_with_root(kind: str, text: str) -> ET.Element:
    default = "common" if kind == "primary" else kind
    return ET.fromstring(f'<r xmlns="{_NAMESPACE}/{default}" xmlns:rpm="{_NAMESPACE}/rpm">{text}</r>')[0]


def normalize(element: ET.Element) -> Any:
    """Tag, attributes, text and children, without the indentation and the file's time."""
    attributes = {
        name: value for name, value in element.attrib.items() if (element.tag[-5:], name) != ("}time", "file")
    }
    return element.tag, attributes, "" if len(element) else element.text or "", [normalize(child) for child in element]
