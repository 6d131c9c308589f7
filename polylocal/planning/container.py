"""The plan of a container, from a run and its specification. Pure."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from polylocal.engine import termination
from polylocal.engine.plan import BUILD_LABEL, HOME_LABEL, HOST_OF_DESKTOPS, RUN_LABEL, ContainerPlan, Limits, Mount
from polylocal.files.data_folders import DataFolder
from polylocal.paths import run_outputs
from polylocal.polyaxonfile import Capacity, Resources, Specification, commands, is_reserved_label
from polylocal.polyaxonfile import resources as amounts
from polylocal.statuses import Kind
from polylocal.store.rows import Run

CODE = PurePosixPath("/code")
HANDOVER = PurePosixPath("/plx-context")
OUTPUTS = PurePosixPath("/plx-outputs")

SERVER_PORTS: Mapping[Kind, int] = {Kind.NOTEBOOK: 8888, Kind.TENSORBOARD: 6006}  # the programs' own
_MISSING = "echo 'polylocal: the image has no {program}: install it with a build step, `pip install {package}`' >&2"

LOCALE_VARIABLES = ("LC_ALL", "LANG", "LANGUAGE")
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
_TOKEN_KEY = "POLYAXON_SECRET_USER_TOKEN"


@dataclass(frozen=True)
class RunEnvironment:
    """The inputs of a plan that do not follow from the run: paths, addresses and tokens of this machine."""

    installation: str
    node: str
    network: str
    outputs: Path
    handover: Path
    data: Mapping[str, DataFolder]  # the data folders of the run
    api_url: str  # as seen from inside a container
    token: str
    references: Mapping[str, Sequence[Run]] = field(default_factory=dict)  # runs whose outputs it reads, by plural
    home: Path = Path()  # their outputs are relative to this folder
    work: Path | None = None  # the checkout of a notebook
    watched: tuple[Path, PurePosixPath] | None = None  # the folder of a tensorboard: on the host, in the container
    server_token: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)  # of the build; empty if its image has them
    secrets: Mapping[str, str] = field(default_factory=dict)
    pids_limit: int | None = None
    new_privileges: bool = False
    publishes_port: bool = True  # False: this machine reaches the addresses of containers
    capacity: Capacity | None = None  # limits are cut to it
    locale: str = ""  # replacement for a locale that the image lacks; "": none is needed


def plan(run: Run, specification: Specification, image: str, shell: str, inputs: RunEnvironment) -> ContainerPlan:
    """The container of a run that is not a build. Raises ValueError: the run has no command."""
    kind = run.kind
    is_server = kind.is_server
    serve = server_command(run, specification, inputs.watched and inputs.watched[1]) if is_server else None
    cmd = serve or specification.command
    if cmd is None:
        raise ValueError(f"a {run.kind} has no command to run")
    return ContainerPlan(
        name=f"{run.container_name}-{run.restarts}" if run.log_start else run.container_name,
        image=image,
        command=commands.arguments(cmd, shell),
        labels=own_labels(specification.environment.labels or {}) | labels(run, inputs.installation),
        env=environment(run, specification, inputs),
        mounts=_mounts(run, inputs),
        limits=replace(limits(specification.environment.resources, inputs.capacity), pids=inputs.pids_limit),
        network=inputs.network,
        direct_hosts=(urlsplit(inputs.api_url).hostname or "", HOST_OF_DESKTOPS),
        port=SERVER_PORTS[kind] if is_server else None,
        publishes_port=inputs.publishes_port,
        new_privileges=inputs.new_privileges,
        entrypoint=termination.entrypoint(shell),
    )


def server_command(run: Run, specification: Specification, watched: PurePosixPath | None) -> str:
    """The shell command of a notebook or a tensorboard. `watched`: the folder with the event files of a tensorboard.

    Both programs listen on all addresses of the container; only the daemon's proxy reaches them. Jupyter needs the path
    at which the proxy shows it, the pages of TensorBoard work at any path.
    """
    if run.kind == Kind.TENSORBOARD:
        arguments = ["--logdir", str(watched), "--host", "0.0.0.0", "--port", str(SERVER_PORTS[Kind.TENSORBOARD])]
        return _start_command("tensorboard", "tensorboard", arguments)
    flavour = "lab" if specification.file.backend == "lab" else "notebook"
    base = f"/notebook/{run.owner}/{run.project_name}/"
    arguments = [flavour, "--no-browser", "--allow-root", "--ip=0.0.0.0", f"--port={SERVER_PORTS[Kind.NOTEBOOK]}"]
    # the name of the option before Jupyter 7, and the one since; each version ignores the other
    arguments += [f"--{app}.base_url={base}" for app in ("NotebookApp", "ServerApp")]
    package = "jupyterlab" if flavour == "lab" else "notebook"
    return f"cd /code && {_start_command('jupyter', package, arguments)}"


def _start_command(program: str, package: str, arguments: list[str]) -> str:
    missing = _MISSING.format(program=program, package=package)
    return f"command -v {program} >/dev/null || {{ {missing}; exit 127; }}; exec {program} {shlex.join(arguments)}"


def _mounts(run: Run, inputs: RunEnvironment) -> list[Mount]:
    mounts = [
        Mount(inputs.outputs, outputs_path(run)),
        Mount(inputs.handover, HANDOVER, read_only=True),
        *(Mount(data.path, data.target(name), data.read_only) for name, data in sorted(inputs.data.items())),
    ]
    read = {outputs_path(other): other for runs in inputs.references.values() for other in runs}
    mounts += [
        Mount(inputs.home / (other.outputs or ""), path, read_only=True)
        for path, other in sorted(read.items())
        if path != outputs_path(run)  # a resumed run writes where its original did
    ]
    if inputs.watched:
        mounts.append(Mount(*inputs.watched, read_only=True))
    if inputs.work:
        mounts.append(Mount(inputs.work, CODE))
    return mounts


def image_name(run: Run) -> str:
    """The documented name, `<project>_<project id>:<build uuid>`, without a registry.

    Characters of the project's name that image names can't have are replaced.
    """
    name = run.project_name.lower()
    if not _REPOSITORY.fullmatch(name):
        name = re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "project"
    return f"{name}_{run.project_id}:{run.uuid}"


def labels(run: Run, installation: str) -> dict[str, str]:
    return {HOME_LABEL: installation, RUN_LABEL: f"{run.kind}/{run.uuid}"}


def own_labels(given: Mapping[str, str]) -> dict[str, str]:
    """The labels of a polyaxonfile, without reserved ones: an older version accepted those."""
    return {name: value for name, value in given.items() if not is_reserved_label(name)}


def image_labels(build: Run) -> dict[str, str]:
    """The labels of the image that a build makes, besides that of the installation (`dockerfile.with_label`)."""
    return {BUILD_LABEL: build.uuid}


def outputs_path(run: Run) -> PurePosixPath:
    """The outputs folder inside the container, in the documented layout."""
    return OUTPUTS / run.owner / run.project_name / run_outputs(run.kind, run.id, run.group_id)


def limits(resources: Resources | None, capacity: Capacity | None = None) -> Limits:
    """The limits of a container, cut to the capacity: the engine refuses limits above it."""
    if resources is None:
        return Limits()
    memory = resources.memory
    soft = memory.requests if memory else None
    return Limits(
        cpus=amounts.ceiling(resources.cpu, capacity.cpus if capacity else None),
        memory_mib=amounts.ceiling(memory, capacity.memory_mib if capacity else None),
        # the engine refuses a smaller reservation; the queue counts it
        memory_reservation_mib=soft if soft and soft >= amounts.MIN_MEMORY_MIB else None,
        gpus=amounts.gpus(resources, capacity),
    )


def environment(run: Run, specification: Specification, inputs: RunEnvironment) -> dict[str, str]:
    """The documented environment variables, under the names of all documented versions."""
    data = {name: str(folder.target(name)) for name, folder in sorted(inputs.data.items())}
    return {
        **locale_variables(inputs.locale),
        **inputs.variables,
        **specification.environment.variables,
        **inputs.secrets,
        "POLYAXON_API": inputs.api_url,
        "POLYAXON_API_HTTP_HOST": inputs.api_url,
        "POLYAXON_API_WS_HOST": inputs.api_url.replace("http", "ws", 1),
        "POLYAXON_API_VERSION": "v1",
        "POLYAXON_IN_CLUSTER": "true",
        "POLYAXON_IS_MANAGED": "true",
        "POLYAXON_K8S_NAMESPACE": "polylocal",
        "POLYAXON_K8S_NODE_NAME": inputs.node,
        "POLYAXON_LOG_LEVEL": specification.log_level,
        "POLYAXON_RUN_OUTPUTS_PATH": str(outputs_path(run)),
        "POLYAXON_DATA_PATHS": json.dumps(data),
        "POLYAXON_RUN_DATA_PATHS": json.dumps(data),
        "POLYAXON_DECLARATIONS": json.dumps(specification.params),
        "POLYAXON_PARAMS": json.dumps(specification.params),
        "POLYAXON_INTERNAL_HEADER": "X-POLYAXON-INTERNAL",
        "POLYAXON_INTERNAL_HEADER_SERVICE": "runner",
        "POLYAXON_USER_TOKEN": inputs.token,
        "POLYAXON_SECRET_USER_TOKEN": inputs.token,
        f"POLYAXON_{run.kind.upper()}_INFO": json.dumps(info(run)),
        **_task_variables(run),
        **_of_references(inputs),
        **({"JUPYTER_TOKEN": inputs.server_token} if inputs.server_token else {}),
        **(
            {}
            if amounts.gpus(specification.environment.resources, inputs.capacity)
            else {"NVIDIA_VISIBLE_DEVICES": "none"}
        ),
    }


def locale_variables(locale: str) -> dict[str, str]:
    """The variables that set a locale; "": none, so that the image's own applies."""
    return dict.fromkeys(LOCALE_VARIABLES if locale else (), locale)


def info(run: Run) -> dict[str, str]:
    """The value of `POLYAXON_JOB_INFO` and its like. The clients take the run's id from the end of its name."""
    return {
        "project_name": run.project,
        "project_uuid": run.project_uuid,
        f"{run.kind}_name": run.unique_name,
        f"{run.kind}_uuid": run.uuid,
        "role": "master" if run.kind.has_tasks else "worker",
        "type": "runner",
        "app": run.kind,
        **({"experiment_group_name": run.group_name} if run.group_name else {}),
    }


def _of_references(inputs: RunEnvironment) -> dict[str, str]:
    paths = {word: [str(outputs_path(run)) for run in runs] for word, runs in inputs.references.items() if runs}
    return {"POLYAXON_REFS_OUTPUTS_PATHS": json.dumps(paths)} if paths else {}


def _task_variables(run: Run) -> dict[str, str]:
    """The variables of a distributed run, for one task on one machine."""
    if not run.kind.has_tasks:
        return {}
    task = {"type": "master", "index": 0}
    return {"POLYAXON_TASK_INFO": json.dumps(task), "POLYAXON_CLUSTER": json.dumps({"master": ["127.0.0.1:2222"]})}


TOKEN_FILE = ".authtoken"  # in /plx-context


def token_file(token: str) -> str:
    """The content of the token file."""
    return json.dumps({_TOKEN_KEY: token})


def parse_token(text: str) -> str | None:
    """The token in the content of a token file; None: the file is incomplete."""
    try:
        found = json.loads(text)[_TOKEN_KEY]
    except (ValueError, LookupError, TypeError):
        return None
    return str(found)
