"""Maintains the links `outputs/by-name/<user>/<project>` to the outputs of projects, for people."""

import logging
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from polylocal.errors import NotFound
from polylocal.paths import Home
from polylocal.store import Store
from polylocal.store.rows import Project

log = logging.getLogger(__name__)


class ProjectLinks:
    """The links of all projects. Thread-safe. Failures are only logged: the daemon itself never uses the links."""

    def __init__(self, home: Home, store: Store) -> None:
        self._folder = home.outputs_by_name
        self._projects = store.projects
        self._links: dict[int, Path] = {}  # by project id
        self._lock = threading.Lock()

    def refresh_all(self) -> None:
        """Create missing links and remove outdated ones."""
        with self._lock:
            for project in self._projects.all():
                self._make_link(project)
            wanted = set(self._links.values())
            for path in self._existing_links():
                if path not in wanted:
                    _unlink(path)

    def refresh(self, project_id: int) -> None:
        """Update the link of a project that was created, renamed or deleted."""
        with self._lock:
            try:
                project = self._projects.by_id(project_id)
            except NotFound:
                project = None
            old = self._links.pop(project_id, None)
            if project and not project.deleted_at:
                self._make_link(project)
            if old and old not in self._links.values():
                _unlink(old)

    def _make_link(self, project: Project) -> None:
        path = self._folder / project.user / project.name
        target = f"../../{project.uuid}"
        self._links[project.id] = path
        try:
            if path.is_symlink():
                if os.readlink(path) == target:
                    return
                path.unlink()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        except OSError as error:
            log.warning("the link %s can't be created: %s", path, error.strerror or error)

    def _existing_links(self) -> Iterable[Path]:
        with suppress(FileNotFoundError):
            for user in self._folder.iterdir():
                if user.is_dir() and not user.is_symlink():
                    yield from [path for path in user.iterdir() if path.is_symlink()]


def _unlink(path: Path) -> None:
    """Remove a link, and its folder if it is empty."""
    try:
        if path.is_symlink():
            path.unlink()
        path.parent.rmdir()
    except OSError as error:
        log.debug("%s: %s", path, error)
