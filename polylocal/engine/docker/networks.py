"""The network that runs join: one for the whole engine, shared by all home folders, on which runs can't reach each
other. Pure: it says how the network is to be, `dockerengine` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polylocal.errors import EngineError
from polylocal.settings import OWN_NETWORK

LABEL = "polylocal.network"
# a fixed name of the interface: the engine refuses a second network with it, so two daemons that make the network at
# the same moment end with one. The engine's check for duplicate names of networks alone has a gap
INTERFACE = "polylocal0"

_ICC = "com.docker.network.bridge.enable_icc"
_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_NO_ADDRESSES = ("non-overlapping IPv4 address pool", "predefined address pools have been fully subnetted")
_INSTEAD = 'or name another network by the setting `network`: with "bridge", runs can reach each other'

Json = Mapping[str, Any]


def ours(found: Sequence[Json]) -> Json | None:
    """Of the networks that the engine lists under the name, the one to use. EngineError: one is there that is not
    polylocal's, or that does not keep containers apart."""
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
    """What the SDK's `create_network` is called with."""
    options = {_ICC: "false", _NAME: INTERFACE}
    # before Docker 24 a network does not get the daemon's `mtu`, but the default bridge has it
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
    """A sentence for an engine that would not make the network."""
    if any(known in words for known in _NO_ADDRESSES):
        return (
            f"the engine has no free range of addresses for the network {OWN_NETWORK}: remove networks that nothing"
            f" uses (docker network prune), {_INSTEAD}"
        )
    return f"the engine could not make the network {OWN_NETWORK} ({words}): mend that, {_INSTEAD}"
