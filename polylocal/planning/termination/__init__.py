"""How a container's processes are started and ended: two POSIX shell programs that run inside it. Pure.

`entrypoint.sh` is the parent of a run's command. Once a stop was asked for, it waits for every process that is left, so
that a container ends no sooner than its last program. `terminate.sh` runs beside them when a run is to stop: it sends
SIGTERM to every process once, and holds shells so that nothing further of them runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from polylocal.polyaxonfile.commands import BASH, SH

# docker-init (tini) passes a signal on to all processes of the command, not to its child only: `docker stop` and an
# engine that shuts down send theirs to it
INIT_ENVIRONMENT = {"TINI_KILL_PROCESS_GROUP": "1"}
STOP_SIGNAL = "SIGTERM"  # whatever the image says: programs and `docker stop` agree on it


def _program(name: str) -> str:
    """A program without the comments for its readers."""
    lines = resources.files(__name__).joinpath(name).read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


_ENTRYPOINT = _program("entrypoint.sh")
TERMINATE: Sequence[str] = (SH, "-c", _program("terminate.sh"))  # prints the ids of processes of other users


def entrypoint(shell: str) -> Sequence[str]:
    """The parent of a command, which follows as arguments. It runs in the command's own shell, so that the environment
    reaches the command as it is: dash drops variables whose names are no identifiers (`spark.cores`), bash keeps them.
    In its POSIX mode bash does not read the file that BASH_ENV names: the command's shell does.
    """
    return (shell, *(["--posix"] if shell == BASH else []), "-c", _ENTRYPOINT, "polylocal")


def terminate_others(pids: Sequence[str]) -> Sequence[str]:
    """The command that ends processes of other users, for root; that one of them has ended by itself is no failure."""
    return (SH, "-c", 'kill -TERM "$@"; true', SH, *pids)
