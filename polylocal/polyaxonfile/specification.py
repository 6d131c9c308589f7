"""A polyaxonfile, checked and compiled: what the runner works from. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import reader, templating
from polylocal.polyaxonfile.models import WITHOUT_EFFECT, Build, BuildFile, Environment, Header, JobFile
from polylocal.statuses import Kind

MODELS: dict[Kind, type[JobFile] | type[BuildFile]] = {Kind.JOB: JobFile, Kind.BUILD: BuildFile}
# sections that stand in every kind of file; the rest of a flat build file belongs to its build
_HEADER = frozenset(Header.model_fields) | {"kind", "params", "declarations", "build"}
_VALUES = ("params", "declarations", "inputs", "outputs")


@dataclass(frozen=True)
class Specification:
    """One run's polyaxonfile: `content` as it was sent, `config` with every template rendered, nulls dropped."""

    kind: Kind
    content: str
    config: dict[str, Any]

    @cached_property
    def file(self) -> JobFile | BuildFile:
        return MODELS[self.kind].model_validate(self.config)

    @property
    def build(self) -> Build:
        return self.file.build

    @property
    def environment(self) -> Environment:
        return self.file.environment or Environment()

    @property
    def command(self) -> str | None:
        """The shell line of the run; None for a kind that runs nothing."""
        return self.file.run.line if isinstance(self.file, JobFile) else None

    @property
    def log_level(self) -> str:
        return self.file.logging.level if self.file.logging else "INFO"

    @property
    def params(self) -> dict[str, Any]:
        return self.file.params or {}

    @property
    def ignored(self) -> list[str]:
        """Keys that are accepted and mean nothing on one node, as dotted paths."""
        return [".".join(path) for path in WITHOUT_EFFECT if _has(self.config, path)]

    def build_config(self) -> dict[str, Any]:
        """The config of the build that this run needs: its build section as a file of its own."""
        build = {key: value for key, value in self.config["build"].items() if key not in ("commit", "branch", "ref")}
        return {"build": build, "version": 1, "kind": Kind.BUILD.value}


def parse(source: object, kind: Kind, params: Mapping[str, Any] | None = None) -> Specification:
    """Check a polyaxonfile of the expected kind. Raises InvalidPolyaxonfile with every problem at once.

    `source` is a mapping, a list of mappings, or a text in YAML, JSON or Python notation; `params` go over the
    file's own.
    """
    data, lines = reader.read(source)
    _check_header(data, lines, kind)
    if params:
        data = {**data, "params": {**(data.get("params") or {}), **params}}
    shaped = _nested(data) if kind is Kind.BUILD else data
    try:
        variables = _variables(shaped)
        rendered = {
            key: value if key in _VALUES else templating.render(value, variables, (key,))
            for key, value in shaped.items()
        }
        file = MODELS[kind].model_validate(rendered)
    except templating.TemplateProblem as error:
        raise InvalidPolyaxonfile([_sentence(error.path, str(error), lines)]) from error
    except ValidationError as error:
        raise InvalidPolyaxonfile(list(_problems(error, lines, kind))) from error
    content = source if isinstance(source, str) else json.dumps(data)
    return Specification(kind, content, _config(file))


def of_config(kind: Kind, content: str, config: dict[str, Any]) -> Specification:
    """The specification of a stored run: nothing is rendered a second time."""
    return Specification(kind, content, config)


def _check_header(data: dict[str, Any], lines: reader.Lines, kind: Kind) -> None:
    problems = []
    if "version" not in data:
        problems.append("The Polyaxonfile `version` must be specified.")
    if "kind" not in data:
        problems.append(f"The Polyaxonfile `kind` must be specified; here it must be `{kind}`.")
    elif data["kind"] != kind:
        problems.append(_sentence(("kind",), f"Must be equal to {kind}.", lines))
    if problems:
        raise InvalidPolyaxonfile(problems)


def _nested(data: dict[str, Any]) -> dict[str, Any]:
    """A flat build file (0.4.2 and later) in the nested form of the documents."""
    if "build" in data:
        return data
    flat = {key: value for key, value in data.items() if key not in _HEADER}
    return {**{key: value for key, value in data.items() if key in _HEADER}, "build": flat}


def _variables(data: dict[str, Any]) -> dict[str, Any]:
    given = data.get("params") or data.get("declarations") or {}
    given = given if isinstance(given, dict) else {}
    ports = [port for port in data.get("inputs") or [] if isinstance(port, dict) and "name" in port]
    if not ports:
        return given
    unexpected = sorted(set(given) - {port["name"] for port in ports})
    if unexpected:
        raise templating.TemplateProblem(("params",), f"Received unexpected params `{unexpected}`.")
    variables = {}
    for index, port in enumerate(ports):
        name = port["name"]
        if name not in given and port.get("default") is None and not port.get("is_optional"):
            raise templating.TemplateProblem(("inputs", index), f"Input {name} is required, no param was passed.")
        value = given.get(name, port.get("default"))
        variables[name] = (f"--{name}" if value else "") if port.get("is_flag") else value
    return variables


def _config(file: JobFile | BuildFile) -> dict[str, Any]:
    dumped = file.model_dump(exclude_none=True)
    order = ("run", "build", *(key for key in dumped if key not in ("run", "build", "version", "kind")))
    return {key: dumped[key] for key in (*order, "version", "kind") if key in dumped}


def _problems(error: ValidationError, lines: reader.Lines, kind: Kind) -> Iterator[str]:
    messages: dict[tuple[str | int, ...], list[str]] = {}
    for item in error.errors():
        path = tuple(part for part in item["loc"] if not _is_branch(part))
        messages.setdefault(path, []).append(_message(item["type"], item["msg"], path, kind))
    for path, texts in messages.items():  # one problem a path: the forms that a value may have are alternatives
        yield _sentence(path, " or ".join([texts[0], *(t.removeprefix("Input should be ") for t in texts[1:])]), lines)


def _message(code: str, text: str, path: Sequence[str | int], kind: Kind) -> str:
    if code == "extra_forbidden":
        return "Unknown field."
    if code == "missing" and len(path) == 1:
        return f"{path[0]} is a required section for a valid Polyaxonfile of kind `{kind}`"
    return {"missing": "This field is required."}.get(code, text.removeprefix("Value error, "))


def _sentence(path: Sequence[str | int], message: str, lines: reader.Lines) -> str:
    line = reader.line_of(tuple(path), lines)
    where = ", ".join(part for part in (f"line {line}" if line else "", ".".join(map(str, path))) if part)
    return f"{where}: {message}" if where else message


def _is_branch(part: str | int) -> bool:
    """pydantic names the members of a union in the path (`list[str]`, `str`); people did not write those."""
    return isinstance(part, str) and (part in ("str", "int", "bool", "float") or "[" in part)


def _has(config: dict[str, Any], path: Sequence[str]) -> bool:
    found: Any = config
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return found not in (None, [], {})
