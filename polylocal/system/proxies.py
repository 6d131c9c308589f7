"""HTTP proxies: which one the environment names for an address, and the hosts that containers reach without one."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Mapping

from polylocal.system import addresses

_EVERY_HOST = "*"
_NAMES = ("NO_PROXY", "no_proxy")  # programs read one or the other; some prefer the second


def of(scheme: str, host: str, port: int | None) -> str | None:
    """The proxy for a connection, as a URL; None: it goes directly, as every connection to this machine does."""
    if addresses.is_this_machine(host):
        return None
    found = urllib.request.getproxies()
    bare = host.strip("[]")
    if urllib.request.proxy_bypass(f"{bare}:{port}" if port else bare):
        return None
    proxy = found.get(scheme) or found.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def without_proxy(hosts: Iterable[str], env: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """NO_PROXY and no_proxy with these hosts added to what there is.

    `env` counts before `inherited`; a variable that neither has is as the one in the other spelling.
    """
    found = {name: value for name in _NAMES if (value := env.get(name) or inherited.get(name))}
    return {name: _with_hosts(found.get(name) or next(iter(found.values()), ""), hosts) for name in _NAMES}


def _with_hosts(value: str, hosts: Iterable[str]) -> str:
    names = [name for name in (part.strip() for part in value.split(",")) if name]
    return value if _EVERY_HOST in names else ",".join(dict.fromkeys([*names, *hosts]))
