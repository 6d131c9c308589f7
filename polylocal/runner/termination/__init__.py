"""How a container's processes are started and ended: two POSIX shell programs that run inside it. Pure.

`entrypoint.sh` is the parent of a run's command. Once a stop was asked for, it waits for every process that is left, so
that a container ends no sooner than its last program. `terminate.sh` runs beside them when a run is to stop: it sends
SIGTERM to every process once, and holds shells so that nothing further of them runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from polylocal.polyaxonfile.commands import SH

# docker-init (tini) passes a signal on to all processes of the command, not to its child only: `docker stop` and an
# engine that shuts down send theirs to it
INIT_ENVIRONMENT = {"TINI_KILL_PROCESS_GROUP": "1"}
STOP_SIGNAL = "SIGTERM"  # whatever the image says: programs and `docker stop` agree on it


def _program(name: str) -> str:
    """A program without the comments for its readers."""
    lines = resources.files(__name__).joinpath(name).read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


ENTRYPOINT: Sequence[str] = (SH, "-c", _program("entrypoint.sh"), "polylocal")  # the command follows
TERMINATE: Sequence[str] = (SH, "-c", _program("terminate.sh"))  # prints the ids of processes of other users


def terminate_others(pids: Sequence[str]) -> Sequence[str]:
    """The command that ends processes of other users, for root."""
    return (SH, "-c", 'kill -TERM "$@"', SH, *pids)
