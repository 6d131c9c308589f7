"""Where things lie under the home folder. Pure: nothing here touches the disk.

polylocal.db  polylocal.toml  token  daemon.log (+ .1, …)  daemon.out  daemon.lock
logs/<kind>s/<uuid>.log (+ .times)      what the container wrote, byte for byte
outputs/<project uuid>/<kind>s/<id>/    the outputs of a run; of an experiment in a group: groups/<group id>/<id>/
outputs/by-name/<user>/<project>        links to these for people; the daemon opens nothing through them
code/<project uuid>/                    one git repository a project
secrets/<user>/<name>                   values that runs and builds get by name
signing/<platform>.asc                  the secret keys that repositories of packages are signed with
contexts/<run uuid>/                    hand-over files mounted at /plx-context
notebooks/<run uuid>/                   the code that a running notebook works on, until it is committed
files/<sha1>                            packages and logs of package builds, and what people upload for them
scratch/                                build contexts, for as long as their builds take
downloads/<platform>/…                  repositories and containers of packages, as package managers read them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOME = Path("~/.polylocal")
BY_NAME = "by-name"  # no uuid, so no project's folder


@dataclass(frozen=True)
class Home:
    """The one folder that holds everything. A copy of it is a backup only while no daemon works on it."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "polylocal.db"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def settings(self) -> Path:
        return self.root / "polylocal.toml"

    @property
    def lock(self) -> Path:
        return self.root / "daemon.lock"

    @property
    def daemon_log(self) -> Path:
        return self.root / "daemon.log"

    @property
    def daemon_output(self) -> Path:
        """What a daemon in the background prints itself: why it could not start."""
        return self.root / "daemon.out"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def signing(self) -> Path:
        return self.root / "signing"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, kind: str, uuid: str) -> Path:
        return self.logs / f"{kind}s" / f"{uuid}.log"

    @property
    def outputs_root(self) -> Path:
        return self.root / "outputs"

    def project_outputs(self, project_uuid: str) -> Path:
        return self.outputs_root / project_uuid

    def outputs(self, project_uuid: str, kind: str, run_id: int) -> Path:
        return self.project_outputs(project_uuid) / f"{kind}s" / str(run_id)

    @property
    def outputs_by_name(self) -> Path:
        return self.outputs_root / BY_NAME

    def code(self, project_uuid: str) -> Path:
        return self.root / "code" / project_uuid

    def handover(self, run_uuid: str) -> Path:
        return self.root / "contexts" / run_uuid

    def hidden(self, run_uuid: str) -> Path:
        """The secret values that the run's container was given: what is hidden in its log."""
        return self.handover(run_uuid) / ".hidden"

    def server_token(self, run_uuid: str) -> Path:
        """What the server in a notebook's container wants to be told; the proxy tells it."""
        return self.handover(run_uuid) / ".servertoken"

    @property
    def scratch(self) -> Path:
        """What is needed for a moment only; each start of a daemon empties it."""
        return self.root / "scratch"

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    def work(self, run_uuid: str) -> Path:
        return self.root / "notebooks" / run_uuid
