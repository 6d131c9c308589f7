"""Protects this machine's services from connections that the daemon opens for users.

Such connections could reach services that trust this machine: on loopback, in containers of other users, the metadata
service of a cloud. `check` resolves a host once and refuses such addresses. Callers connect to the addresses that it
returns, so a second look-up can't give another result.
"""

import ipaddress
import platform
import re
import socket
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from polylocal.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str], list[str]]

_MAX_NAME = 253  # characters of a host name (RFC 1035)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# `inet_aton` also accepts fewer than four parts, octal and hexadecimal numbers
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE)
_LOCAL_NAMES = frozenset(
    """localhost localhost.localdomain ip6-localhost ip6-loopback host.docker.internal gateway.docker.internal
    host.containers.internal""".split()
)
# metadata services of clouds that are not link-local
_METADATA = "100.100.100.200/32 192.0.0.192/32 168.63.129.16/32 fd00:ec2::254/128 fd20:ce::254/128"
_NEVER = (
    ipaddress.ip_network("0.0.0.0/8"),  # "this host on this network"; Linux connects 0.0.0.0 to loopback
    ipaddress.ip_network("240.0.0.0/4"),  # reserved, and the broadcast address
    *map(ipaddress.ip_network, _METADATA.split()),
)
# IPv6 networks whose addresses contain an IPv4 address, and the number of bits after it
_CONTAINS_IPV4: tuple[tuple[ipaddress.IPv6Network, int], ...] = tuple(
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (
        ("::/96", 0),  # IPv4-compatible
        ("::ffff:0:0/96", 0),  # IPv4-mapped
        ("::ffff:0:0:0/96", 0),  # IPv4-translated (SIIT)
        ("64:ff9b::/96", 0),  # NAT64
        ("64:ff9b:1::/48", 0),  # NAT64 with a local prefix
        ("2002::/16", 80),  # 6to4
    )
)


@dataclass(frozen=True)
class Host:
    """A host that passed the check.

    `name` is normalized: ASCII, lower case, IDNA, without a final dot; IPv6 addresses without brackets. `addresses` are
    those to connect to, in the resolver's order; empty only if a proxy resolves the name.
    """

    name: str
    addresses: tuple[str, ...]

    @property
    def in_url(self) -> str:
        """The name in the form for URLs."""
        return f"[{self.name}]" if ":" in self.name else self.name


class LocalAddress(InvalidInput):
    """The host leads to this machine or its network segment."""


class UnknownHost(InvalidInput):
    """The host name is invalid or has no address."""


def check(host: str, *, by_proxy: bool = False, may_be_local: bool = False, resolve: Resolve | None = None) -> Host:
    """Resolve a host and check all its addresses. Raises LocalAddress, UnknownHost, both with a sentence for users.

    `host`: a name or an address in any spelling, with or without brackets, without a port. `by_proxy`: a proxy opens
    the connection and may know other names; then `addresses` may be empty. `may_be_local`: an admin allowed this host,
    wherever it leads.
    """
    name = normalize(host)
    literal = parse(name)
    if literal is not None:
        if not may_be_local and is_local(literal):
            raise _refusal(host, str(literal))
        return Host(str(literal), (str(literal),))
    if not may_be_local and _is_local_name(name):
        raise _refusal(host, "this machine")
    try:
        found = list(dict.fromkeys((resolve or _resolve)(name)))
    except (OSError, UnicodeError) as error:
        if by_proxy:
            return Host(name, ())
        raise UnknownHost([f"The host `{_printable(host)}` is unknown: {error}."]) from error
    for address in found:
        known = parse(address)
        if known is None or (not may_be_local and is_local(known)):
            raise _refusal(host, address)
    if not found and not by_proxy:
        raise UnknownHost([f"The host `{_printable(host)}` has no address."])
    return Host(name, tuple(found))


def normalize(host: str) -> str:
    """The normalized form of a host name or address. Raises UnknownHost for other texts."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    # IDNA maps full-width digits and other dots to ASCII
    name = unicodedata.normalize("NFKC", bare).replace("\u3002", ".").lower()
    name = name[:-1] if name.endswith(".") else name
    if ":" in name:
        try:
            address = ipaddress.IPv6Address(name)
        except ValueError as error:
            raise _invalid_host(host) from error
        return str(address)
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise _invalid_host(host) from error
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise _invalid_host(host)
    return name


def parse(host: str) -> Address | None:
    """Parse an address in any spelling that `getaddrinfo` accepts without a look-up; None for a name."""
    bare = host.strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        if not _NUMERIC.fullmatch(bare):
            return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare))
    except OSError:
        return None


def is_local(address: Address, networks: Iterable[Network] | None = None) -> bool:
    """Whether an address leads to this machine, one of its containers, or its network segment only.

    `networks`: the networks of the engine's bridges; None: the present ones.
    """
    bridges = tuple(bridge_networks() if networks is None else networks)
    return any(_is_local(form, bridges) for form in _forms(address))


def bridge_networks(system: Path = Path("/")) -> list[Network]:
    """Networks of this machine's bridges that reach containers only.

    Bridges that contain a network card are left out: they lead to the LAN.
    """
    devices = system / "sys/class/net"
    bridges = {folder.parent.name for folder in devices.glob("*/bridge")}
    inner = {name for name in bridges if not any(devices.glob(f"{name}/brif/*/device"))}
    return [network for device, network in _routes(system / "proc/net") if device in inner and network.prefixlen]


def _is_local(address: Address, bridges: Iterable[Network]) -> bool:
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return True
    networks = (*_NEVER, *bridges)
    return any(address.version == network.version and address in network for network in networks) or is_own(address)


def _forms(address: Address) -> Iterator[Address]:
    """An address, and all IPv4 addresses that a gateway or the system may derive from it."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    address = ipaddress.IPv6Address(int(address))  # drop the zone
    yield address
    for network, shift in _CONTAINS_IPV4:
        if address in network:
            yield ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    if address.teredo:
        yield address.teredo[1]
    if int(address) >> 32 & 0xFDFFFFFF == 0x5EFE:  # ISATAP, both forms of the interface identifier
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def is_this_machine(host: str) -> bool:
    """Whether the host of a URL is this machine. Names are not resolved."""
    try:
        name = normalize(host)
    except UnknownHost:
        return False
    literal = parse(name)
    if literal is None:
        return _is_local_name(name)
    return any(form.is_loopback or form.is_unspecified or is_own(form) for form in _forms(literal))


def is_own(address: Address) -> bool:
    """Whether an interface of this machine has the address: then it can be bound, or is its own source address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # connecting a datagram socket sends nothing
            own = str(probe.getsockname()[0])
    except OSError:  # no route
        own = ""
    return own == str(address) or (not _binds_anything(family) and _binds(family, str(address)))


@lru_cache
def _binds_anything(family: int) -> bool:
    """Whether programs may bind foreign addresses (`ip_nonlocal_bind`)."""
    return _binds(family, "198.51.100.77" if family == socket.AF_INET else "2001:db8::77")  # documentation only


def _binds(family: int, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _routes(folder: Path) -> Iterator[tuple[str, Network]]:
    """(device, network) of each route on Linux; empty on other systems."""
    for line in _lines(folder / "route")[1:]:
        device, destination, *_, mask = line.split()[:8]
        network, bits = (int.from_bytes(bytes.fromhex(word), "little") for word in (destination, mask))
        yield device, ipaddress.IPv4Network((network, bits.bit_count()))
    for line in _lines(folder / "ipv6_route"):
        words = line.split()
        yield words[-1], ipaddress.IPv6Network((int(words[0], 16), int(words[1], 16)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux, or without IPv6
        return []


def _is_local_name(name: str) -> bool:
    own = platform.node().lower().rstrip(".")
    return name in _LOCAL_NAMES or name.endswith(".localhost") or name == own


def _resolve(name: str) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


def _refusal(host: str, leads_to: str) -> LocalAddress:
    shown = _printable(host)
    where = "" if leads_to == shown else f" ({leads_to})"
    return LocalAddress(
        [f"`{shown}`{where} is this machine or its own network segment. Only an admin may connect to that."]
    )


def _invalid_host(host: str) -> UnknownHost:
    return UnknownHost([f"`{_printable(host)}` is neither a host name nor an address."])


def _printable(host: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in host[:100])
