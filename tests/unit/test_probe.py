"""The search for an engine, against small HTTP servers on unix sockets below a temporary home folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from polylocal.engine.docker import probe as module
from polylocal.engine.docker.probe import Attempt, Candidate, Report, candidates, probe

Serve = Callable[..., str]


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path, since a unix socket's path has at most 108 bytes and pytest's tmp_path is almost as long."""
    folder = Path(tempfile.mkdtemp(prefix="plx", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(path, status=200, server="Docker/99") → the URL of an engine that listens there until the test ends."""
    running: list[tuple[socketserver.TCPServer, threading.Thread]] = []

    def start(where: Path | tuple[str, int], status: int = 200, server: str = "Docker/99", path: str = "/_ping") -> str:
        engine = _server(where, _handler(status, server, path))
        thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((engine, thread))
        return f"unix://{where}" if isinstance(where, Path) else f"tcp://127.0.0.1:{engine.server_address[1]}"

    yield start
    for engine, thread in running:
        engine.shutdown()
        engine.server_close()
        thread.join()


@pytest.fixture
def silent(home: Path) -> Iterator[str]:
    """The URL of a socket that accepts connections and never answers, like a hung engine."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "silent.sock"))
        listener.listen()
        yield f"unix://{home}/silent.sock"


def _server(where: Path | tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> socketserver.TCPServer:
    if isinstance(where, Path):
        where.parent.mkdir(parents=True, exist_ok=True)
        return socketserver.UnixStreamServer(str(where), handler)
    return socketserver.TCPServer(where, handler)


def _handler(status: int, server: str, path: str) -> type[BaseHTTPRequestHandler]:
    class Ping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status if self.path == path else 404)
            self.send_header("Server", server)
            self.send_header("Api-Version", "1.99")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Ping


def _sockets_below(home: Path, uid: int = 1000) -> list[tuple[str, str]]:
    """The addresses that are tried without any configuration, relative to the home folder, as (address, reason)."""
    found = candidates({"XDG_RUNTIME_DIR": f"{home}/run"}, home, uid)
    return [(c.url.removeprefix("unix://").removeprefix(f"{home}/"), c.why) for c in found]


def _find(home: Path, **environ: str) -> Report:
    """Probe as if the machine had only the engines of the test."""
    environ = {"XDG_RUNTIME_DIR": f"{home}/run", **environ}
    return probe(environ=environ, home=home, uid=1000, timeout_s=0.2, connect=_connect_below(home))


def _connect_below(home: Path, denied: str = "") -> module.Connect:
    """Connects below `home`. Denies permission at the path `denied`, and finds nothing elsewhere."""
    connect_really = module._connect

    def connect(url: str, timeout_s: float) -> socket.socket:
        path = url.removeprefix("unix://")
        if path == denied:
            raise PermissionError(13, "Permission denied", path)
        if not path.startswith(f"{home}/"):
            raise FileNotFoundError(path)
        return connect_really(url, timeout_s)

    return connect


def _write_context(config: Path, name: str, host: str) -> None:
    meta = config / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}))


class TestCandidates:
    def test_usual_places_in_order(self, home: Path) -> None:
        assert _sockets_below(home) == [
            ("/var/run/docker.sock", "default socket"),
            ("run/docker.sock", "rootless Docker"),
            (".docker/run/docker.sock", "Docker Desktop"),
            (".docker/desktop/docker.sock", "Docker Desktop for Linux"),
            (".orbstack/run/docker.sock", "OrbStack"),
            (".colima/default/docker.sock", "Colima"),
            (".config/colima/default/docker.sock", "Colima"),
            (".rd/docker.sock", "Rancher Desktop"),
            ("run/podman/podman.sock", "rootless Podman"),
        ]

    def test_root_asks_the_system_wide_podman_too(self, home: Path) -> None:
        assert _sockets_below(home, uid=0)[-1] == ("/run/podman/podman.sock", "Podman")

    def test_runtime_folder_follows_from_the_uid(self, home: Path) -> None:
        assert Candidate("unix:///run/user/1234/docker.sock", "rootless Docker") in candidates({}, home, 1234)

    def test_docker_host_is_the_only_one(self, home: Path) -> None:
        environ = {"DOCKER_HOST": "tcp://build-box:2375", "DOCKER_CONTEXT": "other"}
        assert candidates(environ, home, 1000) == [Candidate("tcp://build-box:2375", "DOCKER_HOST")]

    def test_current_context_of_the_config_file_comes_first(self, home: Path) -> None:
        _write_context(home / ".docker", "lab", "tcp://lab:2375")
        (home / ".docker/config.json").write_text('{"currentContext": "lab"}')
        assert candidates({}, home, 1000)[0] == Candidate("tcp://lab:2375", "docker context lab")

    def test_context_of_the_environment_beats_that_of_the_file(self, home: Path) -> None:
        _write_context(home / "conf", "lab", "tcp://lab:2375")
        _write_context(home / "conf", "cave", "tcp://cave:2375")
        (home / "conf/config.json").write_text('{"currentContext": "lab"}')
        environ = {"DOCKER_CONFIG": f"{home}/conf", "DOCKER_CONTEXT": "cave"}
        assert candidates(environ, home, 1000)[0] == Candidate("tcp://cave:2375", "docker context cave")

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"currentContext": 1}', '{"currentContext": "default"}'])
    def test_config_without_a_context_adds_nothing(self, home: Path, text: str) -> None:
        (home / ".docker").mkdir()
        (home / ".docker/config.json").write_text(text)
        assert candidates({}, home, 1000)[0].why == "default socket"

    def test_context_without_its_file_is_listed_so_that_the_report_shows_it(self, home: Path) -> None:
        first = candidates({"DOCKER_CONTEXT": "gone"}, home, 1000)[0]
        assert first.url == "context://gone"
        assert "no readable" in first.why


class TestProbe:
    def test_first_that_answers_is_taken_and_the_rest_is_not_asked(self, home: Path, serve: Serve) -> None:
        url = serve(home / ".orbstack/run/docker.sock", server="Docker/29.1 (linux)")
        serve(home / ".rd/docker.sock")
        report = _find(home)
        assert report.found == Attempt(url, "OrbStack", "answers", "Docker/29.1 (linux)", "1.99")
        assert [attempt.answer for attempt in report.tried] == ["not there"] * 4 + ["answers"]
        assert report.problem == ""

    def test_context_beats_the_usual_places(self, home: Path, serve: Serve) -> None:
        serve(home / ".docker/run/docker.sock")
        _write_context(home / ".docker", "mine", serve(home / "mine.sock"))
        report = _find(home, DOCKER_CONTEXT="mine")
        assert report.found
        assert report.found.why == "docker context mine"

    def test_context_that_is_dead_is_passed_over(self, home: Path, serve: Serve) -> None:
        _write_context(home / ".docker", "mine", f"unix://{home}/mine.sock")
        url = serve(home / ".docker/run/docker.sock")
        report = _find(home, DOCKER_CONTEXT="mine")
        assert report.found
        assert report.found.url == url
        assert report.tried[0].answer == "not there"

    def test_docker_host_beats_the_usual_places(self, home: Path, serve: Serve) -> None:
        serve(home / ".docker/run/docker.sock")
        url = serve(home / "chosen.sock")
        report = _find(home, DOCKER_HOST=url)
        assert report.found == Attempt(url, "DOCKER_HOST", "answers", "Docker/99", "1.99")

    def test_dead_docker_host_is_never_replaced(self, home: Path, serve: Serve) -> None:
        serve(home / ".docker/run/docker.sock")
        report = _find(home, DOCKER_HOST=f"unix://{home}/dead.sock")
        assert report.found is None
        assert len(report.tried) == 1
        assert report.problem == (
            f"DOCKER_HOST says unix://{home}/dead.sock but nothing is there: unset it, or start that engine."
        )

    def test_setting_beats_docker_host(self, home: Path, serve: Serve) -> None:
        chosen, other = serve(home / "chosen.sock"), serve(home / "other.sock")
        report = probe(chosen, environ={"DOCKER_HOST": other}, home=home, uid=1000)
        assert report.found
        assert (report.found.url, report.found.why) == (chosen, "the engine setting")

    def test_dead_setting_is_never_replaced(self, home: Path, serve: Serve) -> None:
        other = serve(home / "other.sock")
        report = probe(f"unix://{home}/dead.sock", environ={"DOCKER_HOST": other}, home=home, uid=1000)
        assert report.found is None
        assert report.problem.startswith(f"The engine setting says unix://{home}/dead.sock but nothing is there")

    def test_nothing_anywhere(self, home: Path) -> None:
        report = _find(home)
        assert report.found is None
        assert {attempt.answer for attempt in report.tried} == {"not there"}
        assert report.problem.startswith("No Docker engine answers: start")

    def test_socket_file_that_an_engine_left_behind_is_not_there(self, home: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(home / "stale.sock"))
        assert _ask(f"unix://{home}/stale.sock").answer == "not there"

    def test_hung_engine_is_waited_for_no_longer_than_asked(self, home: Path, silent: str) -> None:
        report = probe(silent, environ={}, home=home, uid=1000, timeout_s=0.05)
        assert report.tried[0].answer == "does not answer"
        assert "the engine there does not answer" in report.problem

    def test_hung_engine_among_the_usual_places_is_named(self, home: Path, silent: str) -> None:
        (home / ".rd").mkdir()
        (home / ".rd/docker.sock").symlink_to(silent.removeprefix("unix://"))
        report = _find(home)
        assert report.problem.startswith(f"The engine at unix://{home}/.rd/docker.sock (Rancher Desktop) does not")

    def test_some_other_server_is_no_engine(self, home: Path, serve: Serve) -> None:
        assert _ask(serve(home / "other.sock", status=503)).answer == "does not answer"

    def test_answer_that_is_no_http(self, home: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            report = probe(f"unix://{home}/ssh.sock", environ={}, connect=lambda url, timeout_s: ours)
        assert report.tried[0].answer == "does not answer"

    def test_tcp(self, serve: Serve) -> None:
        url = serve(("127.0.0.1", 0))
        assert _ask(url).answer == "answers"
        assert _ask(url.removeprefix("tcp://")).answer == "answers"

    def test_tcp_behind_a_path(self, serve: Serve) -> None:
        assert _ask(serve(("127.0.0.1", 0), path="/engines/a/_ping") + "/engines/a").answer == "answers"

    @pytest.mark.parametrize("url", ["ssh://me@box", "https://box:2376", "tcp://box:2376"])
    def test_addresses_that_need_keys_are_not_probed(self, url: str) -> None:
        report = probe(url, environ={})
        assert report.found == Attempt(url, "the engine setting", "not probed")

    def test_tls_by_environment(self) -> None:
        report = probe(environ={"DOCKER_HOST": "tcp://box:1", "DOCKER_TLS_VERIFY": "1"})
        assert report.found
        assert report.found.answer == "not probed"

    @pytest.mark.parametrize("url", ["nonsense://x", "tcp://[::1", "tcp://127.0.0.1:port", "unix://" + "x" * 200])
    def test_nonsense_is_not_there(self, url: str) -> None:
        assert _ask(url).answer in ("not there", "does not answer")


class TestPermissionDenied:
    def test_is_distinguished_from_a_missing_socket(self, home: Path) -> None:
        report = self._find(home)
        assert report.found is None
        assert (report.tried[0].answer, report.tried[1].answer) == ("permission denied", "not there")
        assert report.problem.startswith(
            "This user may not use the engine at unix:///var/run/docker.sock (default socket): run"
        )
        assert "usermod -aG docker" in report.problem
        assert report.exit_code == 3

    def test_another_engine_that_answers_is_taken(self, home: Path, serve: Serve) -> None:
        url = serve(home / ".docker/run/docker.sock")
        report = self._find(home)
        assert report.found
        assert report.found.url == url

    def test_of_a_chosen_engine_for_real(self, home: Path, serve: Serve) -> None:
        url = serve(home / "closed.sock")
        (home / "closed.sock").chmod(0)
        with _as_nobody():
            report = probe(url, environ={})
        assert (report.tried[0].answer, report.exit_code) == ("permission denied", 3)

    def _find(self, home: Path) -> Report:
        connect = _connect_below(home, denied="/var/run/docker.sock")
        return probe(environ={}, home=home, uid=1000, connect=connect)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Run as an ordinary user, since file modes don't restrict root."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)


def _ask(url: str) -> Attempt:
    return probe(url, environ={}).tried[0]


class TestScript:
    def test_prints_only_the_address_on_stdout(self, home: Path, serve: Serve) -> None:
        url = serve(home / "e.sock", server="Libpod/5.4 (linux)")
        done = _run(home, DOCKER_HOST=url)
        assert (done.returncode, done.stdout) == (0, f"{url}\n")
        assert done.stderr == f"engine: {url} (DOCKER_HOST; Libpod/5.4 (linux), API 1.99)\n"

    def test_argument_is_the_setting(self, home: Path, serve: Serve) -> None:
        url = serve(home / "e.sock")
        assert _run(home, url, DOCKER_HOST="tcp://127.0.0.1:1").stdout == f"{url}\n"

    def test_dead_docker_host(self, home: Path) -> None:
        done = _run(home, DOCKER_HOST=f"unix://{home}/dead.sock")
        assert (done.returncode, done.stdout) == (2, "")
        assert "DOCKER_HOST says" in done.stderr

    @pytest.mark.parametrize(("denied", "code"), [("", 1), ("/var/run/docker.sock", 3)])
    def test_codes_without_an_engine(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], denied: str, code: int
    ) -> None:
        """Run in this process, because the machine may have an engine."""
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setattr(module, "_connect", _connect_below(home, denied))
        assert module.main([]) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1


def _run(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", module.__file__, *arguments]
    return subprocess.run(command, env={"HOME": str(home), **environ}, capture_output=True, text=True, timeout=20)


def test_the_output_of_the_script_controls_no_terminal() -> None:
    assert module._escape("Docker \x1b]52;c;x\x07\n\u202e\udc9b é") == r"Docker \x1b]52;c;x\x07\n\u202e\udc9b é"
