"""The properties of polylocal's own network, on which runs can't reach each other. Pure: `host` creates it.

All home folders that use one engine share this network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from polylocal.engine.plan import OWN_NETWORK
from polylocal.errors import EngineError

LABEL = "polylocal.network"
# The engine refuses a second network with this interface. So two daemons that create the network at the same moment end
# with one; the engine's check for duplicate names has a gap.
INTERFACE = "polylocal0"

_ICC = "com.docker.network.bridge.enable_icc"
_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_NO_ADDRESSES = ("non-overlapping IPv4 address pool", "predefined address pools have been fully subnetted")
_INSTEAD = 'or name another network by the setting `network`: with "bridge", runs can reach each other'

Json = Mapping[str, Any]


def find_own(found: Sequence[Json]) -> Json | None:
    """The network to use among those that the engine lists; None: there is none yet.

    Raises EngineError: a network of this name is not polylocal's, or does not keep containers apart.
    """
    named = [network for network in found if network["Name"] == OWN_NETWORK]
    for network in named:
        if problem := _problem(network):
            raise EngineError(
                f"the engine has a network named {OWN_NETWORK} that {problem}: remove it"
                f" (docker network rm {network['Id'][:12]}), {_INSTEAD}"
            )
    return min(named, key=lambda network: (network["Created"], network["Id"]), default=None)


def _problem(network: Json) -> str | None:
    if LABEL not in (network.get("Labels") or {}):
        return "polylocal did not make"
    if network["Driver"] != "bridge":
        return f"is of the driver {network['Driver']}"
    if (network.get("Options") or {}).get(_ICC) != "false":
        return "lets containers reach each other"
    if network.get("EnableIPv6"):
        return "has IPv6, which its rules do not cover"
    return None


def arguments(default_bridge: Json) -> dict[str, Any]:
    """The arguments of docker-py's `create_network`."""
    options = {_ICC: "false", _NAME: INTERFACE}
    # before Docker 24 only the default bridge gets the `mtu` of the daemon's configuration
    if mtu := (default_bridge.get("Options") or {}).get(_MTU):
        options[_MTU] = mtu
    return {
        "name": OWN_NETWORK,
        "driver": "bridge",
        "options": options,
        "labels": {LABEL: "isolated"},
        "check_duplicate": True,
        "enable_ipv6": False,
    }


def refusal(words: str) -> str:
    """The error message if the engine refuses to create the network. `words`: its reason."""
    if any(known in words for known in _NO_ADDRESSES):
        return (
            f"the engine has no free range of addresses for the network {OWN_NETWORK}: remove networks that nothing"
            f" uses (docker network prune), {_INSTEAD}"
        )
    return f"the engine could not create the network {OWN_NETWORK} ({words}): fix that, {_INSTEAD}"
