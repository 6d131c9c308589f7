"""Creates a container from its plan by docker-py."""

from collections.abc import Iterable, Mapping
from typing import Any

from docker.types import DeviceRequest
from docker.types import Mount as BindMount

from polylocal.engine import termination
from polylocal.engine.containers import LOOPBACK
from polylocal.engine.docker.client import Client
from polylocal.engine.host import EngineInfo
from polylocal.engine.plan import HOST_OF_DESKTOPS, RUN_LABEL, ContainerPlan

_EVERY_HOST = "*"
_NO_PROXY = ("NO_PROXY", "no_proxy")  # programs read one or the other; some prefer the second


def create(
    client: Client, plan: ContainerPlan, about: EngineInfo, network: str, inherited: Mapping[str, str], *, init: bool
) -> str:
    """Create a container and return its id. `inherited`: the environment that its image and the client give it.

    Raises docker-py's errors.
    """
    env = {**plan.env, **without_proxy(plan.direct_hosts, plan.env, inherited)} if plan.direct_hosts else plan.env
    created = client.create_container(
        image=plan.image,
        entrypoint=list(plan.entrypoint or plan.command),
        command=list(plan.command) if plan.entrypoint else [],
        name=plan.name,
        labels={RUN_LABEL: "", **plan.labels},  # without this the container inherits the run label of its image
        environment={**env, **(termination.INIT_ENVIRONMENT if init else {})},
        stop_signal=termination.STOP_SIGNAL,
        user=plan.user,
        platform=plan.platform,
        ports=[plan.port] if _is_published(plan) else None,
        host_config=_host_config(client, plan, about, network, init=init),
    )
    found: str = created["Id"]
    return found


def _host_config(client: Client, plan: ContainerPlan, about: EngineInfo, network: str, *, init: bool) -> Any:
    limits = plan.limits
    memory = int(limits.memory_mib * 2**20) if limits.memory_mib else None
    return client.create_host_config(
        init=init,
        # not the older text `source:target:mode`: its paths can't contain a colon
        mounts=[BindMount(str(m.target), str(m.source), type="bind", read_only=m.read_only) for m in plan.mounts],
        network_mode=network,
        cap_drop=list(plan.cap_drop),
        cap_add=list(plan.cap_add) or None,
        extra_hosts={HOST_OF_DESKTOPS: "host-gateway"} if plan.network != "host" else None,
        nano_cpus=int(limits.cpus * 1e9) if limits.cpus else None,
        mem_limit=memory,
        port_bindings={plan.port: (LOOPBACK, None)} if _is_published(plan) else None,
        memswap_limit=memory,  # the engine's value is memory plus swap, so this allows no swap
        pids_limit=limits.pids,
        security_opt=None if plan.new_privileges else ["no-new-privileges"],
        mem_reservation=int(limits.memory_reservation_mib * 2**20) if limits.memory_reservation_mib else None,
        device_requests=[DeviceRequest(count=limits.gpus, capabilities=[["gpu"]])] if limits.gpus else None,
        shm_size=memory or int(about.memory_mib / 2) << 20,  # as on a host; the default of 64 MiB breaks data loaders
        # json-file: the engine's `local` driver loses the older part of a long log
        log_config={"Type": "json-file", "Config": {}} if about.name == "Docker" else None,
    )


def _is_published(plan: ContainerPlan) -> bool:
    return plan.port is not None and plan.publishes_port and plan.network != "host"


def without_proxy(hosts: Iterable[str], env: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY and no_proxy with these hosts added.

    The present value is that of `env`, else that of `inherited`. Where only one spelling has a value, both get it.
    """
    found = {name: value for name in _NO_PROXY if (value := env.get(name) or inherited.get(name))}
    return {name: _with_hosts(found.get(name) or next(iter(found.values()), ""), hosts) for name in _NO_PROXY}


def _with_hosts(value: str, hosts: Iterable[str]) -> str:
    names = [name for name in (part.strip() for part in value.split(",")) if name]
    return value if _EVERY_HOST in names else ",".join(dict.fromkeys([*names, *hosts]))
