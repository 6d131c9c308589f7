"""Combines polyaxonfiles and the options that override them into one text for the daemon."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polylocal.errors import InvalidInput, InvalidPolyaxonfile, SetupError
from polylocal.statuses import POLYAXON_KINDS, Kind

NAMES = ("polyaxonfile.yml", "polyaxonfile.yaml", "polyaxonfile.json")
PARAM, VARIABLE, NAME = "-P", "-e", "--name"  # messages name an option as they name a file
_KINDS = f"files of version 1 run here, of the kinds {', '.join(POLYAXON_KINDS)}."
_OTHER_KIND = f"`{{}}` is not a kind that runs here; {_KINDS}"
_NO_KIND = f"The Polyaxonfile `kind` must be specified; {_KINDS}"
_ESCAPED = re.compile("[\x7f-\uffff]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')  # in JSON


@dataclass(frozen=True)
class Options:
    """Options that override a polyaxonfile: `-P`, `-e`, and a `--name` with templates."""

    params: Sequence[str] = ()
    variables: Sequence[str] = ()
    name: str | None = None

    def documents(self, key_of_params: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(option, document to merge) for each option that was given. Raises InvalidInput."""
        yield from ((PARAM, {key_of_params: {name: value}}) for name, value in map(_param, self.params))
        for name, text in (_variable(given, os.environ) for given in self.variables):
            yield VARIABLE, {"environment": {"env_vars": {name: text}}}
        if self.name is not None:
            yield NAME, {"name": self.name}


@dataclass(frozen=True)
class Written:
    """A polyaxonfile combined from files and options. `files` has the name and first line of each part of `text`."""

    text: str
    files: Sequence[tuple[str, int]]

    @property
    def body(self) -> dict[str, Any]:
        """The fields of a request body."""
        return {"content": self.text, "files": [{"name": name, "line": line} for name, line in self.files]}


def find(given: Sequence[Path] | None) -> list[Path]:
    """The absolute paths of the given files, or of the polyaxonfile in the working folder. Raises SetupError."""
    found = list(given or []) or [path for path in map(Path, NAMES) if path.exists()][:1]
    if not found:
        raise SetupError(f"there is no polyaxonfile in this folder ({', '.join(NAMES)}); name one with -f")
    for path in found:
        if not path.is_file():
            raise SetupError(f"there is no file {path}")
    return [path.absolute() for path in found]


def has_template(text: str | None) -> bool:
    from polylocal.polyaxonfile import templating

    return text is not None and templating.has_template(text)


def combine(paths: Sequence[Path], options: Options = Options()) -> Written:
    """Combine files and options into one YAML text of several documents; later ones override earlier ones.

    Raises InvalidInput.
    """
    from polylocal.polyaxonfile import merge, read

    files: list[tuple[str, str, dict[str, Any]]] = []
    merged: dict[str, Any] = {}
    for path in paths:
        text = _text(path)
        try:
            files.append((path.name, text, read(text)[0]))
        except InvalidPolyaxonfile as error:
            raise InvalidInput([f"{path.name}, {problem}" for problem in error.problems]) from error
        merged = merge(merged, files[-1][2])
    key = "declarations" if "declarations" in merged else "params"
    added = [(option, _json(document)) for option, document in options.documents(key)]
    if len(files) == 1 and not added:
        return Written(files[0][1], [(files[0][0], 1)])
    whole, places = "", []
    for name, text in [*((name, _as_yaml(text, data)) for name, text, data in files), *added]:
        if whole:
            whole += ("" if whole.endswith("\n") else "\n") + ("...\n" if text.startswith("%") else "---\n")
        places.append((name, whole.count("\n") + 1))
        whole += text
    return Written(whole, places)


def kind_of(written: Written) -> Kind:
    """Check a polyaxonfile before it is sent. Raises InvalidInput with every problem and its place."""
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


def _variable(given: str, shell: Mapping[str, str]) -> tuple[str, str]:
    """(name, value) of `K=V`, or of `K` with its value in this shell, which is not rendered as a template."""
    name, sign, text = given.partition("=")
    if not name.strip():
        raise InvalidInput([f"{VARIABLE} takes NAME=VALUE, or the NAME of a variable of this shell, not `{given}`"])
    if not sign and name not in shell:
        raise InvalidInput([f"{VARIABLE} {name}: this shell has no variable of that name; write {name}=VALUE"])
    text = text if sign else shell[name]
    try:
        f"{name}{text}".encode()
    except UnicodeEncodeError as error:
        raise InvalidInput([f"{VARIABLE} {name}: the value is not valid UTF-8"]) from error
    return name, text if sign else _escape_template(text)


def _escape_template(text: str) -> str:
    """A template that renders to `text`."""
    if not has_template(text):
        return text
    literal = text.encode("unicode_escape").decode().replace('"', r"\"")
    return f'{{{{ "{literal}" }}}}'


def _as_yaml(text: str, data: dict[str, Any]) -> str:
    """A polyaxonfile as YAML. JSON and Python literals keep their line numbers if YAML can read them."""
    from polylocal.polyaxonfile import read

    if not text.lstrip().startswith(("{", "[")):
        return text
    for rewritten in (str, _rewrite_json):
        with suppress(InvalidPolyaxonfile, ValueError):
            if read(f"---\n{rewritten(text)}")[0] == data:
                return rewritten(text)
    return _json(data)


def _rewrite_json(text: str) -> str:
    """JSON without the tabs and escapes that YAML rejects. Raises ValueError."""
    return _STRING.sub(lambda found: _json(json.loads(found[0])), text).expandtabs(1)


def _json(document: object) -> str:
    """JSON that YAML reads too: YAML has no surrogate pairs, and accepts some characters only as escapes."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(document, ensure_ascii=False))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidInput([f"there is no file {path}"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput([f"can't read {path.name} as text: {error}"]) from error
