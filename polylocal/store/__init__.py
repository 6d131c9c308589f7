"""The store: rows in SQLite. The database is the queue. Hints about changes only save time; nothing depends on them."""

import uuid as uuids
from collections.abc import Callable
from pathlib import Path

from polylocal.store.activities import Activities
from polylocal.store.bookmarks import Bookmarks
from polylocal.store.build_lists import BuildLists
from polylocal.store.built_images import BuiltImages
from polylocal.store.database import Database
from polylocal.store.files import FileFacts, StoredFiles
from polylocal.store.groups import Groups
from polylocal.store.metrics import Metrics
from polylocal.store.outputs import Outputs
from polylocal.store.platforms import Platforms
from polylocal.store.projects import Projects
from polylocal.store.queue import Queue
from polylocal.store.runs import NewRun, Runs
from polylocal.store.searches import ChartViews, Searches
from polylocal.store.usage import DiskUsage
from polylocal.store.users import Users

__all__ = ["NewRun", "Store"]

Listener = Callable[[int], None]


class Store:
    """The tables of the database file `path`. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self._listeners: list[Listener] = []
        self.users = Users(self.database)
        self._project_listeners: list[Listener] = []
        self.projects = Projects(self.database, self._project_changed)
        self.runs = Runs(self.database, self._notify)
        self.queue = Queue(self.database, self._notify)
        self.groups = Groups(self.database, self._notify)
        self.usage = DiskUsage(self.database)
        self.built_images = BuiltImages(self.database)
        self.outputs = Outputs(self.database)
        self.metrics = Metrics(self.database, self._notify)
        self.bookmarks = Bookmarks(self.database)
        self.searches = Searches(self.database)
        self.chart_views = ChartViews(self.database)
        self.activities = Activities(self.database)
        self.platforms = Platforms(self.database)
        self.build_lists = BuildLists(self.database, self._notify)
        self.files = StoredFiles(self.database)
        self.file_facts = FileFacts(self.database)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(run pk)` after each change of a run, on the changing thread. The result ends the calls."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def subscribe_to_projects(self, listener: Listener) -> None:
        """Call `listener(project id)` after a project was created, renamed or deleted, on the changing thread."""
        self._project_listeners.append(listener)

    def installation(self) -> str:
        """The id of this home folder: 12 hex digits that label everything that the daemon creates."""
        with self.database.write() as db:
            db.execute("insert or ignore into facts values ('installation', ?)", (uuids.uuid4().hex[:12],))
            found: str = db.execute("select value from facts where name = 'installation'").fetchone()["value"]
        return found

    def rights_version(self) -> int:
        """A counter that grows with every change, by any process, that may withdraw a permission."""
        return int(self.database.value("select n from rights_version"))

    def save_fact(self, name: str, value: str) -> None:
        """Store a fact about this home folder."""
        self.database.execute("insert or replace into facts values (?, ?)", (name, value))

    def fact(self, name: str) -> str | None:
        """A fact that `save_fact` stored. None: there is none."""
        value: str | None = self.database.value("select value from facts where name = ?", (name,))
        return value

    def close(self) -> None:
        self.database.close()

    def _notify(self, pk: int) -> None:
        for listener in list(self._listeners):
            listener(pk)

    def _project_changed(self, project_id: int) -> None:
        for listener in self._project_listeners:
            listener(project_id)
