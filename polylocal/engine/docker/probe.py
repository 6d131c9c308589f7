"""Finds the container engine of this machine: sends `/_ping` to every usual address and takes the first that answers.

docker-py knows only `DOCKER_HOST` and the default socket. This module also finds Docker's contexts, Docker Desktop,
OrbStack, Colima, Rancher and Podman (see docker/for-mac#6529).

`python3 -I probe.py [URL]` prints the address on stdout, and the engine and the origin of its address on stderr.
`scripts/ensure-docker` runs this before a virtual environment exists, so this file uses only the standard library and
works with Python 3.9.
"""

from __future__ import annotations

import getpass
import hashlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

ANSWERS = "answers"
NOT_THERE = "not there"
DOES_NOT_ANSWER = "does not answer"
PERMISSION_DENIED = "permission denied"
NOT_PROBED = "not probed"

SETTING = "the engine setting"
DOCKER_HOST = "DOCKER_HOST"

FOUND, NONE_ANSWERS, CHOSEN_IS_DEAD, NO_PERMISSION = range(4)

Connect = Callable[[str, float], socket.socket]


@dataclass(frozen=True)
class Candidate:
    """An address to try, and its origin."""

    url: str
    why: str


@dataclass(frozen=True)
class Attempt:
    """The answer of a candidate. `server` and `api_version` come from its headers; "" if unknown."""

    url: str
    why: str
    answer: str
    server: str = ""
    api_version: str = ""


@dataclass(frozen=True)
class Report:
    """The engine to use; or `problem`, one sentence on how to get one."""

    found: Attempt | None
    tried: tuple[Attempt, ...]
    problem: str

    @property
    def exit_code(self) -> int:
        if self.found:
            return FOUND
        if any(attempt.answer == PERMISSION_DENIED for attempt in self.tried):
            return NO_PERMISSION
        return CHOSEN_IS_DEAD if _was_chosen(self.tried) else NONE_ANSWERS


def main(argv: Sequence[str]) -> int:
    report = probe(argv[0] if argv else None)
    if report.found:
        print(_escape(f"engine: {_describe(report.found)}"), file=sys.stderr)
        print(_escape(report.found.url))
    else:
        print(_escape(report.problem), file=sys.stderr)
    return report.exit_code


def probe(
    explicit: str | None = None,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    uid: int | None = None,
    timeout_s: float = 3.0,
    connect: Connect | None = None,
) -> Report:
    """Try the candidates in order and stop at the first that answers. `timeout_s`: for one address.

    If `explicit` or DOCKER_HOST names an address, only this one is tried: work must never reach another engine.
    """
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or os.path.expanduser("~")) if home is None else home
    uid = os.getuid() if uid is None else uid
    chosen = [Candidate(explicit, SETTING)] if explicit else candidates(environ, home, uid)

    tried: list[Attempt] = []
    for candidate in chosen:
        tried.append(_ask(candidate, bool(environ.get("DOCKER_TLS_VERIFY")), timeout_s, connect or _connect))
        if tried[-1].answer in (ANSWERS, NOT_PROBED):
            return Report(tried[-1], tuple(tried), "")
    return Report(None, tuple(tried), _problem(tried))


def candidates(environ: Mapping[str, str], home: Path, uid: int) -> list[Candidate]:
    """The addresses to try, in order. Reads nothing but Docker's configuration files."""
    if environ.get("DOCKER_HOST"):
        return [Candidate(environ["DOCKER_HOST"], DOCKER_HOST)]

    run = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    sockets = [
        (Path("/var/run/docker.sock"), "default socket"),
        (run / "docker.sock", "rootless Docker"),
        (home / ".docker/run/docker.sock", "Docker Desktop"),
        (home / ".docker/desktop/docker.sock", "Docker Desktop for Linux"),
        (home / ".orbstack/run/docker.sock", "OrbStack"),
        (home / ".colima/default/docker.sock", "Colima"),
        (home / ".config/colima/default/docker.sock", "Colima"),
        (home / ".rd/docker.sock", "Rancher Desktop"),
        (run / "podman/podman.sock", "rootless Podman"),
    ]
    if uid == 0:  # other users may not enter this folder, so "permission denied" would not prove an engine there
        sockets.append((Path("/run/podman/podman.sock"), "Podman"))
    return [*_context_candidates(environ, home), *(Candidate(f"unix://{path}", why) for path, why in sockets)]


def _context_candidates(environ: Mapping[str, str], home: Path) -> list[Candidate]:
    config = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    name = environ.get("DOCKER_CONTEXT") or _read(config / "config.json", "currentContext")
    if not name or name == "default":
        return []
    meta = config / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    host = _read(meta, "Endpoints", "docker", "Host")
    if not host:  # listed nevertheless, so that the report shows why the user's choice is not used
        return [Candidate(f"context://{name}", f"docker context {name}, which has no readable {meta}")]
    return [Candidate(host, f"docker context {name}")]


def _read(path: Path, *keys: str) -> str:
    """The string at `keys` in a JSON file; "" if it is missing."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _ask(candidate: Candidate, tls: bool, timeout_s: float, connect: Connect) -> Attempt:
    url, why = candidate.url, candidate.why
    try:
        if _is_beyond_a_socket(url, tls):
            return Attempt(url, why, NOT_PROBED)
        with connect(url, timeout_s) as connection:
            status, headers = _ping(connection, _prefix(url))
    except PermissionError:
        return Attempt(url, why, PERMISSION_DENIED)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError, socket.gaierror, ValueError):
        return Attempt(url, why, NOT_THERE)  # a refused connection: the file exists, but no process listens
    except (OSError, http.client.HTTPException):
        return Attempt(url, why, DOES_NOT_ANSWER)
    answer = ANSWERS if status == 200 else DOES_NOT_ANSWER
    return Attempt(url, why, answer, headers.get("Server", ""), headers.get("Api-Version", ""))


def _is_beyond_a_socket(url: str, tls: bool) -> bool:
    """Whether only Docker's own client has the keys for an address (ssh, TLS). It is used without a try."""
    address = _split(url)
    return address.scheme in ("ssh", "https") or (address.scheme == "tcp" and (tls or address.port == 2376))


def _connect(url: str, timeout_s: float) -> socket.socket:
    """Raises ValueError: not the address of an engine; OSError: as `socket`."""
    address = _split(url)
    if address.scheme == "unix":
        return _connect_unix(address.path, timeout_s)
    if address.scheme in ("tcp", "http"):
        return socket.create_connection((address.hostname or "localhost", address.port or 2375), timeout_s)
    raise ValueError(f"{url} is not the address of an engine")


def _connect_unix(path: str, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _ping(connection: socket.socket, prefix: str) -> tuple[int, http.client.HTTPMessage]:
    client = http.client.HTTPConnection("localhost")
    client.sock = connection
    client.request("GET", f"{prefix}/_ping")
    response = client.getresponse()
    response.read()
    return response.status, response.headers


def _prefix(url: str) -> str:
    """The path of an engine behind a proxy. The path in the address of a unix socket is the socket itself."""
    address = _split(url)
    return "" if address.scheme == "unix" else address.path.rstrip("/")


def _split(url: str) -> SplitResult:
    return urlsplit(url if "://" in url else f"tcp://{url}")  # as Docker's own client reads a bare HOST:PORT


def _problem(tried: Sequence[Attempt]) -> str:
    for attempt in tried:
        if attempt.answer == PERMISSION_DENIED:
            return (
                f"This user may not use the engine at {attempt.url} ({attempt.why}): run "
                f"'sudo usermod -aG docker {_user()}' and log in again, or run this as root."
            )
    if _was_chosen(tried):
        last = tried[-1]
        undo = "unset it" if last.why == DOCKER_HOST else "change it"
        state = "nothing is there" if last.answer == NOT_THERE else "the engine there does not answer"
        return f"{last.why[:1].upper()}{last.why[1:]} says {last.url} but {state}: {undo}, or start that engine."
    for attempt in tried:
        if attempt.answer == DOES_NOT_ANSWER:
            return f"The engine at {attempt.url} ({attempt.why}) does not answer: restart it."
    if sys.platform == "darwin":
        return "No Docker engine answers: start Docker Desktop, OrbStack, Colima or Rancher Desktop, and try again."
    return (
        "No Docker engine answers: start it ('sudo systemctl start docker') "
        "or install one (https://docs.docker.com/engine/install/)."
    )


def _was_chosen(tried: Sequence[Attempt]) -> bool:
    return bool(tried) and tried[-1].why in (SETTING, DOCKER_HOST)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return str(os.getuid())


def _escape(text: str) -> str:
    """Escapes control characters, as `polylocal.text.visible` does, so that words of others can't steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _describe(attempt: Attempt) -> str:
    version = f"{attempt.server}, API {attempt.api_version or 'unknown'}" if attempt.server else attempt.answer
    return f"{attempt.url} ({attempt.why}; {version})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
