"""The objects that all parts of the runner share. The daemon creates one context for all threads."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from polylocal.engine.base import Engine
from polylocal.engine.events import Deaths
from polylocal.errors import NotFound
from polylocal.installation import InstallationContext
from polylocal.polyaxonfile import Capacity, Resources, Specification
from polylocal.polyaxonfile.resources import asks_for_gpus
from polylocal.runner.engine_link import EngineLink
from polylocal.store.rows import Run


@dataclass(frozen=True)
class RunnerContext(InstallationContext):
    engine: Engine
    link: EngineLink
    deaths: Deaths
    installation_id: str  # in the labels of containers and images
    api_url: Callable[[], str]  # the API's address as seen from inside a container
    reaches_containers: Callable[[], bool] = lambda: False  # whether this machine can connect to containers directly
    log_grew: Callable[[Path], None] = lambda path: None  # wakes the followers of a log
    uid: int = field(default_factory=os.getuid)  # owner of outputs after a run
    gid: int = field(default_factory=os.getgid)

    def capacity(self, resources: Resources | None) -> Capacity | None:
        """Capacity of the engine's machine, with GPUs if `resources` ask for any. None: the engine never answered."""
        return self.link.capacity(with_gpus=asks_for_gpus(resources))

    def secrets(self, run: Run, specification: Specification) -> dict[str, str]:
        """The environment variables of the secrets that a run names. Raises NotFound."""
        if not specification.secrets:
            return {}
        if run.secrets_user_id is None:
            path = ".".join(map(str, specification.path_of_secret(next(iter(specification.secrets)))))
            raise NotFound(f"{path}: the user whose secrets {run.label} names was deleted.")
        owner = self.store.users.by_id(run.secrets_user_id)
        found: dict[str, str] = {}
        for name, keys in specification.secrets.items():
            found |= self.secret_store.read(owner.username, name, keys, identity=owner.identity)
        return found
