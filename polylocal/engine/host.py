"""Protocol: the version, the machine and the networks of an engine."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from polylocal.engine.machine import Machine


@dataclass(frozen=True)
class EngineInfo:
    name: str  # "Docker" or "Podman"
    version: str
    api_version: str
    address: str
    cpus: int
    memory_mib: float
    root: str  # the folder of its images
    is_rootless: bool
    is_desktop: bool  # the engine runs in its own virtual machine
    gives_gpus: bool = False  # the engine reports that it can give GPUs; see `Host.gpus`


@dataclass(frozen=True)
class GpuSupport:
    """How many GPUs the engine can give to containers."""

    count: int | None  # None: it can't be seen from here
    problem: str = ""  # why there are none
    fix: str = ""  # one line for the user: how to get them; "": unknown


@dataclass(frozen=True)
class Isolation:
    """Whether polylocal's own network isolates the containers of runs from each other."""

    is_supported: bool = True  # False: the engine has no network that does
    exists: bool = True  # False: the network is created when it is first needed
    problem: str = ""  # the reason why it does not isolate them
    fix: str = ""  # one line for the user


class Host(Protocol):
    """Describes the machine of the engine. `base` has the rules that hold for every method."""

    @property
    def node(self) -> str:
        """The name of the machine on which the engine itself runs and builds images."""

    @property
    def is_local(self) -> bool:
        """Whether the daemon reaches the engine without a network. Then only the end of the engine itself cuts a
        connection."""

    @property
    def places_containers(self) -> bool:
        """Whether the engine chooses a machine for each container, so that only `ContainerState.node` names it."""

    def info(self) -> EngineInfo: ...

    def machine(self) -> Machine:
        """The machine and its GPUs at this moment. Asks the driver, but not the engine: its version is as in the last
        `info`."""

    def gpus(self) -> GpuSupport:
        """Asks the driver for the number of GPUs, and the last `info` for the support of the engine."""

    def buildkit(self) -> str | None:
        """The name of the installed BuildKit, used or not; None: there is none."""

    def time(self) -> datetime:
        """The engine's clock."""

    def unsupported(self) -> str:
        """The reason why the daemon can't use this version of the engine, in a few words; "": it can."""

    def isolation(self) -> Isolation:
        """Examines polylocal's own network. Creates nothing."""

    def gateway(self, network: str) -> str | None:
        """The address of the host on this network, where containers reach it; None: it has none.

        Creates polylocal's own network. Raises ContainerMissing: no such network; EngineError: polylocal's own network
        can't be created.
        """

    def close(self) -> None:
        """Close all connections, so that open streams end. Idempotent."""
