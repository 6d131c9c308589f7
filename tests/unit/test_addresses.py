"""Detection of hosts that lead to this machine, in every spelling."""

from __future__ import annotations

import ipaddress
import platform
import socket
from pathlib import Path

import pytest

from polylocal.system.addresses import Host, LocalAddress, UnknownHost, bridge_networks, check, is_local

LOCAL = """
127.0.0.1 127.255.3.4 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 0x7f000001 2130706433 017700000001 0 0.0.0.0 0.1.2.3
[::1] ::1 0:0:0:0:0:0:0:1 :: [::] ::ffff:127.0.0.1 ::ffff:7f00:1 ::127.0.0.1 ::ffff:0:127.0.0.1
64:ff9b::127.0.0.1 64:ff9b:1::7f00:1 2002:7f00:1:: 2001:db8::5efe:7f00:1 2001:db8::200:5efe:7f00:1
169.254.169.254 169.254.0.1 ::ffff:169.254.169.254 fe80::1 fe80::1%eth0 [fe80::1%25eth0] febf::1
224.0.0.1 239.255.255.250 ff02::1 255.255.255.255 240.0.0.1 100.100.100.200 fd00:ec2::254
localhost LOCALHOST localhost. a.localhost a.b.LocalHost. localhost.localdomain ip6-localhost
host.docker.internal gateway.docker.internal
\uff11\uff12\uff17.0.0.1 127\u30020\u30020\u30021 \u24dbocalhost
""".split()
NOT_LOCAL = """
192.168.1.7 10.20.30.40 172.31.255.1 8.8.8.8 [2001:db8::5] 2606:4700::1111 fd12:3456::9 64:ff9b::808:808
2002:808:808:: 134744072
""".split()
NO_HOST = [
    "",
    ".",
    "a b",
    "a..b",
    "-a",
    "a-",
    "a/b",
    "a@b",
    "a\\b",
    "a\nb",
    "a\0b",
    "a%b",
    "1:2",
    "[",
    "x" * 254,
    "a:1",
]


@pytest.mark.parametrize("host", LOCAL)
def test_refuses_a_host_of_this_machine(host: str) -> None:
    with pytest.raises(LocalAddress) as refused:
        check(host)
    assert "Only an admin may connect" in str(refused.value)
    with pytest.raises(LocalAddress):
        check(host, by_proxy=True)


@pytest.mark.parametrize("host", NOT_LOCAL)
def test_takes_an_address_of_another_machine(host: str) -> None:
    found = check(host)
    assert found.addresses == (found.name,)


@pytest.mark.parametrize("host", NO_HOST)
def test_refuses_what_is_no_host(host: str) -> None:
    with pytest.raises(UnknownHost):
        check(host, resolve=lambda name: ["192.168.1.7"])


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["192.168.1.7", "::1"], ["fe80::1%eth0"], ["10.1.2.3", "0.0.0.0"]]
)
def test_refuses_a_name_with_an_address_of_this_machine(addresses: list[str]) -> None:
    for by_proxy in (False, True):
        with pytest.raises(LocalAddress):
            check("git.example.org", by_proxy=by_proxy, resolve=lambda name: addresses)


def test_gives_back_what_was_checked() -> None:
    asked = []

    def resolve(name: str) -> list[str]:
        asked.append(name)
        return ["192.168.1.7", "192.168.1.7", "2001:db8::7"]

    found = check("Git.B\u00fccher.example.", resolve=resolve)
    assert found == Host("git.xn--bcher-kva.example", ("192.168.1.7", "2001:db8::7"))
    assert asked == ["git.xn--bcher-kva.example"]
    assert check("2001:DB8::0:7").in_url == "[2001:db8::7]"


def test_leaves_an_unknown_name_to_a_proxy() -> None:
    def resolve(name: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert check("git.example.org", by_proxy=True, resolve=resolve) == Host("git.example.org", ())
    with pytest.raises(UnknownHost, match=r"git\.example\.org"):
        check("git.example.org", resolve=resolve)


def test_refuses_the_addresses_of_the_interfaces() -> None:
    """The machine's address for connections to others, if it has one, and its host name."""
    with pytest.raises(LocalAddress):
        check(platform.node() or "localhost")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        own = probe.getsockname()[0]
    with pytest.raises(LocalAddress):
        check(own)
    with pytest.raises(LocalAddress):
        check(f"::ffff:{own}")


def test_knows_the_networks_of_the_engine(tmp_path: Path) -> None:
    """The address of a container bridge is refused. A bridge with a network card leads to the LAN and is allowed."""
    for name in ("docker0", "br-0123456789ab", "br0"):
        (tmp_path / "sys/class/net" / name / "bridge").mkdir(parents=True)
    (tmp_path / "sys/class/net/docker0/brif/veth1").mkdir(parents=True)
    (tmp_path / "sys/class/net/br0/brif/eth0/device").mkdir(parents=True)
    (tmp_path / "sys/class/net/eth1").mkdir()
    (tmp_path / "proc/net").mkdir(parents=True)
    rows = [
        ("br0", "00000000", "00000000"),
        ("docker0", "000011AC", "0000FFFF"),
        ("br-0123456789ab", "000012AC", "0000FFFF"),
    ]
    rows += [("br0", "0001A8C0", "00FFFFFF"), ("eth1", "0002A8C0", "00FFFFFF")]
    lines = [f"{device}\t{to}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0" for device, to, mask in rows]
    (tmp_path / "proc/net/route").write_text("\n".join(["Iface\tDestination", *lines]) + "\n")
    six = "fd000001000000000000000000000000 40 " + " ".join(["0" * 32, "00", "0" * 32, "0", "0", "0", "0", "docker0"])
    (tmp_path / "proc/net/ipv6_route").write_text(f"{six}\n")
    networks = bridge_networks(tmp_path)
    assert [str(network) for network in networks] == ["172.17.0.0/16", "172.18.0.0/16", "fd00:1::/64"]
    for word, is_there in (("172.18.0.9", True), ("fd00:1::9", True), ("192.168.1.9", False), ("192.168.2.9", False)):
        assert is_local(ipaddress.ip_address(word), networks) is is_there


def test_a_system_without_a_list_of_routes_has_no_bridges(tmp_path: Path) -> None:
    assert bridge_networks(tmp_path) == []
