"""The plan of a container, and the labels and names by which polylocal finds its containers and images. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

HOME_LABEL = "polylocal.home"  # the installation that made a thing: clean-up touches nothing without it
RUN_LABEL = "polylocal.run"  # `<kind>/<uuid>`
# Images have separate labels. A container inherits the labels of its image, so a shared label would turn every
# container of a built image into a run.
IMAGE_LABEL = "polylocal.image"  # the installation
BUILD_LABEL = "polylocal.build"  # the uuid of the build

OWN_NETWORK = "polylocal"  # the engine makes this network when it is first needed
HOST_OF_DESKTOPS = "host.docker.internal"  # the host, for containers of an engine in a virtual machine

# Capabilities that engines give by default and that containers do not get. NET_RAW reads the traffic of neighbours.
# Device nodes (MKNOD) and file capabilities (SETFCAP) outlive the container on the host's disk. No training program
# needs to change its own capabilities (SETPCAP). Package managers, su, ssh and init programs use the others.
DROPPED = ("MKNOD", "NET_RAW", "SETFCAP", "SETPCAP")

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Mount:
    """A file or folder of the daemon's machine, and its path in the container."""

    source: Path
    target: PurePosixPath
    read_only: bool = False


@dataclass(frozen=True)
class Limits:
    """None: no limit. `cpus` in cores, `memory_mib` in MiB, `gpus` a number of devices."""

    cpus: float | None = None
    memory_mib: float | None = None
    memory_reservation_mib: float | None = None
    gpus: int | None = None
    pids: int | None = None  # processes and threads


@dataclass(frozen=True)
class ContainerPlan:
    """A container that does not exist yet."""

    name: str
    image: str
    command: Sequence[str]
    labels: Labels
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    limits: Limits = Limits()
    network: str = "bridge"
    direct_hosts: Sequence[str] = ()  # hosts that the container reaches without a proxy
    user: str | None = None  # None: the user of the image
    port: int | None = None  # the port on which a server listens
    publishes_port: bool = True  # publish `port` on loopback, at a free port; else only the container's address has it
    new_privileges: bool = False  # programs may gain privileges, as sudo does
    cap_drop: Sequence[str] = DROPPED  # Linux capabilities, without CAP_
    cap_add: Sequence[str] = ()
    platform: str | None = None  # as `linux/arm64`; None: the platform of the machine
    entrypoint: Sequence[str] = ()  # the program that runs the command; empty: the command is the program


def is_name_of(name: str, build_uuid: str) -> bool:
    """Whether an image's name is the one that its build gave it. Users may add further names."""
    return bool(build_uuid) and name.endswith(f":{build_uuid}")


def is_our_name(name: str, run: str) -> bool:
    """Whether polylocal names containers like this. `run` is the run label; "" is that of a helper.

    Any image can have these labels, and its containers inherit them. A name is not inherited.
    """
    kind, _, uuid = run.partition("/")
    own = rf"plx-{re.escape(kind)}-{re.escape(uuid)}(-\d+)?" if run else r"plx-[\w-]+"
    return re.fullmatch(own, name) is not None
