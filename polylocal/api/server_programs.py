"""The programs of notebooks and tensorboards: their paths and credentials, and the runs that serve them."""

from collections.abc import Mapping
from contextlib import suppress

from polylocal.paths import Home
from polylocal.settings import Settings
from polylocal.statuses import Kind, is_done
from polylocal.store import Store
from polylocal.store.rows import Project, Run


class ServerProgram:
    """A program that serves its page at the root, as TensorBoard does.

    `prefix` is the documented path of the page, with its last slash.
    """

    commits_changes = False  # before it is stopped

    def default_image(self, settings: Settings) -> str | None:
        """The image of a server that is started without a polyaxonfile."""
        return settings.tensorboard_image

    def own_path(self, path: str, prefix: str) -> str:
        """The path at the server's own origin for a path at the API's."""
        return "/" + path.removeprefix(prefix.rstrip("/")).lstrip("/") if f"{path}/".startswith(prefix) else path

    def inner_path(self, path: str, prefix: str) -> str:
        """The path that the program gets for a path at either origin."""
        return self.own_path(path, prefix)

    def credentials(self, run: Run, home: Home) -> list[tuple[str, str]]:
        """Headers for the program, since its reader was admitted by the proxy."""
        return []


class Jupyter(ServerProgram):
    """Knows its documented path, and has a token."""

    commits_changes = True

    def default_image(self, settings: Settings) -> str | None:
        return settings.notebook_image

    def own_path(self, path: str, prefix: str) -> str:
        return prefix if path in ("/", prefix.rstrip("/")) else path

    def inner_path(self, path: str, prefix: str) -> str:
        return path

    def credentials(self, run: Run, home: Home) -> list[tuple[str, str]]:
        with suppress(FileNotFoundError):  # the notebook has just ended
            return [("authorization", f"token {home.server_token(run.uuid).read_text()}")]
        return []


PROGRAMS: Mapping[Kind, ServerProgram] = {Kind.NOTEBOOK: Jupyter(), Kind.TENSORBOARD: ServerProgram()}


def newest_server(store: Store, project: Project, kind: Kind, shown: Run | None = None) -> Run | None:
    """The newest notebook or tensorboard of a project, or that of the experiment or the group `shown`."""
    experiment = shown if shown and shown.kind is Kind.EXPERIMENT else None
    return store.runs.server(project, kind, experiment=experiment, group=None if experiment else shown)


def running_server(store: Store, project: Project, kind: Kind, shown: Run | None = None) -> Run | None:
    newest = newest_server(store, project, kind, shown)
    return newest if newest and not is_done(newest.status) else None
