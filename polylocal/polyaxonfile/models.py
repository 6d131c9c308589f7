"""Models of the sections of a polyaxonfile, version 1. They do not depend on the engine. Pure."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from polylocal.polyaxonfile import variables
from polylocal.statuses import Kind

SLUG = r"^[-a-zA-Z0-9_]+$"
MAX_NAME = 128

Scalar = str | int | float | bool | None
Value = Scalar | list[Any] | dict[str, Any]


def tags_of(value: object) -> object:
    """Tags as a list without surrounding blanks and duplicates. `value`: a list, or a text with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
        return list(dict.fromkeys(part.strip() for part in parts if part.strip()))
    return parts


def _not_a_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be 1")
    return value


def image_name(image: str) -> str:
    """Check an image reference: `name`, `name:tag`, `host:port/name:tag`, `name@digest`. Raises ValueError."""
    parts = image.split("@")[0].split(":")
    port_ok = len(parts) < 3 or (len(parts) == 3 and "/" in parts[1] and not parts[1].startswith("/"))
    if not image or not parts[0] or not port_ok or any(c.isspace() for c in image):
        raise ValueError(f"Invalid docker image `{image}`")
    return image


def is_reserved_label(name: str) -> bool:
    """Whether a label has the prefix of the labels that polylocal sets on its containers and images."""
    return name.strip().casefold().startswith("polylocal.")


Tags = Annotated[list[Annotated[str, Field(max_length=64)]], BeforeValidator(tags_of)]
Name = Annotated[str, Field(pattern=SLUG, max_length=MAX_NAME)]
# templates can put numbers with dots into the name of a run; `parse` checks names without templates against SLUG
RunName = Annotated[str, Field(pattern=r"^[-a-zA-Z0-9_.]+$", max_length=MAX_NAME)]
Variables = Annotated[Any, AfterValidator(variables.normal)]  # of a run; `parse` reports invalid ones
EnvVar = Annotated[list[Scalar], Field(min_length=2, max_length=2)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, defer_build=True)


class Amount(Section):
    """The amount of one resource: cores, MiB of memory, or number of GPUs."""

    requests: Annotated[float, Field(ge=0)] | None = None
    limits: Annotated[float, Field(ge=0)] | None = None

    @property
    def reserved(self) -> float:
        """The amount to reserve: the request, or the limit if there is no request."""
        return (self.requests if self.requests is not None else self.limits) or 0.0


class Resources(Section):
    cpu: Amount | None = None
    memory: Amount | None = None
    gpu: Amount | None = None
    tpu: Amount | None = None


class Persistence(Section):
    data: list[str] | bool | None = None
    outputs: str | None = None


class References(Section):
    jobs: list[str | int] | None = None
    experiments: list[str | int] | None = None


class SecretReference(Section):
    """A secret by its name. `items`: the names of its values; None: all values."""

    name: Name
    items: list[str] | None = None


def _by_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class Environment(Section):
    resources: Resources | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    node_selector: dict[str, Any] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: list[Any] | None = None
    service_account: str | None = None
    image_pull_secrets: list[Any] | None = None
    max_restarts: Annotated[int, Field(ge=0)] | None = None
    env_vars: Variables = None
    secret_refs: list[Annotated[SecretReference, BeforeValidator(_by_name)]] | None = None
    configmap_refs: list[Any] | None = None
    config_map_refs: list[Any] | None = None
    persistence: Persistence | None = None
    data_refs: list[str] | None = None
    artifact_refs: list[str] | None = None
    outputs: References | None = None
    # sections of distributed runs, which are refused with an explanation
    replicas: Any = None
    tensorflow: Any = None
    mxnet: Any = None
    pytorch: Any = None
    horovod: Any = None
    mpi: Any = None

    @model_validator(mode="after")
    def _one_process(self) -> Self:
        wanted = [name for name in DISTRIBUTED if getattr(self, name) is not None]
        if wanted:
            raise ValueError(
                f"`{wanted[0]}` asks for a run of several machines; polylocal has one: run a single process, and use"
                " all its GPUs with environment.resources.gpu"
            )
        return self

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of the run's container."""
        return self.env_vars or {}

    @property
    def data_names(self) -> list[str]:
        """The names of the data folders to mount: those of `data_refs` and of the older `persistence.data`."""
        old = self.persistence.data if self.persistence and isinstance(self.persistence.data, list) else []
        return list(dict.fromkeys([*(self.data_refs or []), *old]))

    @property
    def wants_all_data(self) -> bool:
        """Whether to mount all data folders: `persistence: {data: true}`."""
        return self.persistence is not None and self.persistence.data is True

    def path_of_data(self, name: str) -> tuple[str | int, ...]:
        """The path, in the file, of the key that names a data folder."""
        if name in (self.data_refs or []):
            return "environment", "data_refs", (self.data_refs or []).index(name)
        return "environment", "persistence", "data"

    @property
    def references(self) -> dict[Kind, list[str]]:
        """The runs of the same project whose outputs this run reads, by id, name or unique name."""
        named = self.outputs or References()
        jobs, experiments = ([str(item) for item in items or []] for items in (named.jobs, named.experiments))
        return {Kind.JOB: jobs, Kind.EXPERIMENT: experiments}


DISTRIBUTED = ("replicas", "tensorflow", "mxnet", "pytorch", "horovod", "mpi")

# keys that are accepted and kept, but have no effect on one node; users get a warning that names them
WITHOUT_EFFECT = """environment.annotations environment.node_selector environment.affinity environment.tolerations
environment.service_account environment.image_pull_secrets environment.configmap_refs environment.config_map_refs
environment.artifact_refs environment.persistence.outputs environment.resources.tpu build.backend build.git backend
""".split()


class Build(Section):
    """How to build the image. The fields have the order of the documents' examples."""

    build_steps: list[str] | None = None
    env_vars: list[EnvVar] | None = None
    image: Annotated[str, AfterValidator(image_name)] | None = None
    dockerfile: str | None = None
    context: str | None = None
    ref: Annotated[int, Field(ge=0, le=2**63 - 1)] | str | None = None
    git: str | None = None
    commit: str | None = None
    branch: str | None = None
    nocache: bool | None = None
    lang_env: str | None = None
    backend: Literal["native", "kaniko", "other"] | None = None
    environment: Environment | None = None

    @field_validator("build_steps", mode="after")
    @classmethod
    def _is_not_empty(cls, steps: list[str] | None) -> list[str] | None:
        if steps and not all(step.strip() for step in steps):
            raise ValueError("a build step is empty")
        return steps

    @field_validator("dockerfile", "context", mode="after")
    @classmethod
    def _inside_the_code(cls, path: str | None) -> str | None:
        if path is not None and (path.startswith("/") or ".." in path.split("/")):
            raise ValueError(f"`{path}` must be a path inside the uploaded code, without `..`")
        return path

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.image, self.dockerfile, self.ref)) != 1:
            if self.ref is not None and not isinstance(self.ref, int) and (self.image or self.dockerfile):
                return self  # 0.3: `ref` beside `image` names a commit of the code
            raise ValueError("Invalid Build, only a a dockerfile, an image, or a reference is required.")
        return self


class Run(Section):
    cmd: str | list[str]

    @field_validator("cmd", mode="after")
    @classmethod
    def _not_empty(cls, cmd: str | list[str]) -> str | list[str]:
        parts = [cmd] if isinstance(cmd, str) else cmd
        if not parts or not all(part.strip() for part in parts):
            raise ValueError("the command is empty")
        return cmd


class Logging(Section):
    level: Annotated[
        Literal["INFO", "DEBUG", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"],
        BeforeValidator(lambda v: v.upper() if isinstance(v, str) else v),
    ] = "INFO"
    formatter: str | None = None


class Port(Section):
    """One declared input or output of a run."""

    name: str
    description: str | None = None
    type: str | None = None
    default: Value = None
    is_optional: bool = False
    is_list: bool = False
    is_flag: bool = False
    options: list[Any] | None = None


class Header(Section):
    """The sections that every kind may have."""

    version: Annotated[Literal[1], BeforeValidator(_not_a_bool)]
    logging: Logging | None = None
    name: RunName | None = None
    description: str | None = None
    tags: Tags | None = None
    backend: str | None = None
    environment: Environment | None = None
    inputs: list[Port] | None = None
    outputs: list[Port] | None = None


class JobFile(Header):
    kind: Literal["job"]
    build: Build
    run: Run
    params: dict[str, Value] | None = None


class ExperimentFile(Header):
    kind: Literal["experiment"]
    build: Build
    run: Run
    params: dict[str, Value] | None = None
    declarations: dict[str, Value] | None = None
    framework: str | None = None

    @model_validator(mode="after")
    def _one_name_for_params(self) -> Self:
        if self.params is not None and self.declarations is not None:
            raise ValueError("You should only use `params`.")
        return self


class NotebookFile(Header):
    """A notebook. `backend`: `notebook` or `lab`."""

    kind: Literal["notebook"]
    build: Build
    params: dict[str, Value] | None = None

    @field_validator("backend", mode="after")
    @classmethod
    def _check_backend(cls, backend: str | None) -> str | None:
        if backend not in (None, "notebook", "lab"):
            raise ValueError(f"`{backend}` is neither `notebook` nor `lab`")
        return backend


class TensorboardFile(Header):
    kind: Literal["tensorboard"]
    build: Build
    params: dict[str, Value] | None = None


class BuildFile(Header):
    kind: Literal["build"]
    build: Build
    params: dict[str, Value] | None = None
