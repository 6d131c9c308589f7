"""Two people at one daemon, each with the original command line in another version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from programs import run_polylocal
from support import Daemon, running_daemon, sweep

from clients import files
from clients.originals import VERSIONS, Person, Program, SideBySide, environment, resident
from polylocal.client.http import Client, RunReference
from polylocal.store import Store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Environments are made, and images with Python are built, within the time of whichever test comes first."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(400))


Programs = dict[str, Program]
Accounts = dict[str, tuple[str, str, str]]


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        folders = pool.map(environment, VERSIONS)
        yield {
            version: stack.enter_context(resident(version, folder))
            for version, folder in zip(VERSIONS, folders, strict=True)
        }


@pytest.fixture(scope="session")
def daemon(engine_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("daemon") / "home"
    with running_daemon(home, "--max-runs", "6", env={"POLYLOCAL_GRACE_S": "1"}) as started:
        yield started
    store = Store(home / "polylocal.db")
    installation = store.installation()
    store.close()
    sweep(engine_address, installation)


@pytest.fixture(scope="session")
def accounts(daemon: Daemon) -> Accounts:
    """For each version a name, a password and a token."""
    return {version: _add_user(daemon, f"ann-{version.replace('.', '')}", "s3cret word") for version in VERSIONS}


def _add_user(daemon: Daemon, name: str, password: str) -> tuple[str, str, str]:
    environment = {**os.environ, "POLYLOCAL_HOME": str(daemon.home)}
    done = run_polylocal("user", "add", name, "--password-stdin", environment=environment, input=password + "\n")
    assert done.returncode == 0, done.stderr
    return name, password, done.stdout.strip()


@pytest.fixture
def stranger(programs: Programs, accounts: Accounts, tmp_path: Path) -> Iterator[SideBySide]:
    """People who have an account, and a program that was never used."""
    with ExitStack() as stack:
        at_desks = {each: _at_a_desk(programs[each], accounts[each], tmp_path / each) for each in VERSIONS}
        yield SideBySide({each: stack.enter_context(desk) for each, desk in at_desks.items()})


@pytest.fixture
def configured(stranger: SideBySide, daemon: Daemon) -> SideBySide:
    """People whose programs know where the daemon is."""
    stranger.each(lambda person: person.configure(daemon.url))
    return stranger


@pytest.fixture
def person(configured: SideBySide) -> SideBySide:
    """People who are logged in."""
    configured.each(lambda person: person.polyaxon("login", "--token", person.token))
    return configured


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is about a person is one about each of them, at the same time: most of it is waiting."""
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    both = next((given for given in arguments.values() if isinstance(given, SideBySide)), None)
    if both is None:
        return None

    def call(person: Person) -> None:
        pyfuncitem.obj(**{name: person if given is both else given for name, given in arguments.items()})

    both.each(call)
    return True


@contextmanager
def _at_a_desk(program: Program, account: tuple[str, str, str], folder: Path) -> Iterator[Person]:
    home, work = folder / "person", folder / "work"
    home.mkdir(parents=True)
    work.mkdir()
    made = Person(*account, program, home, work)
    try:
        yield made
    finally:
        made.leave()


@pytest.fixture(scope="session", autouse=True)
def _early(request: pytest.FixtureRequest) -> None:
    """Images with Python take a while: they are built beside the tests that come first."""
    if any("tracked" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("tracked")


@pytest.fixture(scope="session")
def tracked(
    programs: Programs, accounts: Accounts, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, RunReference]]:
    """For each version an experiment and a job that are told by its client, and are begun."""
    folder = tmp_path_factory.mktemp("tracked")
    with ExitStack() as stack:
        at_desks = {each: _at_a_desk(programs[each], accounts[each], folder / each) for each in VERSIONS}
        both = SideBySide({each: stack.enter_context(desk) for each, desk in at_desks.items()})

        def begin(person: Person) -> dict[str, RunReference]:
            person.configure(daemon.url)
            person.polyaxon("login", "--token", person.token)
            person.begin_project("tracking")
            return files.run_with_client(person)

        return both.each(begin)


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    """What is stored, as the admin sees it."""
    made = daemon.client()
    yield made
    made.close()
