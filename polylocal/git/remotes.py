"""Lets git fetch from URLs of users who must not reach this machine's own services.

The host of a URL is resolved and checked once (see `addresses`), and git connects to the checked addresses only.
Redirects are followed here, with the same check, and never by git.
"""

import asyncio
import os
import re
import shlex
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urljoin

from polylocal.errors import InvalidInput
from polylocal.git import command
from polylocal.system import addresses, proxies

MAX_REDIRECTS = 5
PROBE_S = 30.0  # seconds for all redirects together
SSH = "ssh -o BatchMode=yes"
# options instead of HOME: ssh finds keys by the user's entry in passwd
SSH_WITHOUT_KEYS = (
    f"{SSH} -F /dev/null -o PubkeyAuthentication=no -o HostbasedAuthentication=no -o GSSAPIAuthentication=no"
)

_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
_SCHEMES = {"git+ssh": "ssh", "ssh+git": "ssh"} | {name: name for name in _PORTS}
_USER = r"(?:(?P<user>[^@/\\?#\s-][^@/\\?#\s]*)@)?"
_HOST = r"(?P<host>\[[0-9a-fA-F:.]+\]|[^@/\\?#:\[\]\s]+)"
_URL = re.compile(rf"(?P<scheme>[a-z+]+)://{_USER}{_HOST}(?::(?P<port>[0-9]{{1,5}}))?(?P<path>/[^\s]*)?", re.IGNORECASE)
_SCP = re.compile(rf"{_USER}{_HOST}:(?P<path>[^:\s][^\n]*)")
_SCHEME = re.compile(r"[a-z0-9][a-z0-9+.-]*:(:|//)", re.IGNORECASE)  # a URL, or git's syntax `<helper>::<address>`
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ASKED = "/info/refs"
_SERVICE = "service=git-upload-pack"
_PROXY = re.compile(r"(http|https|all|no|ftp)_proxy$", re.IGNORECASE)


@dataclass(frozen=True)
class Route:
    """How git reaches a remote. `protocols`: the allowed ones, joined by colons."""

    url: str
    protocols: str
    config: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Parts:
    scheme: str
    user: str  # with the password, as in the URL
    host: str
    port: int | None
    path: str
    local_hosts: frozenset[str] = frozenset()

    def check(self, by_proxy: bool = False) -> addresses.Host:
        name = addresses.normalize(self.host)
        is_allowed = bool({name, f"{name}:{self.real_port}"} & self.local_hosts)
        return addresses.check(self.host, by_proxy=by_proxy, may_be_local=is_allowed)

    @property
    def login(self) -> str:
        return f"{self.user}@" if self.user else ""

    @property
    def proxy(self) -> str | None:
        return proxies.of(self.scheme, self.host, self.real_port)

    def at(self, host: str) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{self.login}{host}{port}{self.path}"

    @property
    def real_port(self) -> int:
        return self.port or _PORTS[self.scheme]


def find_route(url: str, local_hosts: Collection[str] = ()) -> Route:
    """The route to a URL of a user who is not an admin. May ask the server for redirects.

    `local_hosts`: hosts (`name` or `name:port`) that are allowed although they lead to this machine.

    Raises InvalidInput if the URL is invalid, its host is unknown, or it leads to this machine or a link-local address.
    Texts other than `host:path` and URLs of http, https, ssh or git get a route without any allowed protocol.
    """
    found = _URL.fullmatch(url)
    scheme = _SCHEMES.get(found["scheme"].lower()) if found else None
    if found and scheme:
        port = int(found["port"]) if found["port"] else None
        if port is not None and not 0 < port < 1 << 16:
            raise InvalidInput([f"its port {port} is invalid"])
        parts = _Parts(scheme, found["user"] or "", found["host"], port, found["path"] or "", frozenset(local_hosts))
        if scheme in ("http", "https"):
            return asyncio.run(_follow_redirects(parts))
        return _over_ssh(parts) if scheme == "ssh" else _over_git(parts)
    if _SCHEME.match(url):
        if url.partition(":")[0].lower() in _SCHEMES:
            raise InvalidInput(["it is not a URL of the form scheme://user@host:port/path"])
        return Route(url, "")
    if found := _SCP.fullmatch(url):
        host = _Parts("ssh", "", found["host"], None, "", frozenset(local_hosts)).check()
        login = f"{found['user']}@" if found["user"] else ""
        return Route(f"{login}{host.in_url}:{found['path']}", "ssh", environment=_ssh(host, None))
    return Route(url, "")


def without_secrets(url: str) -> str:
    """A git URL without user and password."""
    return re.sub(r"^(\w[\w+.-]*://)[^/@]*@", r"\1", url)


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Remove the proxy variables, which could contradict the proxy of a `Route`."""
    return {name: value for name, value in environment.items() if not _PROXY.match(name)}


def _over_ssh(parts: _Parts) -> Route:
    host = parts.check()
    return Route(parts.at(host.in_url), "ssh", environment=_ssh(host, parts.port))


def _ssh(host: addresses.Host, port: int | None) -> dict[str, str]:
    known_as = host.name if port in (None, _PORTS["ssh"]) else f"[{host.name}]:{port}"  # the form in `known_hosts`
    options = [f"HostName={host.addresses[0]}", f"HostKeyAlias={known_as}", "CheckHostIP=no", "ProxyCommand=none"]
    words = " ".join(f"-o {shlex.quote(option)}" for option in options)
    return {"GIT_SSH_COMMAND": f"{SSH_WITHOUT_KEYS} {words}", "GIT_SSH_VARIANT": "ssh"}


def _over_git(parts: _Parts) -> Route:
    host = parts.check()
    address = addresses.Host(host.addresses[0], host.addresses)
    named = host.in_url if parts.port is None else f"{host.in_url}:{parts.port}"
    return Route(parts.at(address.in_url), "git", environment={"GIT_OVERRIDE_VIRTUAL_HOST": named})


async def _follow_redirects(parts: _Parts) -> Route:
    """The route to the end of a URL's redirects. If a server does not answer in time, the redirects end there."""
    route, following = _http_route(parts), parts
    try:
        async with asyncio.timeout(PROBE_S):
            for _ in range(MAX_REDIRECTS):
                location = await _redirect(following)
                if location is None:
                    return route
                following = _apply_redirect(following, location)
                route = _http_route(following)
            if await _redirect(following) is not None:
                raise InvalidInput([f"it redirects more than {MAX_REDIRECTS} times"])
    except (TimeoutError, _Unanswered):
        return route  # git will fail in the same way, with a good message
    return route


def _http_route(parts: _Parts) -> Route:
    proxy = parts.proxy
    host = parts.check(by_proxy=proxy is not None)
    config = {"http.followRedirects": "false"}
    if host.addresses and command.version() >= command.PINS_SINCE:
        found = ",".join(f"[{address}]" if ":" in address else address for address in host.addresses)
        config["http.curloptResolve"] = f"{host.name}:{parts.real_port}:{found}"
    environment = {"http_proxy": proxy, "https_proxy": proxy} if proxy else {}
    return Route(parts.at(host.in_url), "http:https", config, environment)


class _Unanswered(Exception):
    """The server did not answer, or not in HTTP."""


async def _redirect(parts: _Parts) -> str | None:
    """The target of the server's redirect; None if it does not redirect. Raises _Unanswered."""
    import httpx2  # a slow import that few daemons need

    proxy = parts.proxy
    host = parts.check(by_proxy=proxy is not None)
    sign = "&" if "?" in parts.path else "?"
    path = f"{parts.path}{_ASKED}{sign}{_SERVICE}"
    port = "" if parts.port is None else f":{parts.port}"
    headers = {
        "Host": f"{host.in_url}{port}",
        "User-Agent": f"git/{'.'.join(map(str, command.version()))}",
        "Accept": "*/*",
        "Git-Protocol": "version=2",
    }
    user, _, password = parts.user.partition(":")
    auth = httpx2.BasicAuth(unquote(user), unquote(password)) if parts.user else None
    # a proxy resolves the name itself; otherwise connect to the checked address
    to = host.in_url if proxy else addresses.Host(host.addresses[0], ()).in_url
    try:
        async with (
            httpx2.AsyncClient(trust_env=False, proxy=proxy, verify=_certificates(), follow_redirects=False) as client,
            client.stream(
                "GET",
                f"{parts.scheme}://{to}{port}{path}",
                headers=headers,
                auth=auth,
                extensions={"sni_hostname": host.name},
            ) as answer,
        ):
            return answer.headers.get("location") if answer.status_code in _REDIRECTS else None
    except (OSError, ValueError, ImportError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _Unanswered from error


def _apply_redirect(parts: _Parts, location: str) -> _Parts:
    """The repository that a redirect leads to. As in git, the end of the URL must stay the same."""
    url = f"{parts.scheme}://{parts.host}{f':{parts.port}' if parts.port else ''}{parts.path}{_ASKED}"
    target = urljoin(url, location)
    found = _URL.fullmatch(target)
    scheme = found["scheme"].lower() if found else ""
    path, mark, _ = ((found and found["path"]) or "").rpartition(_ASKED)
    if not found or scheme not in ("http", "https") or not mark:
        raise InvalidInput([f"it redirects to `{target[:200]}`, which is not a repository"])
    port = int(found["port"]) if found["port"] else None
    other = _Parts(scheme, found["user"] or "", found["host"], port, path, parts.local_hosts)
    is_same = (other.scheme, other.host.lower(), other.real_port) == (parts.scheme, parts.host.lower(), parts.real_port)
    if is_same and not other.user:
        return replace(other, user=parts.user)
    return other  # user and password are for the original server only


def _certificates() -> ssl.SSLContext:
    """The certificates that git trusts, from the same environment variables."""
    context = ssl.create_default_context()
    for name in ("GIT_SSL_CAINFO", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if path := os.environ.get(name):
            context.load_verify_locations(path)
            break
    if os.environ.get("GIT_SSL_NO_VERIFY"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
