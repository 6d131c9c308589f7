"""Requests to this machine never use a proxy, neither on the command line nor in a container."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from polylocal.client.http import Client
from polylocal.engine.docker.creation import without_proxy
from polylocal.errors import SetupError
from polylocal.system import addresses, proxies

NAMES = [f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "NO")]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *map(str.lower, NAMES)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def daemon() -> Iterator[str]:
    """A server on loopback that answers like a daemon."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"username": "root"}')

        def log_message(self, *words: object) -> None:
            """Log nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x", "127.0.0.1:9"])
def test_a_daemon_on_this_machine_is_asked_directly(
    daemon: str, monkeypatch: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy)
    client = Client(daemon, "token")
    assert client.whoami() == {"username": "root"}
    client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST.", "x.localhost", "::1", "[::1]"])
def test_hosts_that_are_this_machine(host: str) -> None:
    assert addresses.is_this_machine(host)


@pytest.mark.parametrize("host", ["example.org", "192.0.2.7", "2001:db8::1", "", "a b", "localhost.example.org"])
def test_hosts_that_are_other_machines(host: str) -> None:
    assert not addresses.is_this_machine(host)


def test_another_machine_is_asked_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxies.of("http", "example.org", 80) is None
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    monkeypatch.setenv("ALL_PROXY", "http://other.example")
    assert proxies.of("http", "example.org", 80) == "http://proxy.example:3128"
    assert proxies.of("https", "example.org", None) == "http://other.example"
    monkeypatch.setenv("NO_PROXY", ".example.org")
    assert proxies.of("http", "www.example.org", 80) is None


@pytest.mark.parametrize("proxy", ["socks5://user:hidden@proxy.example:1080", "nonsense://user:hidden@proxy.example"])
def test_a_proxy_that_can_not_be_used_is_one_sentence(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(SetupError, match=r"proxy\.example.*NO_PROXY") as told:
        Client("http://daemon.example:8000", "token")
    assert "hidden" not in str(told.value)


@pytest.mark.parametrize("url", ["nonsense", "ftp://a", "http://", "http://a:b"])
def test_an_invalid_address_is_one_sentence(url: str) -> None:
    with pytest.raises(SetupError, match="not the address of a daemon"):
        Client(url, "token")


@pytest.mark.parametrize(
    ("env", "inherited", "expected"),
    [
        ({}, {}, ("10.0.0.1,x", "10.0.0.1,x")),
        ({"NO_PROXY": "a, b"}, {}, ("a,b,10.0.0.1,x", "a,b,10.0.0.1,x")),
        ({}, {"no_proxy": ".corp,x"}, (".corp,x,10.0.0.1", ".corp,x,10.0.0.1")),
        ({"NO_PROXY": "a"}, {"NO_PROXY": "b", "no_proxy": "c"}, ("a,10.0.0.1,x", "c,10.0.0.1,x")),
        ({"no_proxy": "*"}, {}, ("*", "*")),
        ({"no_proxy": ""}, {}, ("10.0.0.1,x", "10.0.0.1,x")),
    ],
)
def test_hosts_join_those_that_are_reached_directly(
    env: dict[str, str], inherited: dict[str, str], expected: tuple[str, str]
) -> None:
    found = without_proxy(("10.0.0.1", "x"), env, inherited)
    assert (found["NO_PROXY"], found["no_proxy"]) == expected
