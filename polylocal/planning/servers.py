"""The commands and ports of notebooks and tensorboards. Pure.

Both programs listen on all addresses of the container. Browsers reach them through the daemon's proxy only. Jupyter
needs the path at which the proxy shows it; TensorBoard's pages work at any path.
"""

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from polylocal.polyaxonfile import Specification
from polylocal.statuses import Kind
from polylocal.store.rows import Run

PORTS: Mapping[Kind, int] = {Kind.NOTEBOOK: 8888, Kind.TENSORBOARD: 6006}  # the programs' own
_MISSING = "echo 'polylocal: the image has no {program}: install it with a build step, `pip install {package}`' >&2"


def command(run: Run, specification: Specification, watched: PurePosixPath | None) -> str:
    """The shell command of a notebook or a tensorboard. `watched`: the folder with the event files of a tensorboard."""
    if run.kind == Kind.TENSORBOARD:
        arguments = ["--logdir", str(watched), "--host", "0.0.0.0", "--port", str(PORTS[Kind.TENSORBOARD])]
        return _started("tensorboard", "tensorboard", arguments)
    flavour = "lab" if specification.file.backend == "lab" else "notebook"
    base = f"/notebook/{run.owner}/{run.project_name}/"
    arguments = [flavour, "--no-browser", "--allow-root", "--ip=0.0.0.0", f"--port={PORTS[Kind.NOTEBOOK]}"]
    # the name of the option before Jupyter 7, and the one since; each version ignores the other
    arguments += [f"--{app}.base_url={base}" for app in ("NotebookApp", "ServerApp")]
    package = "jupyterlab" if flavour == "lab" else "notebook"
    return f"cd /code && {_started('jupyter', package, arguments)}"


def _started(program: str, package: str, arguments: list[str]) -> str:
    missing = _MISSING.format(program=program, package=package)
    return f"command -v {program} >/dev/null || {{ {missing}; exit 127; }}; exec {program} {shlex.join(arguments)}"
