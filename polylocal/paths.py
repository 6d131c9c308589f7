"""The layout of the home folder. Pure: nothing here touches the disk.

polylocal.db                            the database
polylocal.toml                          settings
token                                   the admin's token
daemon.log (+ .1, …)  daemon.out        the daemon's log, and its output at its start
daemon.lock                             held while a daemon runs; contains its process id and URL
logs/<kind>s/<uuid>.log (+ .times)      the output of a run, byte for byte, and the times of its parts
outputs/<project uuid>/<kind>s/<id>/    the outputs of a run; of an experiment in a group: groups/<group id>/<id>/
outputs/by-name/<user>/<project>        links to the folders above, for people; the daemon never opens them
code/<project uuid>/                    the bare git repository of a project
secrets/<user>/<name>                   values that runs and builds get by name
signing/<platform>.asc                  secret keys that sign package repositories
contexts/<run uuid>/                    files that are handed to a container, mounted at /plx-context
notebooks/<run uuid>/                   the code of a running notebook, until its changes are committed
files/<sha1>                            packages and logs of package builds, and files that people upload for them
scratch/                                temporary files; each start of a daemon empties it
downloads/<platform>/…                  package repositories and containers, as package managers read them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOME = Path("~/.polylocal")
OUTPUTS = "outputs"
BY_NAME = "by-name"  # cannot collide with a project: project folders are named after uuids


def run_outputs(kind: str, run_id: int, group_id: int | None = None) -> str:
    """The outputs folder of a run relative to its project's: `jobs/3`, in group 7 `groups/7/12`."""
    return f"groups/{group_id}/{run_id}" if group_id and kind == "experiment" else f"{kind}s/{run_id}"


class _Inside:
    """An attribute of `Home`: the path of an entry at its top."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, home: Home, owner: type | None = None) -> Path:
        return home.root / self._name


@dataclass(frozen=True)
class Home:
    """The folder that holds all data of one installation.

    A plain copy is a backup only if it was made while no daemon was running.
    """

    root: Path

    database = _Inside("polylocal.db")
    settings = _Inside("polylocal.toml")
    token = _Inside("token")
    lock = _Inside("daemon.lock")
    daemon_log = _Inside("daemon.log")
    daemon_output = _Inside("daemon.out")  # output of a daemon in the background: shows why a start failed
    secrets = _Inside("secrets")
    signing = _Inside("signing")
    logs = _Inside("logs")
    files = _Inside("files")
    downloads = _Inside("downloads")
    scratch = _Inside("scratch")  # temporary files; each start of a daemon empties the folder
    outputs_root = _Inside(OUTPUTS)
    outputs_by_name = _Inside(f"{OUTPUTS}/{BY_NAME}")

    def log(self, kind: str, uuid: str) -> Path:
        return self.logs / f"{kind}s" / f"{uuid}.log"

    def project_outputs(self, project_uuid: str) -> Path:
        return self.outputs_root / project_uuid

    def outputs(self, project_uuid: str, kind: str, run_id: int) -> Path:
        """The outputs folder of a run that belongs to no group, or of a group with all its experiments."""
        return self.project_outputs(project_uuid) / run_outputs(kind, run_id)

    def code(self, project_uuid: str) -> Path:
        return self.root / "code" / project_uuid

    def handover(self, run_uuid: str) -> Path:
        return self.root / "contexts" / run_uuid

    def hidden(self, run_uuid: str) -> Path:
        """The secret values that a run's container received. They are masked in its log."""
        return self.handover(run_uuid) / ".hidden"

    def server_token(self, run_uuid: str) -> Path:
        """The token of the Jupyter server in a notebook's container. The daemon's proxy sends it."""
        return self.handover(run_uuid) / ".servertoken"

    def work(self, run_uuid: str) -> Path:
        return self.root / "notebooks" / run_uuid
