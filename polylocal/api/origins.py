"""Origins of notebooks and tensorboards: `http://<kind>-<uuid>.localhost:<port>` for each server. Pure.

The page of a server is untrusted code in the user's browser. Browsers resolve names below `localhost` to loopback (RFC
6761, section 6.3), so each server has an origin of its own without any set-up, and its page can't reach cookies,
storage, service workers or tokens of other servers or of the API.
"""

import ipaddress
import re

from polylocal.statuses import Kind
from polylocal.store.rows import Run

# includes names below that of a server, since its page can set cookies for them
_OWN = re.compile(rf"(?:.*\.)?({Kind.NOTEBOOK}|{Kind.TENSORBOARD})-([0-9a-f]{{32}})\.localhost\.?")
# addresses of the listener that names below `localhost` reach
_REACHED = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})


def host_name(run: Run) -> str:
    """The host name of a server's own origin."""
    return f"{run.kind}-{run.uuid}.localhost"


def server_of(host: str | None) -> tuple[Kind, str] | None:
    """The kind and the uuid of the server that a `Host` header names; None: it names the API."""
    name, _ = split(host or "")
    match = _OWN.fullmatch(name)
    return (Kind(match[1]), match[2]) if match else None


def own_origin(run: Run, host: str | None, listens_on: str) -> str | None:
    """A server's own origin for a browser that uses `host` for the API; None: that browser can't reach the origin.

    `listens_on` is the setting `host`. On another machine the name would lead to that machine itself.
    """
    if not is_reachable(host, listens_on):
        return None
    return f"http://{host_name(run)}{split(host or '')[1]}"


def is_reachable(host: str | None, listens_on: str) -> bool:
    """Whether a browser that uses `host` for the API reaches names below `localhost` here."""
    return listens_on in _REACHED and is_loopback(split(host or "")[0])


def is_loopback(name: str) -> bool:
    """Whether a host name or an address, without a port, is this machine's own by definition."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def split(host: str) -> tuple[str, str]:
    """`[::1]:8000` → (`::1`, `:8000`), `Box.` → (`box`, ``)."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name.lower(), rest
    name, colon, port = host.partition(":")
    return name.lower().rstrip("."), colon + port
