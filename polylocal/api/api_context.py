"""The objects that every request handler of the API uses. The daemon makes one context."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from polylocal.api.feed import Feed
from polylocal.api.index_readers import IndexReaders
from polylocal.api.login_throttle import LoginThrottle
from polylocal.api.metrics import EngineTimes, Monitor
from polylocal.api.permission_watch import PermissionWatch
from polylocal.api.quotas import Quotas
from polylocal.engine.containers import Usage
from polylocal.engine.machine import Machine
from polylocal.files.disk import Item
from polylocal.installation import InstallationContext
from polylocal.planning.queue import QueueState
from polylocal.polyaxonfile import Capacity
from polylocal.store.rows import Run


@dataclass(frozen=True)
class ApiContext(InstallationContext):
    server_start_lock: threading.Lock = field(default_factory=threading.Lock)  # one start at a time
    feed: Feed = field(default_factory=Feed)  # of changes of runs and logs
    engine_times: EngineTimes = field(default_factory=EngineTimes)
    quotas: Quotas = field(default_factory=Quotas)  # each user's part of everything that is limited
    login_throttle: LoginThrottle = field(default_factory=LoginThrottle)
    index_readers: IndexReaders = field(default_factory=IndexReaders)  # readers of repository metadata
    engine_state: Callable[[], str | None] = lambda: None  # why nothing can run now; None: the engine answers
    scheduler_state: Callable[[], str | None] = lambda: None  # the same for the supervisor
    queue_state: Callable[[], QueueState] = QueueState  # the runs that the runner works on, and its retries
    look: Callable[[float | None], Sequence[Item]] = lambda budget_gib: ()  # lists what uses disk space
    collect: Callable[[float | None], Sequence[Item]] = lambda budget_gib: ()  # frees disk space
    image_sizes: Callable[[], Iterable[tuple[str, int]]] = lambda: ()  # (uuid of the build, bytes)
    reaches_containers: Callable[[], bool] = lambda: True  # if False, container ports are published on loopback
    has_image: Callable[[str], bool] = lambda name: False  # whether the engine has an image with this name
    usage: Callable[[str], Usage | None] = lambda container_id: None  # resource usage of a container now
    machine: Callable[[], Machine] = lambda: Machine("", 0, 0, "", "")  # the engine's machine now
    # capacity of the engine's machine as last seen; True: with GPUs; None: the engine never answered
    capacity: Callable[[bool], Capacity | None] = lambda with_gpus: None

    @cached_property
    def permission_watch(self) -> PermissionWatch:
        return PermissionWatch(self.store)

    @cached_property
    def monitor(self) -> Monitor:
        return Monitor(self.store, self.disk, self.engine_state, self.engine_times)

    def outputs(self, run: Run) -> Path | None:
        return self.outputs_path(run) if run.outputs else None

    def log(self, run: Run) -> Path:
        return self.log_path(run)
