"""How the processes of a container start and end: two POSIX shell programs that run inside it. Pure.

`entrypoint.sh` is the parent of a run's command. After a stop request it waits for every remaining process, so that the
container ends no sooner than its last program. `terminate.sh` runs beside these processes when a run is to stop. It
sends SIGTERM to every process once, and suspends shells so that they start nothing further.
"""

from collections.abc import Sequence
from importlib import resources

SH = "/bin/sh"
# docker-init (tini) passes a signal on to all processes of the command, not only to its child. `docker stop` and an
# engine that shuts down send their signal to docker-init.
INIT_ENVIRONMENT = {"TINI_KILL_PROCESS_GROUP": "1"}
STOP_SIGNAL = "SIGTERM"  # overrides the image's, so that programs and `docker stop` agree on it


def _program(name: str) -> str:
    """A program without its comments."""
    lines = resources.files(__name__).joinpath(name).read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


_ENTRYPOINT = _program("entrypoint.sh")
TERMINATE: Sequence[str] = (SH, "-c", _program("terminate.sh"))  # prints the ids of other users' processes


def entrypoint(shell: str) -> Sequence[str]:
    """The parent of a command; the command follows as arguments.

    It runs in the shell of the command, so that the command gets the environment unchanged: dash drops variables whose
    names are not identifiers (`spark.cores`), bash keeps them. In POSIX mode bash does not read the file that BASH_ENV
    names; the shell of the command reads it.
    """
    return (shell, *(["--posix"] if shell.endswith("/bash") else []), "-c", _ENTRYPOINT, "polylocal")


def terminate_others(pids: Sequence[str]) -> Sequence[str]:
    """The command that ends processes of other users. Root runs it; it ignores processes that have already ended."""
    return (SH, "-c", 'kill -TERM "$@"; true', SH, *pids)
