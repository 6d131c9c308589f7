"""The files that a project's requirements include. The image needs them before its build steps. Pure.

pip resolves `-r FILE` and `-c FILE` relative to the file that contains them (pip.pypa.io: "Requirements File Format").
conda passes the `pip:` part of an environment to pip.
"""

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

MAX_FILES = 1000
_MAX_FOLDERS = 40  # each takes an instruction, and an image has at most about 120 layers
# UTF-32 first: its mark begins with that of UTF-16
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
    """The files that the requirements or the conda environment at `root` include, directly or not, each once.

    URLs, missing files and files outside the code are left out. Raises InvalidInput: there are too many files.
    """
    found, waiting, known = list[str](), deque([root]), {root, ".."}
    while waiting:
        path = waiting.popleft()
        try:
            text = _decode(read(path))
        except (NotFound, InvalidInput):  # it is missing, or too large to be read
            continue
        found.append(path)
        lines = _pip_lines(text) if path.endswith((".yml", ".yaml")) else text
        for name in _included_names(lines):
            inner = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
            if _URL.match(name) or inner.startswith(("/", "../")) or inner in known:
                continue
            known.add(inner)
            waiting.append(inner)
            if len(known) > MAX_FILES:
                raise InvalidInput([f"`{root}` includes more than {MAX_FILES} files"])
    return [path for path in found if path != root]


def _decode(content: bytes) -> str:
    """Decodes by the byte order mark, as pip does. PowerShell writes UTF-16 with such a mark."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding, errors="replace")


def copies(paths: Iterable[str]) -> Iterator[str]:
    """The COPY instructions for these files of the code, one for each folder. Raises InvalidInput: too many folders."""
    found = groupby(sorted(paths, key=posixpath.split), posixpath.dirname)
    folders = [(folder, list(inside)) for folder, inside in found]
    if len(folders) > _MAX_FOLDERS:
        raise InvalidInput([f"the files that requirements include are in more than {_MAX_FOLDERS} folders"])
    for folder, inside in folders:
        target = f"/code/{folder}/" if folder else "/code"
        target = target if len(inside) == 1 or folder else "/code/"
        yield _copy_instruction([f"build/{path}" for path in inside], target)


def _copy_instruction(sources: list[str], target: str) -> str:
    if all(map(_PLAIN_PATH.fullmatch, (*sources, target))):
        return f"COPY {' '.join(sources)} {target}"
    return f"COPY {json.dumps([*(_escape(_exact_pattern(source)) for source in sources), _escape(target)])}"


def _exact_pattern(path: str) -> str:
    """A pattern of COPY that matches this path only."""
    return re.sub(r"[*?\[\\]", lambda sign: "\\\\" if sign[0] == "\\" else f"[{sign[0]}]", path)


def _escape(word: str) -> str:
    """The word with its variables and quotes escaped for the builder."""
    return re.sub(r"[\"'\\$]", r"\\\g<0>", word)


def _included_names(text: str) -> Iterator[str]:
    for line in _CONTINUED.sub("", text).splitlines():
        line = _COMMENT.sub("", line).strip()
        if not _OPTION.match(line):
            continue
        rest = re.split(r"[\s=]", line, maxsplit=1)[1:] if line.startswith("--") else [line[2:]]
        try:
            words = shlex.split("".join(rest))
        except ValueError:  # an unclosed quote
            continue
        yield from words[:1]


def _pip_lines(text: str) -> str:
    """The lines that conda passes to pip."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    parts = data.get("dependencies") if isinstance(data, dict) else None
    parts = parts if isinstance(parts, list) else []
    found = [part["pip"] for part in parts if isinstance(part, dict) and isinstance(part.get("pip"), list)]
    return "\n".join(str(line) for lines in found for line in lines)
