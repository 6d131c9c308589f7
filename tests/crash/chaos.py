"""Random faults, from a seed, against a real daemon and a separate engine, with checks that nothing was lost."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from docker.errors import DockerException
from programs import Process, start_polylocal
from requests.exceptions import RequestException
from support import list_tree

from polylocal.client.http import Client, RunReference
from polylocal.daemon import home_lock
from polylocal.engine.plan import BUILD_LABEL, HOME_LABEL, IMAGE_LABEL
from polylocal.errors import NotFound, PolylocalError
from polylocal.paths import Home
from polylocal.statuses import is_done

from .own_engine import OwnEngine, save_image, unmount_below
from .tearing import TearingProxy
from .verdict import REASONS, Seen, problems
from .work import SHAPES, STOPPABLE, Work

T = TypeVar("T")

OWNER, PROJECT = "root", "chaos"
READY_S = 60.0
DONE_S = 180.0
CLEAN_S = 60.0
_POLL_S = 0.05
_ENGINE_TROUBLE = (DockerException, RequestException, OSError)
_API_TROUBLE = (PolylocalError, httpx2.HTTPError, OSError)

DAEMON_AND_ENGINE = {
    "kill daemon": 7,
    "kill daemon, pause": 3,
    "kill engine": 1,
    "restart engine": 1,
    "remove container": 4,
    "cut engine": 6,
    "tear engine": 4,
}
DISK_AND_DATABASE = {
    "kill daemon": 4,
    "kill daemon, pause": 1,
    "full disk": 5,
    "read-only home": 3,
    "busy database": 5,
    "busy database, long": 1,
    "clock jump": 6,
    "cut engine": 2,
}


@dataclass(frozen=True)
class Step:
    """A step of the plan. Its dice are drawn in advance, so that later steps don't depend on the state at this step."""

    after_s: float
    what: str
    dice: tuple[float, float]
    work: Work | None = None


def plan(seed: int, faults: Mapping[str, int], runs: int, pace_s: float = 1.0) -> list[Step]:
    """The faults and the work in their order, with pauses. The same seed gives the same plan."""
    random_ = random.Random(seed)
    names = sorted(SHAPES)
    works = [Work(f"w{n:04d}", names[n % len(names)], random_.randint(40, 120)) for n in range(runs)]
    random_.shuffle(works)
    moments: list[tuple[float, str, Work | None]] = []
    for work in works:
        at = random_.random() * 0.85
        moments.append((at, "submit", work))
        if work.shape.is_endless or (work.shape_name in STOPPABLE and random_.random() < 0.25):
            moments.append((at + random_.uniform(0.01, 0.15), "stop", work))
    moments += [(random_.random(), kind, None) for kind, count in sorted(faults.items()) for _ in range(count)]
    moments.sort(key=lambda moment: (moment[0], moment[1]))
    length_s = pace_s * max(1, sum(faults.values()))
    steps, before = [], 0.0
    for at, what, work in moments:
        steps.append(Step((at - before) * length_s, what, (random_.random(), random_.random()), work))
        before = at
    return steps


@dataclass
class Report:
    """The results of one series of faults."""

    seed: int
    faults: list[tuple[float, str]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    memory_mib: float = 0.0
    duration_s: float = 0.0
    cuts: int = 0
    gaps: int = 0  # logs with a note that lines are missing
    daemon_log: str = ""

    @property
    def by_kind(self) -> Counter[str]:
        return Counter(kind for _, kind in self.faults)

    def violate(self, problem: str) -> None:
        sequence = "; ".join(f"{at:.1f} s {kind}" for at, kind in self.faults)
        self.violations.append(f"{problem}\n    seed {self.seed}; faults: {sequence}")


class UnreliableDaemon:
    """`polylocal serve` on a home folder: killed and started at will, with a clock that may be wrong."""

    def __init__(self, home: Path, log: Path, clock: Path, env: Mapping[str, str]) -> None:
        self.home = Home(home)
        self.log = log
        self._clock = clock
        self._env = {**os.environ, **env}
        self._process: Process | None = None
        self.url = ""
        self.refused_starts: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Repeat the start until it succeeds. A daemon that can't start logs the reason and ends."""
        deadline = time.monotonic() + READY_S
        while not self.try_start():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the daemon does not start: {self.last_words()}")
            time.sleep(0.3)

    def try_start(self) -> bool:
        """Returns False if the daemon has ended instead."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            program = [str(Path(__file__).with_name("clocked.py")), str(self._clock), "serve"]
            program += ["--home", str(self.home.root), "--port", "0", "--max-runs", "4"]
            self._process = process = start_polylocal(program, self._env, log)
        deadline = time.monotonic() + READY_S
        while process.poll() is None:
            with contextlib.suppress(OSError, ValueError, TypeError):
                found = home_lock.running(self.home)
                if found and found.pid == process.pid and found.url:
                    self.url = found.url
                    return True
            if time.monotonic() > deadline:
                raise RuntimeError(f"the daemon neither listens nor ends: {self.last_words()}")
            time.sleep(_POLL_S)
        self.refused_starts.append(self.log.read_bytes()[before:].decode(errors="replace"))
        self._process = None
        return False

    def kill(self) -> None:
        self.url = ""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def unexpected_exit_code(self) -> int | None:
        """The exit code, if the daemon has ended without being killed."""
        return self._process.poll() if self._process else None

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        client = Client(self.url or "http://127.0.0.1:1", self.home.token.read_text().strip())
        try:
            yield client
        finally:
            client.close()

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


class Caller:
    """Submits and stops runs through the API, in order, on a separate thread. Repeats each call until it succeeds."""

    def __init__(self, daemon: UnreliableDaemon) -> None:
        self._daemon = daemon
        self._queue: queue.SimpleQueue[tuple[str, Work] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._forever, name="caller", daemon=True)
        self._over = threading.Event()
        self.given: dict[str, Work] = {}
        self.known: dict[str, RunReference] = {}
        self.stopped: set[str] = set()
        self.refusals: Counter[str] = Counter()

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Work) -> None:
        self.given[work.name] = work
        self._queue.put(("submit", work))

    def stop(self, work: Work) -> None:
        self._queue.put(("stop", work))

    def finish(self, within_s: float) -> bool:
        self._queue.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        self._over.set()

    def _forever(self) -> None:
        while (item := self._queue.get()) is not None:
            what, work = item
            while not self._over.is_set():
                try:
                    with self._daemon.client() as client:
                        self._submit(client, work) if what == "submit" else self._stop(client, work)
                    break
                except _API_TROUBLE as error:
                    self.refusals[str(error)[:100].replace(self._daemon.url or "\0", "…")] += 1
                    self._over.wait(0.2)

    def _submit(self, client: Client, work: Work) -> None:
        """Look for the run first: an earlier request may have created it although its response was lost."""
        kind = work.shape.kind
        with contextlib.suppress(NotFound):
            client.create_project({"name": PROJECT}) if not self.known and not client.projects(OWNER) else None
        found = _listed(client, kind, query=f"name:{work.name}", limit="1")
        body = {"name": work.name, "config": work.config}
        made = found[0] if found else client.create_run(OWNER, PROJECT, kind, body)
        self.known[work.name] = RunReference(OWNER, PROJECT, kind, made["id"])

    def _stop(self, client: Client, work: Work) -> None:
        self.stopped.add(work.name)
        client.stop(self.known[work.name])


def _listed(client: Client, kind: str, **parameters: str) -> list[dict[str, Any]]:
    page = client.json("GET", f"/api/v1/{OWNER}/{PROJECT}/{kind}s/", params=parameters)
    found: list[dict[str, Any]] = page["results"]
    return found


class World:
    """All targets of faults: a daemon on a small disk, a separate engine behind a proxy, and the clock."""

    def __init__(self, seed: int, main_engine: str, home_mib: int = 24) -> None:
        self.seed = seed
        self.report = Report(seed)
        image = save_image(main_engine, "polylocal/busybox:test")  # first, since it fails without the image
        self.folder = Path(tempfile.mkdtemp(prefix="plx-chaos-"))
        self.home, self.truths, self._clock = self.folder / "home", self.folder / "truth", self.folder / "clock"
        self._home_mib = home_mib
        self._began = time.monotonic()
        self._over = threading.Event()  # ends the lasting faults
        self._background: list[threading.Thread] = []
        engine_folder = self.folder / "engine"
        engine_folder.mkdir()
        self.engine = OwnEngine(engine_folder, image)
        self.proxy = TearingProxy(self.folder / "proxy.sock", self.engine.socket, seed)
        env = {
            "DOCKER_HOST": self.proxy.address,
            "POLYLOCAL_NETWORK": "host",
            "POLYLOCAL_POLL_S": "0.5",
            "POLYLOCAL_GRACE_S": "1",
            "POLYLOCAL_MIN_FREE_MIB": "3",
            "POLYLOCAL_DATA": json.dumps({"truth": str(self.truths)}),
        }
        self.daemon = UnreliableDaemon(self.home, self.folder / "daemon.log", self._clock, env)
        self.caller = Caller(self.daemon)

    # -- begin and end --------------------------------------------------------------------------------------------

    def __enter__(self) -> World:
        try:
            self.truths.mkdir()
            self.home.mkdir()
            _mount("-t", "tmpfs", "-o", f"size={self._home_mib}m,mode=700", "tmpfs", str(self.home))
            self.engine.prepare()
            self.proxy.start()
            self.daemon.start()
            self.caller.start()
        except BaseException:
            self.close()
            raise
        self._began = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.caller.close()
        self._end_background()
        with contextlib.ExitStack() as stack:  # all steps run, even if some of them fail
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(unmount_below, self.folder)
            stack.callback(self.engine.close)
            stack.callback(self.proxy.close)
            stack.callback(self.daemon.kill)

    def carry_out(self, steps: list[Step]) -> None:
        """Carry out the plan step by step, then undo all faults."""
        for step in steps:
            time.sleep(step.after_s)
            self._watch_daemon()
            if step.work:
                (self.caller.submit if step.what == "submit" else self.caller.stop)(step.work)
            else:
                self.report.faults.append((time.monotonic() - self._began, step.what))
                FAULTS[step.what](self, step.dice)
        self.heal()

    def heal(self) -> None:
        self._end_background()
        self._watch_daemon()
        if not self.caller.finish(READY_S):
            self.report.violate(f"the API did not take all work: {dict(self.caller.refusals)}; {self.daemon.url}")
            self.caller.close()

    # -- verdict --------------------------------------------------------------------------------------------------

    def judge(self) -> Report:
        """Wait until every run is done, check each run, then delete all runs and check what is left."""
        self.settle()
        self.look_at_runs()
        self.report.memory_mib = resident_mib(self.daemon.pid)
        self.delete_all()
        self._watch_daemon()
        self.report.daemon_log = self.daemon.log.read_text(errors="replace")
        self.report.cuts, self.report.duration_s = self.proxy.cuts, time.monotonic() - self._began
        return self.report

    def settle(self) -> None:
        """Every run gets to a final status, and no container lasts much longer than its run."""
        report = self.report
        if not self._wait_until(self._all_done, DONE_S):
            report.violate(f"not done after {DONE_S:g} s: {self._open_runs()}; {self.daemon.last_words()}")
        elif not self._wait_until(lambda: not self.containers(), CLEAN_S):
            report.violate(f"containers that no run needs: {[c.name for c in self.containers()]}")

    def look_at_runs(self) -> None:
        found = list(self._seen())
        names = {seen.work.name for seen in found if seen.work}
        for name in self.caller.known.keys() - names:
            self.report.violate(f"{name} was acknowledged, and is gone")
        for seen in found:
            self.report.outcomes[f"{seen.kind} {seen.status}{f' ({seen.reason})' if _has_reason(seen) else ''}"] += 1
            with contextlib.suppress(FileNotFoundError):
                self.report.gaps += seen.kind == "job" and b"polylocal: " in seen.log.read_bytes()
            for problem in problems(seen, self.truths):
                about = f"{seen.label} ({seen.work.name}, {seen.work.shape_name})" if seen.work else seen.label
                words = [f"{entry['status']}: {entry['message']}" for entry in seen.history]
                self.report.violate(f"{about}: {problem}\n    history: {words}")

    def containers(self) -> list[Any]:
        with self.engine.client() as client:
            label = f"{HOME_LABEL}={self._installation()}"
            return list(client.containers.list(all=True, ignore_removed=True, filters={"label": label}))

    # -- helpers --------------------------------------------------------------------------------------------------

    def run_in_background(self, name: str, work: Callable[[], None]) -> None:
        """Run a fault in the background while the next steps are carried out."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._background.append(thread)

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the end of the faults."""
        self._over.wait(seconds)

    def await_background(self, name: str) -> None:
        for thread in self._background:
            if thread.name == name:
                thread.join()

    @property
    def over(self) -> threading.Event:
        return self._over

    def ask(self, question: Callable[[Client], T]) -> T:
        with self.daemon.client() as client:
            return question(client)

    def shift_clock(self, seconds: float) -> None:
        beside = self._clock.with_name("clock.new")
        beside.write_text(str(seconds))
        beside.replace(self._clock)

    def _end_background(self) -> None:
        self._over.set()
        for thread in self._background:
            thread.join(30)
        self._background.clear()
        self._over.clear()

    def _watch_daemon(self) -> None:
        """Only faults may end the daemon."""
        code = self.daemon.unexpected_exit_code()
        if code is not None:
            self.report.violate(f"the daemon ended by itself with {code}: {self.daemon.last_words()}")
            self.daemon.kill()
        if not self.daemon.pid:
            self.daemon.start()

    def _installation(self) -> str:
        connection = sqlite3.connect(self.daemon.home.database)
        try:
            found: str = connection.execute("select value from facts where name = 'installation'").fetchone()[0]
        finally:
            connection.close()
        return found

    def _runs(self) -> list[dict[str, Any]]:
        def ask(client: Client) -> list[dict[str, Any]]:
            found = []
            for kind in ("job", "build"):
                with contextlib.suppress(NotFound):  # nothing was submitted, so there is no project
                    for run in _listed(client, kind, limit="10000"):
                        found.append({**run, "kind": kind})
            return found

        return self.ask(ask)

    def _open_runs(self) -> list[str]:
        return [f"{run['unique_name']} {run['last_status']}" for run in self._runs() if not is_done(run["last_status"])]

    def _all_done(self) -> bool:
        try:
            return not self._open_runs()
        except _API_TROUBLE:
            return False

    def _seen(self) -> Iterator[Seen]:
        works = {reference: name for name, reference in self.caller.known.items()}
        planned = self.caller.given
        for run in self._runs():
            reference = RunReference(OWNER, PROJECT, run["kind"], run["id"])
            history = self.ask(lambda client, reference=reference: client.statuses(reference))  # type: ignore[misc]
            name = works.get(reference, "")
            yield Seen(
                kind=run["kind"],
                label=f"{run['unique_name']} {run['uuid'][:8]}",
                status=run["last_status"],
                history=history,
                log=self.daemon.home.log(run["kind"], run["uuid"]),
                work=planned.get(name),
                stop_was_asked=name in self.caller.stopped,
            )

    def delete_all(self) -> None:
        """Nothing remains of deleted runs."""

        def delete(client: Client) -> None:
            for run in self._runs():
                client.delete(RunReference(OWNER, PROJECT, run["kind"], run["id"]))
            with contextlib.suppress(NotFound):
                client.delete_project(OWNER, PROJECT)

        self.ask(delete)
        if not self._wait_until(lambda: not self._leftovers(), CLEAN_S):
            self.report.violate(f"left after everything was deleted: {self._leftovers()}")

    def _leftovers(self) -> list[str]:
        home = self.daemon.home.root
        kept = ("logs", "outputs", "contexts", "notebooks", "code")
        found = [path for name in kept for path in list_tree(home / name)]
        files = [str(path.relative_to(home)) for path in found if path.is_file()]
        of_runs = (path.relative_to(home) for path in found if path.is_dir())
        folders = [str(path) for path in of_runs if path.parts[0] == "outputs" and len(path.parts) == 5]
        with self.engine.client() as client:
            label = f"{IMAGE_LABEL}={self._installation()}"
            # the low-level call: images.list() also inspects each image and fails if one is removed meanwhile
            images_found = client.api.images(filters={"label": label})
            # images of single steps are kept for later builds, and collected a day later
            built = [image for image in images_found if BUILD_LABEL in image["Labels"]]
            images = [f"{image['RepoTags'] or image['Id']} of build {image['Labels'][BUILD_LABEL]}" for image in built]
        return files + folders + images + [container.name for container in self.containers()]

    def _wait_until(self, check: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not check():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True


# -- faults: each gets two dice ---------------------------------------------------------------------------------------

Dice = tuple[float, float]


def kill_daemon(world: World, dice: Dice) -> None:
    world.daemon.kill()
    world.daemon.start()


def kill_daemon_and_pause(world: World, dice: Dice) -> None:
    world.daemon.kill()
    time.sleep(0.3 + 2 * dice[0])
    world.daemon.start()


def kill_engine(world: World, dice: Dice) -> None:
    world.engine.kill()
    time.sleep(dice[0])
    world.engine.start()


def restart_engine(world: World, dice: Dice) -> None:
    world.engine.stop()
    time.sleep(dice[0])
    world.engine.start()


def remove_container(world: World, dice: Dice) -> None:
    """`docker rm -f` of one of our containers, without the daemon's knowledge."""
    with contextlib.suppress(*_ENGINE_TROUBLE):
        found = sorted(world.containers(), key=lambda container: container.name)
        if found:
            found[int(dice[0] * len(found))].remove(force=True)


def cut_engine(world: World, dice: Dice) -> None:
    world.proxy.cut()


def tear_engine(world: World, dice: Dice) -> None:
    world.run_in_background("tear", lambda: world.proxy.tear(1 + 2 * dice[0], world.over))


def full_disk(world: World, dice: Dice) -> None:
    world.await_background("disk")

    def fill() -> None:
        with fill_disk(world.home):
            world.wait(1.5 + 2 * dice[0])

    world.run_in_background("disk", fill)


@contextlib.contextmanager
def fill_disk(folder: Path, but_mib: float = 0) -> Iterator[None]:
    """Fill the folder's disk completely, or except for `but_mib` MiB."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 12))
            if but_mib:
                file.truncate(max(0, file.tell() - int(but_mib * 2**20)))
        yield
    finally:
        filler.unlink(missing_ok=True)


def read_only_home(world: World, dice: Dice) -> None:
    """Between two daemons, since no file may be open for writing. The start of a daemon fails with a clear error."""
    world.await_background("disk")
    world.await_background("database")
    world.daemon.kill()
    _mount("-o", "remount,ro", str(world.home))
    try:
        if world.daemon.try_start():
            world.report.violate("the daemon started on a home folder that is read-only")
            world.daemon.kill()
        elif "Traceback" in world.daemon.refused_starts[-1]:
            world.report.violate(f"no clear word on a read-only home folder: {world.daemon.refused_starts[-1]}")
        time.sleep(dice[0])
    finally:
        _mount("-o", "remount,rw", str(world.home))
    world.daemon.start()


def _busy_database(world: World, seconds: float) -> None:
    world.await_background("database")

    def hold() -> None:
        connection = sqlite3.connect(world.daemon.home.database, isolation_level=None, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(sqlite3.Error):
            connection.execute("begin exclusive")
            world.wait(seconds)
            connection.execute("rollback")

    world.run_in_background("database", hold)


def busy_database(world: World, dice: Dice) -> None:
    _busy_database(world, 1 + 2 * dice[0])


def long_busy_database(world: World, dice: Dice) -> None:
    """Longer than the daemon waits for the database."""
    _busy_database(world, 12 + dice[0])
    world.wait(8)


def clock_jump(world: World, dice: Dice) -> None:
    world.shift_clock((dice[0] - 0.5) * 8 * 3600)


FAULTS: dict[str, Callable[[World, Dice], None]] = {
    "kill daemon": kill_daemon,
    "kill daemon, pause": kill_daemon_and_pause,
    "kill engine": kill_engine,
    "restart engine": restart_engine,
    "remove container": remove_container,
    "cut engine": cut_engine,
    "tear engine": tear_engine,
    "full disk": full_disk,
    "read-only home": read_only_home,
    "busy database": busy_database,
    "busy database, long": long_busy_database,
    "clock jump": clock_jump,
}


def run(
    seed: int, faults: Mapping[str, int], runs: int, main_engine: str, pace_s: float = 1.0, home_mib: int = 24
) -> Report:
    """One series of faults: plan, faults, recovery, verdict."""
    steps = plan(seed, faults, runs, pace_s)
    with World(seed, main_engine, home_mib) as world:
        world.carry_out(steps)
        return world.judge()


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _has_reason(seen: Seen) -> bool:
    return seen.status == "failed" and seen.reason in REASONS


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
