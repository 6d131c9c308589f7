"""The command line with a real daemon and engine: following logs, exit codes, watching, start and stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import BUSYBOX, eventually

pytestmark = pytest.mark.engine

JOB = """\
version: 1
kind: job
build:
  image: {image}
run:
  cmd: {cmd}
"""


def polylocal(env: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "polylocal", *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def write(folder: Path, cmd: str) -> None:
    (folder / "polyaxonfile.yml").write_text(JOB.format(image=BUSYBOX, cmd=cmd))


def test_following_a_run_ends_with_its_exit_code(tmp_path: Path, cli_env: dict[str, str]) -> None:
    write(tmp_path, "echo hello from inside; exit 7")
    done = polylocal(cli_env, "run", "-u", "-l", "-c", "-p", "cli", cwd=tmp_path)
    assert done.returncode == 7
    assert "hello from inside" in done.stdout
    assert "Exit code 7" in done.stdout
    assert "Outputs: " in done.stdout


def test_following_a_search_that_came_to_nothing_ends_with_1(tmp_path: Path, cli_env: dict[str, str]) -> None:
    group = {"version": 1, "kind": "group", "build": {"image": BUSYBOX}, "run": {"cmd": "exit {{ code }}"}}
    for codes, expected in (([3, 4], 1), ([3, 0], 0)):
        (tmp_path / "group.json").write_text(
            json.dumps({**group, "hptuning": {"concurrency": 2, "matrix": {"code": {"values": codes}}}})
        )
        done = polylocal(cli_env, "run", "-f", "group.json", "-l", "-c", "-p", "cli", cwd=tmp_path)
        assert done.returncode == expected, done.stderr
        assert ("All 2 experiments failed: 2 failed" in done.stdout) is bool(expected)


def test_a_run_that_this_machine_can_never_run_is_refused_in_one_line(tmp_path: Path, cli_env: dict[str, str]) -> None:
    write(tmp_path, "echo hi")
    with (tmp_path / "polyaxonfile.yml").open("a") as file:
        file.write("environment:\n  resources:\n    cpu: {requests: 4096}\n")
    done = polylocal(cli_env, "run", "-c", "-p", "cli", cwd=tmp_path)
    assert done.returncode == 1
    wanted = (
        "polyaxonfile.yml, line 9, environment.resources.cpu.requests: The run asks for 4096 cores; this machine has"
    )
    assert wanted in done.stderr.replace("\n", " ").replace("  ", " ")


def test_watching_runs_again_when_a_file_changes(tmp_path: Path, cli_env: dict[str, str]) -> None:
    write(tmp_path, "cat message; sleep 60")
    (tmp_path / "message").write_text("first\n")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "polylocal", "run", "--watch", "-c", "-p", "watched"],
        env=cli_env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # background jobs of a shell ignore the interrupt and pass that on to their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    seen: list[str] = []
    assert process.stdout
    reader = threading.Thread(target=lambda: seen.extend(process.stdout or []))
    reader.start()
    try:
        eventually(lambda: any(line == "first\n" for line in seen), 60)
        (tmp_path / "message").write_text("second\n")
        eventually(lambda: any(line == "second\n" for line in seen), 60)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        reader.join()
        process.stdout.close()
    assert any("Changed: message" in line for line in seen)


def test_start_status_stop_in_the_background(tmp_path: Path, cli_env: dict[str, str]) -> None:
    env = {**cli_env, "POLYLOCAL_HOME": str(tmp_path / "home")}
    started = polylocal(env, "start", "--port", "0", cwd=tmp_path)
    try:
        assert started.returncode == 0, started.stderr
        assert "polylocal listens on http://127.0.0.1:" in started.stdout
        again = polylocal(env, "start", "--port", "0", cwd=tmp_path)
        assert "is already running on" in again.stdout
        assert polylocal(env, "status", cwd=tmp_path).returncode == 0
        second = polylocal(env, "serve", "--port", "0", cwd=tmp_path)
        assert second.returncode == 1
        assert "another daemon is running for" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        log = [json.loads(line) for line in (tmp_path / "home" / "daemon.log").read_text().splitlines()]
        assert any(line["message"].startswith("listening on ") for line in log)
        printed = (tmp_path / "home" / "daemon.out").read_text()
        assert printed.startswith("polylocal listens on ")
        assert printed.count("\n") == 1
        token = tmp_path / "home" / "token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    finally:
        stopped = polylocal(env, "stop", cwd=tmp_path)
    assert stopped.returncode == 0
    assert polylocal(env, "status", cwd=tmp_path).returncode == 3


def test_a_taken_port_is_one_clear_line(tmp_path: Path, cli_env: dict[str, str], daemon) -> None:
    port = daemon.url.rpartition(":")[2]
    env = {**cli_env, "POLYLOCAL_HOME": str(tmp_path / "home")}
    done = polylocal(env, "serve", "--port", port, cwd=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == f"polylocal: can't listen on 127.0.0.1:{port}: Address already in use; choose another one with --port"
    )


def test_a_failed_start_in_the_background_reports_the_reason(tmp_path: Path, cli_env: dict[str, str], daemon) -> None:
    port = daemon.url.rpartition(":")[2]
    env = {**cli_env, "POLYLOCAL_HOME": str(tmp_path / "home")}
    for _ in range(2):  # the output of the first call must not affect the second
        done = polylocal(env, "start", "--port", port, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"polylocal: can't listen on 127.0.0.1:{port}: Address already in use")
        assert len((tmp_path / "home" / "daemon.out").read_text().splitlines()) == 1


def test_doctor_finds_nothing_wrong_here_and_a_dead_engine_elsewhere(tmp_path: Path, cli_env: dict[str, str]) -> None:
    done = polylocal(cli_env, "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    for subject in ("home", "git", "daemon", "engine", "engine version", "builder", "clock", "base image", "network"):
        assert f"{subject}: " in done.stdout
    dead = polylocal({**cli_env, "DOCKER_HOST": "unix:///nowhere.sock"}, "doctor", cwd=tmp_path)
    assert dead.returncode == 1
    assert "unix:///nowhere.sock" in dead.stdout


def test_a_daemon_without_an_engine_serves_and_reports_it(tmp_path: Path, cli_env: dict[str, str]) -> None:
    env = {**cli_env, "POLYLOCAL_HOME": str(tmp_path / "home"), "DOCKER_HOST": "unix:///nowhere.sock"}
    write(tmp_path, "echo hello")
    assert polylocal(env, "start", "--port", "0", cwd=tmp_path).returncode == 0
    try:
        assert polylocal(env, "run", "-c", "-p", "patient", cwd=tmp_path).returncode == 0
        shown = eventually(lambda: (o := polylocal(env, "show", "1", cwd=tmp_path).stdout) and "waits for" in o and o)
        assert "the engine at unix:///nowhere.sock to answer" in shown
    finally:
        polylocal(env, "stop", cwd=tmp_path)


def test_python_dash_m_and_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "polylocal", "--version"], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stdout.startswith("polylocal ")
