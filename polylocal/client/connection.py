"""HTTP requests to one daemon, with `http.client` of the standard library.

Importing any other HTTP client takes longer than most commands run.
"""

import base64
import json
import re
import select
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from polylocal import __version__
from polylocal.errors import InvalidInput, SetupError
from polylocal.system import proxies

_CONNECT_S = 5.0
_READ_S = 60.0
_CHUNK = 1 << 16
_IN_PATHS = "/%:@!$&'()*+,;=~"  # characters that `quote` leaves as they are


@dataclass(frozen=True)
class Response:
    """A complete response."""

    status: int
    content: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Raises ValueError if the content is not JSON."""
        return json.loads(self.content)


class Connection:
    """Sends requests to the daemon at `url`, and reuses its sockets. Thread-safe."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Raises SetupError if the address is invalid or its proxy can't be used."""
        self._url = url
        self._daemon = _parse_url(url)
        self._proxy, self._proxy_headers = _find_proxy(self._daemon)
        self._headers = {"Accept": "*/*", "User-Agent": f"polylocal/{__version__}", **headers}
        if self._daemon.username is not None:
            self._headers["Authorization"] = _basic_auth(self._daemon)
        self._idle: list[HTTPConnection] = []

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, object] | None = None,
        json: object = None,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = _READ_S,
    ) -> Response:
        """Send `json`, or `body` with its `headers`, and read the whole response. `timeout`: seconds between data.

        Raises SetupError if the daemon does not answer completely, InvalidInput if a text can't be encoded.
        """
        target, encoded = _encode(path, params, json)
        typed = {"Content-Type": "application/json"} if encoded else {}
        with self._response(method, target, encoded or body, {**typed, **(headers or {})}, timeout) as response:
            return Response(response.status, self._read(response))

    @contextmanager
    def stream(self, path: str, params: Mapping[str, object]) -> Iterator[Response | Iterator[bytes]]:
        """Yield the chunks of a response as they arrive, without a timeout; or a complete error response.

        Raises SetupError and InvalidInput as `request`.
        """
        target, _ = _encode(path, params, None)
        with self._response("GET", target, None, {}, None) as response:
            refused = not 200 <= response.status < 300
            yield Response(response.status, self._read(response)) if refused else self._chunks(response)

    @contextmanager
    def _response(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> Iterator[HTTPResponse]:
        connection = self._acquire(timeout)
        response = None
        is_whole = False
        try:
            with self._translated_errors():
                with suppress(BrokenPipeError):  # the daemon refuses a body without reading all of it
                    connection.request(method, self._target(target), body, self._encode_headers(headers))
                response = connection.getresponse()
            yield response
            is_whole = response.isclosed()
        finally:
            if is_whole:
                self._idle.append(connection)
            else:
                if response:  # its own file keeps the socket open
                    response.close()
                connection.close()

    def _target(self, target: str) -> str:
        """The request target; through an HTTP proxy a whole URL, except in a tunnel."""
        path = self._daemon.path.rstrip("/") + target
        if self._proxy is None or self._daemon.scheme == "https":
            return path
        return f"http://{self._daemon.netloc.rpartition('@')[2]}{path}"

    def _encode_headers(self, headers: Mapping[str, str]) -> dict[str, bytes]:
        hops = self._proxy_headers if self._daemon.scheme == "http" else {}
        return {name: value.encode() for name, value in {**self._headers, **hops, **headers}.items()}

    def _acquire(self, timeout: float | None) -> HTTPConnection:
        """An idle connection that the daemon has not closed, or a new one."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
                break
            if connection.sock and not select.select([connection.sock], [], [], 0)[0]:
                break
            connection.close()
        connection.sock.settimeout(timeout)
        return connection

    def _connect(self) -> HTTPConnection:
        host, port = self._daemon.hostname or "", self._daemon.port
        connection: HTTPConnection
        if self._proxy and self._daemon.scheme == "https":
            connection = HTTPSConnection(
                self._proxy.hostname or "", self._proxy.port or 80, timeout=_CONNECT_S, context=self._tls
            )
            connection.set_tunnel(host, port or 443, self._proxy_headers)
        else:
            nearest = self._proxy or self._daemon
            host, port = nearest.hostname or "", nearest.port
            if nearest.scheme == "https":
                connection = HTTPSConnection(host, port, timeout=_CONNECT_S, context=self._tls)
            else:
                connection = HTTPConnection(host, port, timeout=_CONNECT_S)
        try:
            connection.connect()
        except (OSError, HTTPException, UnicodeError) as error:
            connection.close()
            through = f" through the proxy {_without_password(self._proxy.geturl())}: {error}" if self._proxy else ""
            raise SetupError(f"no daemon answers at {self._url}{through}; start one with `polylocal start`") from error
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        if sys.platform == "darwin":  # its certificates are in a key chain, which OpenSSL does not read
            import truststore

            return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return ssl.create_default_context()

    def _read(self, response: HTTPResponse) -> bytes:
        with self._translated_errors():
            return response.read()

    def _chunks(self, response: HTTPResponse) -> Iterator[bytes]:
        while True:
            with self._translated_errors():
                chunk = response.read1(_CHUNK)
                if not chunk and response.length:
                    raise IncompleteRead(b"", response.length)
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, HTTPException, ValueError) as error:
            why = str(error) or type(error).__name__
            raise SetupError(f"the daemon at {self._url} did not finish its answer: {why}") from error


def _parse_url(url: str) -> SplitResult:
    """Raises SetupError."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname
        HTTPConnection(parts.hostname or "", parts.port)  # refuses characters that no host has
    except (ValueError, HTTPException) as error:
        raise SetupError(f"{url} is not the address of a daemon: {error}") from error
    if not is_address:
        raise SetupError(f"{url} is not the address of a daemon: write it as http://HOST:PORT")
    return parts


def _find_proxy(daemon: SplitResult) -> tuple[SplitResult | None, dict[str, str]]:
    """The proxy for a daemon, and the headers for it. Raises SetupError if it can't be used."""
    url = proxies.of(daemon.scheme, daemon.hostname or "", daemon.port)
    if url is None:
        return None, {}
    allowed = ("http",) if daemon.scheme == "https" else ("http", "https")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in allowed and parts.hostname
        HTTPConnection(parts.hostname or "", parts.port)
        why = "" if is_address else f"its address does not begin with {allowed[0]}://"
    except (ValueError, HTTPException) as error:
        why = str(error)
    if why:
        raise SetupError(
            f"the proxy {_without_password(url)}, which the environment names for {daemon.hostname}, can't be used:"
            f" {why}; name {daemon.hostname} in NO_PROXY, or another proxy in HTTP_PROXY"
        )
    return parts, {} if parts.username is None else {"Proxy-Authorization": _basic_auth(parts)}


def _basic_auth(parts: SplitResult) -> str:
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def _encode(path: str, params: Mapping[str, object] | None, value: object) -> tuple[str, bytes | None]:
    """The target and the body of a request. Raises InvalidInput: command-line arguments may be any bytes."""
    try:
        query = f"?{urlencode(params)}" if params else ""
        text = None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return quote(path, safe=_IN_PATHS) + query, text
    except UnicodeEncodeError as error:
        raise InvalidInput(["an argument is not UTF-8, so it can't be sent; write it in UTF-8"]) from error
