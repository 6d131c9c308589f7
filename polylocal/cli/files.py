"""Polyaxonfiles on the command line: several of them, and values by `-P`, as one text for the daemon."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polylocal.errors import InvalidInput, InvalidPolyaxonfile, SetupError
from polylocal.statuses import POLYAXON_KINDS, Kind

NAMES = ("polyaxonfile.yml", "polyaxonfile.yaml", "polyaxonfile.json")
PARAM = "-P"  # stands for a file in messages
_KINDS = f"files of version 1 run here, of the kinds {', '.join(POLYAXON_KINDS)}."
_OTHER_KIND = f"`{{}}` is not a kind that runs here; {_KINDS}"
_NO_KIND = f"The Polyaxonfile `kind` must be specified; {_KINDS}"


@dataclass(frozen=True)
class Written:
    """A polyaxonfile put together from files and options; `files` are their names and first lines in the text."""

    text: str
    files: Sequence[tuple[str, int]]

    @property
    def body(self) -> dict[str, Any]:
        """What a request says of it."""
        return {"content": self.text, "files": [{"name": name, "line": line} for name, line in self.files]}


def find(given: Sequence[Path] | None) -> list[Path]:
    """The files that a person named, or the one in the working folder. Raises SetupError."""
    found = list(given or []) or [path for path in map(Path, NAMES) if path.exists()][:1]
    if not found:
        raise SetupError(f"no polyaxonfile here ({', '.join(NAMES)}); name one with -f")
    for path in found:
        if not path.is_file():
            raise SetupError(f"there is no file {path}")
    return [path.absolute() for path in found]


def put_together(paths: Sequence[Path], params: Sequence[str] = ()) -> Written:
    """Files and options as the documents of one YAML text: later ones go over earlier ones. Raises InvalidInput."""
    from polylocal.polyaxonfile import merge, read

    texts = [(path.name, _text(path)) for path in paths]
    merged: dict[str, Any] = {}
    for name, text in texts:
        try:
            merged = merge(merged, read(text)[0])
        except InvalidPolyaxonfile as error:
            raise InvalidInput([f"{name}, {problem}" for problem in error.problems]) from error
    key = "declarations" if "declarations" in merged else "params"
    texts += [(PARAM, json.dumps({key: {name: value}})) for name, value in map(_param, params)]
    if len(texts) == 1:
        return Written(texts[0][1], [(texts[0][0], 1)])
    whole, files = "", []
    for name, text in texts:
        if whole:
            whole += ("" if whole.endswith("\n") else "\n") + ("...\n" if text.startswith("%") else "---\n")
        files.append((name, whole.count("\n") + 1))
        whole += text.expandtabs(1) if text.lstrip().startswith("{") else text  # YAML takes no tabs between values
    return Written(whole, files)


def kind_of(written: Written) -> Kind:
    """Checks a polyaxonfile before anything is sent. Raises InvalidInput with every problem and its place."""
    from polylocal.polyaxonfile import Source, SourceFile, parse, read

    files = [SourceFile(name, line) for name, line in written.files]
    try:
        data, lines = read(written.text)
        word = data.get("kind")
        if not isinstance(word, str) or word not in set(POLYAXON_KINDS):
            path, problem = (("kind",), _OTHER_KIND.format(word)) if "kind" in data else ((), _NO_KIND)
            raise InvalidPolyaxonfile([Source(lines, files).sentence(path, problem)])
        parse(written.text, Kind(word), files=files)
    except InvalidPolyaxonfile as error:
        raise InvalidInput(list(error.problems)) from error
    return Kind(word)


def _param(given: str) -> tuple[str, object]:
    from polylocal.polyaxonfile import value

    name, sign, text = given.partition("=")
    if not sign or not name.strip():
        raise InvalidInput([f"{PARAM} takes name=value, not `{given}`"])
    return name.strip(), value(text)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidInput([f"there is no file {path}"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput([f"{path.name} can't be read as text: {error}"]) from error
