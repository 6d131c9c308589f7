"""Users, versions, the machine and the disk as JSON. Pure."""

from typing_extensions import TypedDict  # pydantic reads schemas from this one on Python 3.11

from polylocal.api.shapes import Json
from polylocal.api.shapes.base import as_shape
from polylocal.engine.machine import Gpu, Machine
from polylocal.files.disk import Item
from polylocal.store.rows import Activity, User


class UserItem(TypedDict):
    username: str
    email: str | None
    is_superuser: bool


class TokenItem(TypedDict):
    token: str


class VersionsItem(TypedDict):
    latest_version: str
    min_version: str


class LogHandlerItem(TypedDict):
    dsn: str | None
    environment: str
    tags: dict[str, str]


class SearchItem(TypedDict):
    """A query that a user keeps."""

    id: int
    name: str | None
    query: Json
    meta: Json | None


class ActivityItem(TypedDict):
    """An action of a user on a project or a run."""

    id: int
    event_action: str
    event_subject: str
    actor: str
    created_at: str
    object_id: int
    object_name: str


class GpuItem(TypedDict):
    """A GPU of a node; memory in MiB."""

    uuid: str
    cluster_node: str
    index: int
    serial: str
    name: str
    memory: int
    created_at: str
    updated_at: str


class NodeItem(TypedDict):
    """The machine in a list of nodes. Memory in MiB. Clients refuse an answer with any other key."""

    uuid: str
    sequence: int
    name: str
    hostname: str
    role: str
    memory: int
    cpu: float
    n_gpus: int


class NodeDetail(NodeItem):
    """The machine by itself."""

    status: str
    is_current: bool
    docker_version: str | None
    kubelet_version: str | None
    os_image: str
    kernel_version: str
    schedulable_taints: bool
    schedulable_state: bool
    gpus: list[GpuItem]


class ClusterItem(TypedDict):
    """The installation."""

    uuid: str
    version_api: Json
    created_at: str
    updated_at: str
    nodes: list[NodeItem]


class DiskItem(TypedDict):
    kind: str
    name: str
    id: str
    size_bytes: int
    last_used: str | None
    goes: bool
    can_go: bool
    reason: str


class RoomItem(TypedDict):
    freed_bytes: int
    results: list[DiskItem]


def user_item(user: User) -> UserItem:
    return as_shape(UserItem, user)


def activity_item(activity: Activity) -> ActivityItem:
    return as_shape(ActivityItem, activity, event_action=activity.action, event_subject=activity.subject)


def disk_item(item: Item) -> DiskItem:
    return as_shape(DiskItem, item, last_used=item.last_used or None)


def node_item(machine: Machine, uuid: str) -> NodeItem:
    """`uuid`: the installation's."""
    return as_shape(
        NodeItem,
        machine,
        uuid=uuid,
        sequence=1,
        hostname=machine.name,
        role="master",
        memory=machine.memory_mib,
        cpu=float(machine.cpus),
        n_gpus=len(machine.gpus),
    )


def node_detail(machine: Machine, uuid: str, since: str, now: str) -> NodeDetail:
    """`since`: when the installation was made, as a stamp."""
    return as_shape(
        NodeDetail,
        machine,
        **node_item(machine, uuid),
        status="ready" if machine.engine else "notReady",
        is_current=True,
        docker_version=machine.engine,
        kubelet_version=None,
        kernel_version=machine.kernel,
        schedulable_taints=True,
        schedulable_state=machine.engine is not None,
        gpus=[gpu_item(gpu, uuid, since, now) for gpu in machine.gpus],
    )


def gpu_item(gpu: Gpu, node: str, since: str, now: str) -> GpuItem:
    memory = gpu.memory_total >> 20
    return as_shape(GpuItem, gpu, cluster_node=node, memory=memory, created_at=since, updated_at=now)
