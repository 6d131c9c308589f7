"""The cluster of the platform, which has one node: this machine."""

from functools import partial
from typing import NoReturn

from polylocal import __version__, clock
from polylocal.api.endpoint import Access, Call, Endpoint, refusal
from polylocal.api.paging import envelope
from polylocal.api.shapes import Json
from polylocal.api.shapes.platform import ClusterItem, GpuItem, NodeDetail, NodeItem, node_detail, node_item
from polylocal.errors import NotFound


def cluster(call: Call) -> ClusterItem:
    machine, uuid = call.context.machine(), _uuid(call)
    version = {"polylocal": __version__, "engine": machine.engine, "api": machine.engine_api, "gitVersion": __version__}
    return {
        "uuid": uuid,
        "version_api": version,
        "created_at": call.store.users.all()[0].created_at,
        "updated_at": clock.now(),
        "nodes": [node_item(machine, uuid)],
    }


def nodes(call: Call) -> Json:
    return envelope(call.request, 1, [node_item(call.context.machine(), _uuid(call))])


def node(call: Call) -> NodeDetail:
    """Raises NotFound."""
    if call.number("sequence") != 1:
        raise NotFound
    installed_at = call.store.users.all()[0].created_at  # with the first user
    return node_detail(call.context.machine(), _uuid(call), installed_at, clock.now())


def gpus(call: Call) -> Json:
    found = node(call)["gpus"]
    return envelope(call.request, len(found), found)


def gpu(call: Call) -> GpuItem:
    found = [gpu for gpu in node(call)["gpus"] if gpu["index"] == call.number("index")]
    if not found:
        raise NotFound
    return found[0]


def refuse_change(call: Call) -> NoReturn:
    """The node can't be written: agents of a cluster register nodes, and here there are none."""
    raise refusal("The one node is this machine. The daemon finds out its properties, so they can't be written.")


def _uuid(call: Call) -> str:
    """The id of the installation, padded to the length of a uuid."""
    return call.store.installation().ljust(32, "0")


_CLUSTER = "/api/v1/cluster"
_NODE = "/api/v1/nodes/{sequence:id}"

_admin = partial(Endpoint, access=Access.ADMIN)
_refused = partial(_admin, handler=refuse_change, about="Refused: the machine can't be changed", status=400)

ENDPOINTS = [
    _admin("GET", _CLUSTER, cluster, "The installation", answer=ClusterItem),
    _admin("GET", f"{_CLUSTER}/nodes", nodes, "This machine", answer=NodeItem, many=True),
    _refused("POST", f"{_CLUSTER}/nodes"),
    _admin("GET", _NODE, node, "This machine", answer=NodeDetail),
    _admin("GET", f"{_NODE}/gpus", gpus, "The GPUs of this machine", answer=GpuItem, many=True),
    _refused("POST", f"{_NODE}/gpus"),
    _admin("GET", f"{_NODE}/gpus/{{index:id}}", gpu, "A GPU of this machine", answer=GpuItem),
    *(
        _refused(method, path)
        for path in (_NODE, f"{_NODE}/gpus/{{index:id}}")
        for method in ("PUT", "PATCH", "DELETE")
    ),
]
