"""The HTTP proxy that the environment names for an address."""

from polylocal.system import addresses


def of(scheme: str, host: str, port: int | None) -> str | None:
    """The URL of the proxy for a connection; None for a direct one, as always to this machine."""
    if addresses.is_this_machine(host):
        return None
    import urllib.request  # a client of the daemon on its own machine needs none of it

    found = urllib.request.getproxies()
    bare = host.strip("[]")
    if urllib.request.proxy_bypass(f"{bare}:{port}" if port else bare):
        return None
    proxy = found.get(scheme) or found.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"
