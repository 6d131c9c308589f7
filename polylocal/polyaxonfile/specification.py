"""Checks and compiles a polyaxonfile into a Specification, the input of the runner. Pure."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from polylocal.engine.references import is_image_id
from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import build_variables, commands, reader, resources, templating, variables
from polylocal.polyaxonfile.build_variables import MAX_LINE
from polylocal.polyaxonfile.hptuning import GroupFile, HPTuning
from polylocal.polyaxonfile.inputs import Ports
from polylocal.polyaxonfile.models import (
    MAX_NAME,
    SLUG,
    WITHOUT_EFFECT,
    Build,
    BuildFile,
    Environment,
    ExperimentFile,
    Header,
    JobFile,
    NotebookFile,
    TensorboardFile,
    is_reserved_label,
    tags_of,
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
    Kind.PACKAGE: JobFile,  # the command and the image, which the creation of the build list has determined
}
# sections of every kind of file; in a flat build file, all others belong to the build
_HEADER = frozenset(Header.model_fields) | {"kind", "params", "declarations", "build"}
_UNITS = {"cpu": "cores", "memory": "MiB", "gpu": "GPUs"}
_VALUES = ("params", "declarations", "inputs", "outputs")
_NOT_IN_A_NAME = re.compile(r"[^-a-zA-Z0-9_.]+")
_UNDEFINED = "`{}` in a template is not a param of this run: it is replaced by nothing."


@dataclass(frozen=True)
class SourceFile:
    """One of the files that were joined into a text. `line`: the line of the text at which the file starts, from 1.

    A name that begins with `-` is an option of the command line.
    """

    name: str
    line: int


@dataclass(frozen=True)
class Source:
    """The places of the parts of a polyaxonfile in its text and files."""

    lines: reader.Lines = field(default_factory=dict)
    files: Sequence[SourceFile] = ()
    is_flat: bool = False  # a build without a `build` section

    def sentence(self, path: Sequence[str | int], message: str) -> str:
        """A message about a part, prefixed with its place: `polyaxonfile.yml, line 4, build.image: …`."""
        path = tuple(path[1:] if self.is_flat and tuple(path[:1]) == ("build",) else path)
        line = reader.line_of(path, self.lines)
        file = next((each for each in reversed(self.files) if line and each.line <= line), None)
        if file is None and len(self.files) == 1:
            file = self.files[0]
        is_option = file is not None and file.name.startswith("-")
        parts = [
            file.name if file else "",
            f"line {line - (file.line - 1 if file else 0)}" if line and not is_option else "",
        ]
        where = ", ".join(filter(None, [*parts, ".".join(map(str, path))]))
        return f"{where}: {message}" if where else message


@dataclass(frozen=True)
class Specification:
    """The polyaxonfile of one run.

    `content`: the file as the client sent it. `config`: the file with all templates rendered, and without nulls.
    `source`: the places of the parts in the text. `undefined`: warnings about undefined names in templates. A stored
    specification has no `source` and no `undefined`.
    """

    kind: Kind
    content: str
    config: dict[str, Any]
    source: Source = Source()
    undefined: Sequence[str] = ()

    @cached_property
    def file(self) -> File:
        """The model of the file. Raises pydantic's ValidationError: a stored config is invalid."""
        if self.kind is Kind.GROUP:  # its templates are those of its experiments: render them as for one experiment
            return GroupFile.model_validate(_render_as_member(self.config, templating.Rendering([])))
        return MODELS[self.kind].model_validate(self.config)

    @property
    def build(self) -> Build:
        return self.file.build

    @property
    def environment(self) -> Environment:
        return self.file.environment or Environment()

    @property
    def command(self) -> str | list[str] | None:
        """The `cmd` as written. None: this kind of file has none."""
        return self.file.run.cmd if isinstance(self.file, JobFile | ExperimentFile) else None

    @property
    def log_level(self) -> str:
        return self.file.logging.level if self.file.logging else "INFO"

    @property
    def params(self) -> dict[str, Any]:
        """The params: values for `{{ templates }}`, which also describe an experiment in comparisons."""
        older = self.file.declarations if isinstance(self.file, ExperimentFile) else None
        return self.file.params or older or {}

    @property
    def key_of_params(self) -> str:
        """The name of the section with the params: `params` or `declarations`."""
        return _key_of_params(self.config)

    @property
    def words(self) -> dict[str, Any]:
        """Name, description and tags. A group's keep their templates, which each experiment renders."""
        file = self.file
        found = {"name": file.name, "description": file.description, "tags": file.tags}
        if self.kind is Kind.GROUP:
            written = {name: self.config[name] for name in found if name in self.config}
            found |= written | ({"tags": tags_of(written["tags"])} if "tags" in written else {})
        return found

    @property
    def hptuning(self) -> HPTuning:
        """The search of a group. Raises ValueError: the run is not a group."""
        if not isinstance(self.file, GroupFile):
            raise ValueError(f"a {self.kind} has no search")
        return self.file.hptuning

    @property
    def ignored(self) -> list[str]:
        """The keys of the file that have no effect on one node, as dotted paths."""
        found = [path for path in WITHOUT_EFFECT if _has(self.config, path.split("."))]
        return [path for path in found if path != "backend" or self.kind is not Kind.NOTEBOOK]

    def build_config(self) -> dict[str, Any]:
        """The config of the build that this run needs: the build section as a separate file."""
        build = {key: value for key, value in self.config["build"].items() if key not in ("commit", "branch", "ref")}
        config = {"build": build, "version": 1, "kind": Kind.BUILD.value}
        secrets = self.config.get("environment", {}).get("secret_refs")
        return {**config, "environment": {"secret_refs": secrets}} if secrets else config

    @property
    def secrets(self) -> dict[str, list[str] | None]:
        """The secrets of the run: name → names of its values (None: all). A build adds those of its build section."""
        named = [*(self.environment.secret_refs or [])]
        if self.kind is Kind.BUILD and self.build.environment:
            named += self.build.environment.secret_refs or []
        return {reference.name: reference.items for reference in named}

    def path_of_secret(self, name: str) -> tuple[str | int, ...]:
        """The path, in the file, of the key that names a secret."""
        own = [reference.name for reference in self.environment.secret_refs or []]
        if name in own:
            return "environment", "secret_refs", own.index(name)
        inner = self.build.environment.secret_refs if self.build.environment else None
        names = [reference.name for reference in inner or []]
        return "build", "environment", "secret_refs", names.index(name)


def parse(
    source: object, kind: Kind, params: Mapping[str, Any] | None = None, files: Sequence[SourceFile] = ()
) -> Specification:
    """Check a polyaxonfile of the expected kind. Raises InvalidPolyaxonfile with every problem at once.

    `source`: a mapping, a list of mappings, or a text in YAML, JSON or Python notation. `params`: override the params
    of the file. `files`: the files that were joined into the text.
    """
    data, lines = reader.read(source)
    where = Source(lines, files, is_flat=kind is Kind.BUILD and "build" not in data)
    if data.get("kind", kind) != kind:  # then other problems would not help the user
        raise InvalidPolyaxonfile([where.sentence(("kind",), f"Must be equal to {kind}.")])
    if params:
        key = "declarations" if "declarations" in data else "params"
        own = data.get(key) or {}  # the validation below reports a value that is not a mapping
        data = {**data, key: {**own, **params} if isinstance(own, dict) else own}
    shaped = _nest(data) if where.is_flat else data
    rendering = templating.Rendering(problems := [])
    rendered = _render_as_member(shaped, rendering) if kind is Kind.GROUP else _render(shaped, rendering)
    try:
        file = MODELS[kind].model_validate(rendered)
        problems += _name_problems(shaped, rendered) + _reserved_problems(file)
        problems += _variable_problems(file) + _length_problems(file)
        problems += resources.problems(file.environment.resources if file.environment else None)
        problems += resources.not_numbers(rendered.get("environment"))
        problems += build_variables.problems(file.build.env_vars)
        problems += _point_problems(file, Ports(shaped.get("inputs"))) if isinstance(file, GroupFile) else []
    except ValidationError as error:
        problems += _validation_problems(error, kind)
    if problems:
        raise InvalidPolyaxonfile([where.sentence(path, text) for path, text in problems])
    content = source if isinstance(source, str) else json.dumps(data)
    config = _group_config(shaped, file) if kind is Kind.GROUP else _config(file)
    undefined = [where.sentence(path, _UNDEFINED.format(name)) for path, name in rendering.undefined]
    return Specification(kind, content, config, where, undefined)


def of_member(group: Specification, suggestion: Mapping[str, Any]) -> Specification:
    """The specification of an experiment of a group with these params. Raises InvalidPolyaxonfile.

    It has no name and no description: these belong to the group.
    """
    data, _ = reader.read(group.content)
    own = {key: value for key, value in data.items() if key not in ("hptuning", "name", "description")}
    if declared := Ports(data.get("inputs")).names:
        own["inputs"] = [*data["inputs"], *({"name": name} for name in suggestion if name not in declared)]
    return parse({**own, "kind": Kind.EXPERIMENT.value}, Kind.EXPERIMENT, suggestion)


def metadata_of_member(
    member: Specification, name: str | None, description: str | None, tags: Sequence[str] | None
) -> dict[str, Any]:
    """The name, description and tags of an experiment, rendered from those of its group.

    The name and description are None if the group's have no templates.
    """
    variables = Ports(member.config.get("inputs")).in_templates(member.params)
    rendering = templating.Rendering([])

    def render(text: str) -> str:
        return str(rendering.render(text, variables, ()))

    return {
        "name": _NOT_IN_A_NAME.sub("-", render(name))[:MAX_NAME] if name and templating.has_template(name) else None,
        "description": render(description) if description and templating.has_template(description) else None,
        "tags": [render(tag) for tag in tags] if tags else None,
    }


def _render_as_member(data: dict[str, Any], rendering: templating.Rendering) -> dict[str, Any]:
    """The file of a group with its templates rendered as for one of its experiments."""
    try:
        sample = HPTuning.model_validate(data.get("hptuning")).sample
    except ValidationError:
        sample = {}  # the validation of the whole file reports the problem
    key = _key_of_params(data)
    own = data.get(key) if isinstance(data.get(key), dict) else {}
    about = {name: value for name, value in data.items() if name != "hptuning"}
    rendered = _render({**about, key: {**(own or {}), **sample}}, rendering, known=sample)
    as_written = {name: data[name] for name in (key, "hptuning") if name in data}
    return {**rendered, **as_written} | ({} if key in data else {key: None})


def _group_config(data: dict[str, Any], file: File) -> dict[str, Any]:
    """The file with its templates, and with the normalized `hptuning` section."""
    checked = file.model_dump(exclude_none=True)
    return {name: checked[name] if name == "hptuning" else value for name, value in data.items() if name in checked}


def _render(data: dict[str, Any], rendering: templating.Rendering, known: Collection[str] = ()) -> dict[str, Any]:
    """The file with its templates rendered, and with the defaults of its inputs in its params."""
    key, ports = _key_of_params(data), Ports(data.get("inputs"))
    given = data.get(key) or {}
    given = given if isinstance(given, dict) else {}
    values = ports.values(given, key, known, rendering.problems)
    variables = ports.in_templates(values)
    made = {
        name: value if name in _VALUES else rendering.render(value, variables, (name,)) for name, value in data.items()
    }
    if isinstance(name := data.get("name"), str) and made["name"] != name:
        made["name"] = _NOT_IN_A_NAME.sub("-", str(made["name"]))
    return {**made, key: dict(values)} if ports else made


def _key_of_params(data: Mapping[str, Any]) -> str:
    return "declarations" if "declarations" in data else "params"


def _nest(data: dict[str, Any]) -> dict[str, Any]:
    """Convert a flat build file (0.4.2 and later) to the nested form of the documents."""
    flat = {key: value for key, value in data.items() if key not in _HEADER}
    return {**{key: value for key, value in data.items() if key in _HEADER}, "build": flat}


def _reserved_problems(file: File) -> templating.Problems:
    """Problems with reserved names. Not part of the models, because runs of older versions may have such names."""
    problems: templating.Problems = []
    sections = ((("environment",), file.environment), (("build", "environment"), file.build.environment))
    for path, environment in sections:
        for name in environment.labels or {} if environment else {}:
            if is_reserved_label(name):
                problems.append(((*path, "labels", name), "Labels that begin with `polylocal.` are polylocal's own."))
    if file.build.image and is_image_id(file.build.image):
        problems.append((("build", "image"), f"`{file.build.image}` is the id of an image; write the image's name."))
    return problems


def _variable_problems(file: File) -> templating.Problems:
    """Problems with variables: invalid ones, and variables of a run in a build."""
    path, inner = ("environment", "env_vars"), file.build.environment
    problems: templating.Problems = []
    if inner and inner.env_vars is not None:
        text = "These are variables of a run; those of the image are `build.env_vars`."
        problems.append((("build", *path), text))
    given = file.environment.env_vars if file.environment else None
    if given is not None and isinstance(file, BuildFile):
        return [*problems, (path, "A build has no variables of a run; those of the image are `build.env_vars`.")]
    found = variables.problems(given) if given is not None else ()
    return problems + [((*path, *place), text) for place, text in found]


def _name_problems(data: Mapping[str, Any], rendered: Mapping[str, Any]) -> templating.Problems:
    """Problems with the name. Only a template can put dots into a name, because numbers have dots."""
    name = data.get("name")
    if name == rendered.get("name") and isinstance(name, str) and not re.fullmatch(SLUG, name):
        return [(("name",), f"String should match pattern '{SLUG}'")]
    is_long = isinstance(name, str) and len(name) > MAX_NAME
    return [(("name",), f"A name has at most {MAX_NAME} characters.")] if is_long else []


def _point_problems(group: GroupFile, ports: Ports) -> templating.Problems:
    """Problems with points of the search space that do not have the declared type of their input."""
    matrix = group.hptuning.matrix or {}
    found = ((name, ports.find_mismatch(name, matrix[name].points)) for name in ports.names if name in matrix)
    return [(("hptuning", "matrix", name), problem) for name, problem in found if problem]


def _length_problems(file: File) -> templating.Problems:
    """Problems with too long commands. Not part of the models, because runs of older versions may have them."""
    problems: templating.Problems = []
    if isinstance(file, JobFile | ExperimentFile):
        size = max(len(word.encode()) for word in commands.arguments(file.run.cmd, commands.BASH))
        if size > commands.MAX_ARGUMENT:
            text = (
                f"The command has {size} bytes, and a program takes at most {commands.MAX_ARGUMENT} as one argument;"
                " put it into a file of the code, and run that."
            )
            problems.append((("run", "cmd"), text))
    for index, step in enumerate(file.build.build_steps or []):
        if any(len(line.encode()) > MAX_LINE for line in commands.run_instruction(step).split("\n")):
            text = f"A line of a Dockerfile has at most {MAX_LINE} bytes; put the step into a file of the code."
            problems.append((("build", "build_steps", index), text))
    return problems


def _config(file: File) -> dict[str, Any]:
    dumped = file.model_dump(exclude_none=True)
    order = ("run", "build", *(key for key in dumped if key not in ("run", "build", "version", "kind")))
    return {key: dumped[key] for key in (*order, "version", "kind") if key in dumped}


def _validation_problems(error: ValidationError, kind: Kind) -> templating.Problems:
    """The problems of a validation, one for each path. Errors of the members of a union are joined by `or`."""
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
    if code in ("float_parsing", "float_type") and path[-2:-1] and path[-2] in _UNITS:
        return f"Input should be a valid number of {_UNITS[path[-2]]}, without a unit"
    if code in ("model_type", "model_attributes_type", "dict_type"):
        return "Input should be a mapping" + (", as in `{limits: 1}`" if path[-1:] and path[-1] in _UNITS else "")
    return {"missing": "This field is required."}.get(code, text.removeprefix("Value error, "))


def _is_branch(part: str | int) -> bool:
    """Whether pydantic added a part to a path to name the member of a union, such as `list[str]` or `str`."""
    return isinstance(part, str) and (part in ("str", "int", "bool", "float") or "[" in part)


def _has(config: dict[str, Any], path: Sequence[str]) -> bool:
    found: Any = config
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return found not in (None, [], {})
