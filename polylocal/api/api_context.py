"""The objects that every request handler of the API uses. The daemon makes one context."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from polylocal.api.engine_times import EngineTimes
from polylocal.api.feed import Feed
from polylocal.api.index_readers import IndexReaders
from polylocal.api.login_throttle import LoginThrottle
from polylocal.api.permission_watch import PermissionWatch
from polylocal.api.quotas import Quotas
from polylocal.engine.containers import Usage
from polylocal.engine.machine import Machine
from polylocal.files.disk import Item
from polylocal.installation import InstallationContext
from polylocal.planning.queue import QueueState
from polylocal.polyaxonfile import Capacity

if TYPE_CHECKING:
    from polylocal.api.metrics import Monitor


@dataclass(frozen=True, kw_only=True)
class ApiContext(InstallationContext):
    """The functions report the state of the engine and the runner, and act on them."""

    engine_state: Callable[[], str | None]  # why nothing can run now; None: the engine answers
    scheduler_state: Callable[[], str | None]  # the same for the supervisor
    queue_state: Callable[[], QueueState]  # the runs that the runner works on, and its retries
    disk_usage: Callable[[float | None], Sequence[Item]]  # items on the disk, with a budget of images in GiB
    free_disk: Callable[[float | None], Sequence[Item]]  # removes items that are not needed, with the same budget
    image_sizes: Callable[[], Iterable[tuple[str, int]]]  # (uuid of the build, bytes)
    reaches_containers: Callable[[], bool]  # if False, container ports are published on loopback
    has_image: Callable[[str], bool]  # whether the engine has an image with this name
    usage: Callable[[str], Usage | None]  # resource usage of a container now
    machine: Callable[[], Machine]  # the engine's machine now
    # capacity of the engine's machine as last seen; True: with GPUs; None: the engine never answered
    capacity: Callable[[bool], Capacity | None]
    server_start_lock: threading.Lock = field(default_factory=threading.Lock)  # one start at a time
    feed: Feed = field(default_factory=Feed)  # of changes of runs and logs
    engine_times: EngineTimes = field(default_factory=EngineTimes)
    quotas: Quotas = field(default_factory=Quotas)  # each user's part of everything that is limited
    login_throttle: LoginThrottle = field(default_factory=LoginThrottle)
    index_readers: IndexReaders = field(default_factory=IndexReaders)  # readers of repository metadata

    @cached_property
    def permission_watch(self) -> PermissionWatch:
        return PermissionWatch(self.store)

    @cached_property
    def monitor(self) -> "Monitor":
        from polylocal.api.metrics import Monitor  # large; most daemons are never asked for metrics

        return Monitor(self.store, self.disk, self.engine_state, self.engine_times)
