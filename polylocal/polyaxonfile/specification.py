"""A polyaxonfile, checked and compiled: what the runner works from. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import reader, templating
from polylocal.polyaxonfile.hptuning import GroupFile, HPTuning
from polylocal.polyaxonfile.models import (
    WITHOUT_EFFECT,
    Build,
    BuildFile,
    Environment,
    ExperimentFile,
    Header,
    JobFile,
    NotebookFile,
    TensorboardFile,
    is_image_id,
    is_reserved_label,
)
from polylocal.statuses import Kind

File = JobFile | ExperimentFile | GroupFile | NotebookFile | TensorboardFile | BuildFile
MODELS: dict[Kind, type[File]] = {
    Kind.JOB: JobFile,
    Kind.EXPERIMENT: ExperimentFile,
    Kind.GROUP: GroupFile,
    Kind.NOTEBOOK: NotebookFile,
    Kind.TENSORBOARD: TensorboardFile,
    Kind.BUILD: BuildFile,
    Kind.PACKAGE: JobFile,  # what is run in which image, as it was found out when the build list was made
}
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
    def file(self) -> File:
        if self.kind is Kind.GROUP:  # its templates are its experiments': it is read as one of them would be
            return GroupFile.model_validate(_of_a_member(self.config, []))
        return MODELS[self.kind].model_validate(self.config)

    @property
    def build(self) -> Build:
        return self.file.build

    @property
    def environment(self) -> Environment:
        return self.file.environment or Environment()

    @property
    def command(self) -> str | None:
        """The shell line of the run; None for a kind whose file says none."""
        return self.file.run.line if isinstance(self.file, JobFile | ExperimentFile) else None

    @property
    def log_level(self) -> str:
        return self.file.logging.level if self.file.logging else "INFO"

    @property
    def params(self) -> dict[str, Any]:
        """What goes into `{{ templates }}` and, for experiments, is kept to compare them by."""
        older = self.file.declarations if isinstance(self.file, ExperimentFile) else None
        return self.file.params or older or {}

    @property
    def hptuning(self) -> HPTuning:
        """How a group searches. Raises ValueError for any other kind."""
        if not isinstance(self.file, GroupFile):
            raise ValueError(f"a {self.kind} searches nothing")
        return self.file.hptuning

    @property
    def ignored(self) -> list[str]:
        """Keys that are accepted and mean nothing on one node, as dotted paths."""
        said = [path for path in WITHOUT_EFFECT if _has(self.config, path)]
        return [".".join(path) for path in said if path != ("backend",) or self.kind is not Kind.NOTEBOOK]

    def build_config(self) -> dict[str, Any]:
        """The config of the build that this run needs: its build section as a file of its own."""
        build = {key: value for key, value in self.config["build"].items() if key not in ("commit", "branch", "ref")}
        config = {"build": build, "version": 1, "kind": Kind.BUILD.value}
        secrets = self.config.get("environment", {}).get("secret_refs")
        return {**config, "environment": {"secret_refs": secrets}} if secrets else config

    @property
    def secrets(self) -> dict[str, list[str] | None]:
        """Names of the secrets that the run gets, and which of their values (None: all); of a build, also its own."""
        named = [*(self.environment.secret_refs or [])]
        if self.kind is Kind.BUILD and self.build.environment:
            named += self.build.environment.secret_refs or []
        return {reference.name: reference.items for reference in named}


def parse(source: object, kind: Kind, params: Mapping[str, Any] | None = None) -> Specification:
    """Check a polyaxonfile of the expected kind. Raises InvalidPolyaxonfile with every problem at once.

    `source` is a mapping, a list of mappings, or a text in YAML, JSON or Python notation; `params` go over the
    file's own.
    """
    data, lines = reader.read(source)
    if data.get("kind", kind) != kind:  # nothing else that is said about it would help
        raise InvalidPolyaxonfile([_sentence(("kind",), f"Must be equal to {kind}.", lines)])
    if params:
        key = "declarations" if "declarations" in data else "params"
        own = data.get(key) or {}  # what is no mapping stays, to be found wrong below
        data = {**data, key: {**own, **params} if isinstance(own, dict) else own}
    is_flat = kind is Kind.BUILD and "build" not in data
    shaped = _nested(data) if is_flat else data
    problems: templating.Problems = []
    rendered = _of_a_member(shaped, problems) if kind is Kind.GROUP else _rendered(shaped, problems)
    try:
        file = MODELS[kind].model_validate(rendered)
        problems += _reserved(file)
    except ValidationError as error:
        problems += _problems(error, kind)
    if problems:
        paths = ((path[1:] if is_flat and path[:1] == ("build",) else path, text) for path, text in problems)
        raise InvalidPolyaxonfile([_sentence(path, text, lines) for path, text in paths])
    content = source if isinstance(source, str) else json.dumps(data)
    return Specification(kind, content, _group_config(shaped, file) if kind is Kind.GROUP else _config(file))


def of_member(group: Specification, suggestion: Mapping[str, Any]) -> Specification:
    """The experiment of a group with these params. Raises InvalidPolyaxonfile.

    What the group says of itself alone (name, description) is not said of its experiments.
    """
    data, _ = reader.read(group.content)
    own = {key: value for key, value in data.items() if key not in ("hptuning", "name", "description")}
    return parse({**own, "kind": Kind.EXPERIMENT.value}, Kind.EXPERIMENT, suggestion)


def of_config(kind: Kind, content: str, config: dict[str, Any]) -> Specification:
    """The specification of a stored run: nothing is rendered a second time."""
    return Specification(kind, content, config)


def _of_a_member(data: dict[str, Any], problems: templating.Problems) -> dict[str, Any]:
    """A group's file with its templates rendered as for one of its experiments."""
    try:
        sample = HPTuning.model_validate(data.get("hptuning")).sample
    except ValidationError:
        sample = {}  # what is wrong with it is said when the whole is read
    key = "declarations" if "declarations" in data else "params"
    own = data.get(key) if isinstance(data.get(key), dict) else {}
    about = {name: value for name, value in data.items() if name != "hptuning"}
    rendered = _rendered({**about, key: {**(own or {}), **sample}}, problems)
    return {**rendered, **{name: data[name] for name in (key, "hptuning") if name in data}} | (
        {} if key in data else {key: None}
    )


def _group_config(data: dict[str, Any], file: File) -> dict[str, Any]:
    """What was sent, templates and all, with the search in its plain form."""
    checked = file.model_dump(exclude_none=True)
    return {name: checked[name] if name == "hptuning" else value for name, value in data.items() if name in checked}


def _rendered(data: dict[str, Any], problems: templating.Problems) -> dict[str, Any]:
    variables = _variables(data, problems)
    rendering = templating.Rendering(problems)
    return {key: value if key in _VALUES else rendering.render(value, variables, (key,)) for key, value in data.items()}


def _nested(data: dict[str, Any]) -> dict[str, Any]:
    """A flat build file (0.4.2 and later) in the nested form of the documents."""
    flat = {key: value for key, value in data.items() if key not in _HEADER}
    return {**{key: value for key, value in data.items() if key in _HEADER}, "build": flat}


def _variables(data: dict[str, Any], problems: templating.Problems) -> dict[str, Any]:
    given = data.get("params") or data.get("declarations") or {}
    given = given if isinstance(given, dict) else {}
    declared = data.get("inputs")
    ports = [port for port in declared if _is_port(port)] if isinstance(declared, list) else []
    if not ports:
        return given
    unexpected = sorted(set(given) - {port["name"] for port in ports}, key=str)
    if unexpected:
        problems.append((("params",), f"Received unexpected params `{unexpected}`."))
    variables = {}
    for index, port in enumerate(ports):
        name = port["name"]
        if name not in given and port.get("default") is None and not port.get("is_optional"):
            problems.append((("inputs", index), f"Input {name} is required, no param was passed."))
        if port.get("default") is not None and not port.get("is_optional"):
            problems.append((("inputs", index), f"Input {name} has a default: it must be `is_optional: true`."))
        value = given.get(name, port.get("default"))
        variables[name] = (f"--{name}" if value else "") if port.get("is_flag") else value
    return variables


def _reserved(file: File) -> templating.Problems:
    """Names that are polylocal's own. Stored runs of an older version may have them."""
    problems: templating.Problems = []
    sections = ((("environment",), file.environment), (("build", "environment"), file.build.environment))
    for path, environment in sections:
        for name in environment.labels or {} if environment else {}:
            if is_reserved_label(name):
                problems.append(((*path, "labels", name), "Labels that begin with `polylocal.` are polylocal's own."))
    if file.build.image and is_image_id(file.build.image):
        problems.append((("build", "image"), f"`{file.build.image}` is the id of an image; write the image's name."))
    return problems


def _is_port(port: object) -> bool:
    return isinstance(port, dict) and isinstance(port.get("name"), str)


def _config(file: File) -> dict[str, Any]:
    dumped = file.model_dump(exclude_none=True)
    order = ("run", "build", *(key for key in dumped if key not in ("run", "build", "version", "kind")))
    return {key: dumped[key] for key in (*order, "version", "kind") if key in dumped}


def _problems(error: ValidationError, kind: Kind) -> templating.Problems:
    """One problem a path: the forms that a value may have are alternatives."""
    header: templating.Problems = []
    messages: dict[tuple[str | int, ...], list[str]] = {}
    for item in error.errors():
        path = tuple(part for part in item["loc"] if not _is_branch(part))
        if item["type"] == "missing" and path in (("version",), ("kind",)):
            header.append(((), f"The Polyaxonfile `{path[0]}` must be specified."))
            continue
        messages.setdefault(path, []).append(_message(item["type"], item["msg"], path, kind))
    return header + [
        (path, " or ".join([first, *(text.removeprefix("Input should be ") for text in others)]))
        for path, (first, *others) in messages.items()
    ]


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
