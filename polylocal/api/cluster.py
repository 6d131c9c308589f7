"""The cluster of the platform, which has one node: this machine."""

from typing import NoReturn

from polylocal import __version__, clock
from polylocal.api.endpoint import Access, Call, Endpoint, refuse
from polylocal.api.paging import envelope
from polylocal.api.shapes import Json
from polylocal.api.shapes.platform import ClusterItem, GpuItem, NodeDetail, NodeItem, gpu_item, node_detail, node_item
from polylocal.errors import NotFound


def cluster(call: Call) -> ClusterItem:
    machine, uuid = call.context.machine(), _uuid(call)
    version = {"polylocal": __version__, "engine": machine.engine, "api": machine.engine_api, "gitVersion": __version__}
    return {
        "uuid": uuid,
        "version_api": version,
        "created_at": _since(call),
        "updated_at": clock.now(),
        "nodes": [node_item(machine, uuid)],
    }


def nodes(call: Call) -> Json:
    return envelope(call.request, 1, [node_item(call.context.machine(), _uuid(call))])


def node(call: Call) -> NodeDetail:
    _check(call)
    return node_detail(call.context.machine(), _uuid(call), _since(call), clock.now())


def gpus(call: Call) -> Json:
    _check(call)
    found = node_detail(call.context.machine(), _uuid(call), _since(call), clock.now())["gpus"]
    return envelope(call.request, len(found), found)


def gpu(call: Call) -> GpuItem:
    _check(call)
    for found in call.context.machine().gpus:
        if found.index == call.number("index"):
            return gpu_item(found, _uuid(call), _since(call), clock.now())
    raise NotFound


def fixed(call: Call) -> NoReturn:
    """The node can't be written: agents of a cluster register nodes, and here there are none."""
    raise refuse("The one node is this machine. The daemon finds out its properties, so they can't be written.")


def _check(call: Call) -> None:
    if call.number("sequence") != 1:
        raise NotFound


def _uuid(call: Call) -> str:
    """The id of the installation, padded to the length of a uuid."""
    return call.store.installation().ljust(32, "0")


def _since(call: Call) -> str:
    """When the installation was made: at the same time as its first user."""
    return call.store.users.all()[0].created_at


_NODE = "/api/v1/nodes/{sequence:id}"
_FIXED = "Refused: the machine can't be changed"

ENDPOINTS = [
    Endpoint("GET", "/api/v1/cluster", cluster, "The installation", Access.ADMIN, answer=ClusterItem),
    Endpoint("GET", "/api/v1/cluster/nodes", nodes, "This machine", Access.ADMIN, answer=NodeItem, many=True),
    Endpoint("POST", "/api/v1/cluster/nodes", fixed, _FIXED, Access.ADMIN, status=400),
    Endpoint("GET", _NODE, node, "This machine", Access.ADMIN, answer=NodeDetail),
    *(Endpoint(method, _NODE, fixed, _FIXED, Access.ADMIN, status=400) for method in ("PUT", "PATCH", "DELETE")),
    Endpoint("GET", f"{_NODE}/gpus", gpus, "The GPUs of this machine", Access.ADMIN, answer=GpuItem, many=True),
    Endpoint("POST", f"{_NODE}/gpus", fixed, _FIXED, Access.ADMIN, status=400),
    Endpoint("GET", f"{_NODE}/gpus/{{index:id}}", gpu, "A GPU of this machine", Access.ADMIN, answer=GpuItem),
    *(
        Endpoint(method, f"{_NODE}/gpus/{{index:id}}", fixed, _FIXED, Access.ADMIN, status=400)
        for method in ("PUT", "PATCH", "DELETE")
    ),
]
