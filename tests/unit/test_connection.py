"""The HTTP connection of the command line, against servers with given answers."""

from __future__ import annotations

import base64
import gc
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from polylocal.client.connection import Connection, Response
from polylocal.client.http import Client
from polylocal.errors import InvalidInput, SetupError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Server:
    """Accepts one connection after the other. Sends a list of answers on each, then closes it."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10.0)  # for a test that fails before all its connections were opened
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, args=(connections,))
        self._thread.start()

    def _serve(self, connections: tuple[list[bytes], ...]) -> None:
        for answers in connections:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as received:
                for answer in answers:
                    self.requests.append(_request(received))
                    connection.sendall(answer)

    def end(self) -> None:
        self._thread.join()
        self._listener.close()


def _request(received: io.BufferedReader) -> bytes:
    head = b""
    while (line := received.readline()) not in (b"\r\n", b""):
        head += line
    length = next((int(x.partition(b":")[2]) for x in head.splitlines() if x.lower().startswith(b"content-length")), 0)
    return head + b"\r\n" + received.read(length)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*connections: list[bytes]) -> Server:
        servers.append(Server(*connections))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def connection(server: Server, path: str = "") -> closing[Connection]:
    return closing(Connection(f"http://{server.address}{path}", {"Authorization": "Token x"}))


def test_two_requests_share_a_connection(serve: Callable[..., Server]) -> None:
    server = serve([OK, OK])
    with connection(server, "/below/") as to:
        assert to.request("GET", "/a b/ü?", params={"q": "1 2"}).json() == {}
        assert to.request("POST", "/c", json={"ü": None}).is_success
    first, second = server.requests
    assert first.startswith(b"GET /below/a%20b/%C3%BC%3F?q=1+2 HTTP/1.1\r\n")
    assert b"Authorization: Token x\r\n" in first
    assert second.endswith(b'\r\n\r\n{"\xc3\xbc": null}')


def test_a_connection_that_the_daemon_has_closed_is_not_used_again(serve: Callable[..., Server]) -> None:
    server = serve([OK], [OK])
    with connection(server) as to:
        assert to.request("GET", "/").content == b"{}"
        idle = to._idle[0].sock
        idle.setblocking(True)
        assert idle.recv(1, socket.MSG_PEEK) == b""  # it is already closed
        assert to.request("GET", "/").content == b"{}"


def test_requests_beside_a_stream_have_a_connection_of_their_own(serve: Callable[..., Server]) -> None:
    server = serve([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"], [OK])
    with connection(server) as to, to.stream("/logs/", {}) as chunks:
        assert not isinstance(chunks, Response)
        server_answers = next(chunks)
        assert server_answers == b"ab"
        assert list(chunks) == []
        assert to.request("GET", "/").is_success


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_is_cut_off_is_an_error(answer: bytes, serve: Callable[..., Server]) -> None:
    server = serve([answer], [answer])
    with connection(server) as to:
        with pytest.raises(SetupError, match="did not finish its answer"):
            to.request("GET", "/")
        with (
            pytest.raises(SetupError, match="did not finish its answer"),
            to.stream("/", {}) as chunks,
        ):
            assert b"".join(chunks if not isinstance(chunks, Response) else []) == b"ab"


def test_the_errors_of_a_caller_are_left_alone(serve: Callable[..., Server]) -> None:
    server = serve([OK])
    with connection(server) as to, pytest.raises(FileNotFoundError), to.stream("/", {}):
        raise FileNotFoundError


def test_a_silent_daemon_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with closing(Connection(url, {})) as to, pytest.raises(SetupError, match=r"its answer: timed out"):
            to.request("GET", "/", timeout=0.05)


def test_a_text_that_is_no_utf_8_is_refused() -> None:
    with closing(Connection("http://127.0.0.1:9", {})) as to:
        for more in ({"params": {"q": "\udcff"}}, {"json": {"x": "\udcff"}}):
            with pytest.raises(InvalidInput, match="UTF-8"):
                to.request("GET", "/", **more)
        with pytest.raises(InvalidInput, match="UTF-8"):
            to.request("GET", "/\udcff")


def test_an_upload_is_a_form_with_one_file(serve: Callable[..., Server]) -> None:
    server = serve([OK])
    with closing(Client(f"http://{server.address}", "x")) as client:
        client.upload("root", "p", io.BytesIO(b"content"))
    (request,) = server.requests
    boundary = request.partition(b"boundary=")[2].partition(b"\r\n")[0]
    body = request.partition(b"\r\n\r\n")[2]
    named = b'\r\nContent-Disposition: form-data; name="repo"; filename="repo.tar.gz"\r\n'
    assert body.startswith(b"--" + boundary + named)
    assert body.endswith(b"\r\n\r\ncontent\r\n--" + boundary + b"--\r\n")


def test_a_refusal_before_the_end_of_an_upload_is_read() -> None:
    """The daemon answers and closes the connection while the client is still sending the body."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def refuse() -> None:
            peer, _ = listener.accept()
            accepted.append(peer)
            peer.recv(1 << 16)
            peer.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nfull")
            peer.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=refuse)
        thread.start()

        def body() -> Iterator[bytes]:
            yield b"x"
            thread.join()
            raise BrokenPipeError

        headers = {"Content-Length": "1000000"}
        with closing(Connection(f"http://127.0.0.1:{listener.getsockname()[1]}", {})) as to:
            answer = to.request("PUT", "/", body=body(), headers=headers)
        assert (answer.status, answer.text) == (413, "full")
        accepted[0].close()


def test_a_daemon_elsewhere_is_asked_through_the_proxy(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve([OK])
    monkeypatch.setenv("HTTP_PROXY", f"http://me:pass%21@{proxy.address}")
    with closing(Connection("http://daemon.example:8000", {})) as to:
        assert to.request("GET", "/x").is_success
    (request,) = proxy.requests
    assert request.startswith(b"GET http://daemon.example:8000/x HTTP/1.1\r\nHost: daemon.example:8000\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:pass!") in request


# http.client of Python 3.11.2 leaves the file of a refused tunnel open until it is collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_proxy_that_refuses_a_tunnel_is_named(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve([b"HTTP/1.1 407 Who are you\r\n\r\n"])
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:hidden@{proxy.address}")
    refused = pytest.raises(SetupError, match=rf"through the proxy http://{proxy.address}: .*407")
    with closing(Connection("https://daemon.example", {})) as to, refused as told:
        to.request("GET", "/")
    assert proxy.requests[0].startswith(b"CONNECT daemon.example:443 ")
    assert b"Proxy-Authorization: Basic" in proxy.requests[0]
    assert "hidden" not in str(told.value)
    del told, refused
    gc.collect()


def test_a_name_and_password_in_the_address_are_sent(serve: Callable[..., Server]) -> None:
    server = serve([OK])
    with closing(Connection(f"http://me:secret@{server.address}", {"Authorization": "Token x"})) as to:
        assert to.request("GET", "/").is_success
    assert b"Authorization: Basic " + base64.b64encode(b"me:secret") in server.requests[0]
    assert b"Token" not in server.requests[0]
