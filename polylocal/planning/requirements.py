"""Files that the requirements of a project include, so that they are in the image before the build steps. Pure.

pip reads `-r FILE` and `-c FILE` relative to the file that they stand in (pip.pypa.io: "Requirements File Format"), and
conda passes the `pip:` part of an environment to it.
"""

from __future__ import annotations

import codecs
import json
import posixpath
import re
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import yaml

from polylocal.errors import InvalidInput, NotFound

MOST_FILES = 1000
_MOST_FOLDERS = 40  # an instruction each, and an image has about 120 layers at most
# that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
_COMMENT = re.compile(r"(^|\s)#.*$")
_CONTINUED = re.compile(r"\\\r?\n")
_OPTION = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:$|[\s=])|-[rc]\S")
_URL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_PLAIN_PATH = re.compile(r"[\w./+@~-]+", re.ASCII)

Read = Callable[[str], bytes]  # the content of a file by its path in the code; raises NotFound


def includes(root: str, read: Read) -> list[str]:
    """The files that a file of requirements, or an environment of conda, includes, each once, without itself.

    Addresses, and files outside of the code or not in it, are left out. Raises InvalidInput: they are too many.
    """
    found, waiting, known = list[str](), deque([root]), {root, ".."}
    while waiting:
        path = waiting.popleft()
        try:
            text = _text(read(path))
        except (NotFound, InvalidInput):  # none, or one that is too large to be looked through
            continue
        found.append(path)
        lines = _lines_of_conda(text) if path.endswith((".yml", ".yaml")) else text
        for name in _named(lines):
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
            if _URL.match(name) or inner.startswith(("/", "../")) or inner in known:
                continue
            known.add(inner)
            waiting.append(inner)
            if len(known) > MOST_FILES:
                raise InvalidInput([f"`{root}` includes more than {MOST_FILES} files"])
    return [path for path in found if path != root]


def _text(content: bytes) -> str:
    """As pip reads it: by its byte order mark, which PowerShell writes with UTF-16."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors="replace")


def copies(paths: Iterable[str]) -> Iterator[str]:
    """The COPY instructions that put files of the code in their places, one a folder. Raises InvalidInput."""
    folders = [(folder, list(inside)) for folder, inside in groupby(sorted(paths, key=_split), posixpath.dirname)]
    if len(folders) > _MOST_FOLDERS:
        raise InvalidInput([f"the files that requirements include are in more than {_MOST_FOLDERS} folders"])
    for folder, inside in folders:
        target = f"/code/{folder}/" if folder else "/code"
        yield _copy([f"build/{path}" for path in inside], target if len(inside) == 1 or folder else "/code/")


def _split(path: str) -> tuple[str, str]:
    return posixpath.split(path)


def _copy(sources: list[str], target: str) -> str:
    if all(map(_PLAIN_PATH.fullmatch, (*sources, target))):
        return f"COPY {' '.join(sources)} {target}"
    return f"COPY {json.dumps([*(_literal(_pattern(source)) for source in sources), _literal(target)])}"


def _pattern(path: str) -> str:
    """A path as a pattern that only it matches."""
    return re.sub(r"[*?\[\\]", lambda sign: "\\\\" if sign[0] == "\\" else f"[{sign[0]}]", path)


def _literal(word: str) -> str:
    """A word in which a builder finds no variables and no quotes."""
    return re.sub(r"[\"'\\$]", r"\\\g<0>", word)


def _named(text: str) -> Iterator[str]:
    """The files behind `-r` and `-c`."""
    for line in _CONTINUED.sub("", text).splitlines():
        line = _COMMENT.sub("", line).strip()
        if not _OPTION.match(line):
            continue
        rest = re.split(r"[\s=]", line, maxsplit=1)[1:] if line.startswith("--") else [line[2:]]
        try:
            words = shlex.split("".join(rest))
        except ValueError:  # a quote without an end
            continue
        yield from words[:1]


def _lines_of_conda(text: str) -> str:
    """What an environment passes to pip."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    parts = data.get("dependencies") if isinstance(data, dict) else None
    parts = parts if isinstance(parts, list) else []
    found = [part["pip"] for part in parts if isinstance(part, dict) and isinstance(part.get("pip"), list)]
    return "\n".join(str(line) for lines in found for line in lines)
