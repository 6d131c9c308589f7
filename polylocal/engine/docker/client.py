"""docker-py's client with the usable parts of the configuration of Docker's command line (`config.json`).

docker-py reads this file in its constructor. It fails on parts that it can't use. It also fails every build and pull if
a credential helper is missing, is broken or does not answer (docker-py#2540). Docker's command line then builds without
credentials.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker import auth
from docker.credentials import Store
from docker.credentials.constants import PROGRAM_PREFIX
from docker.credentials.errors import CredentialsNotFound, StoreError
from docker.errors import DockerException
from docker.utils import config as docker_config

HELPER_S = 10.0  # for the answer of a credential helper
_UNUSABLE = (StoreError, DockerException, OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass
class ClientSettings:
    """The content of a `config.json`. `problems` are sentences about its unusable parts."""

    path: str = ""
    auths: dict[str, Any] = field(default_factory=dict)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)
    proxies: Mapping[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Credentials(auth.AuthConfig):
    """Credentials for registries. A helper that fails is added to `problems` and not called again."""

    is_empty = False  # if it is true, docker-py reads the file itself

    def __init__(self, settings: ClientSettings, helper_s: float = HELPER_S) -> None:
        super().__init__({"auths": dict(settings.auths)})
        self.update({"credsStore": settings.store} if settings.store else {})
        self.update({"credHelpers": dict(settings.helpers)} if settings.helpers else {})
        self._path = settings.path
        self._helper_s = helper_s
        self._failed = set[str]()
        self.problems = list(settings.problems)

    def get_all_credentials(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.auths)
        for registry, store in self._registries():
            entry = self._resolve_authconfig_credstore(registry, store)
            if entry is not None:
                found[registry] = found[auth.convert_to_hostname(registry)] = entry
        return found

    def _registries(self) -> Iterator[tuple[str, str]]:
        if self.creds_store:
            with self._collect_problems(self.creds_store):
                yield from [
                    (registry, self.creds_store) for registry in self._get_store_instance(self.creds_store).list()
                ]
        yield from self.cred_helpers.items()

    def _resolve_authconfig_credstore(self, registry: str, credstore_name: str) -> Any:
        if credstore_name in self._failed:
            return None
        with self._collect_problems(credstore_name):
            return super()._resolve_authconfig_credstore(registry, credstore_name)
        return None

    def _get_store_instance(self, name: str) -> Store:
        if name not in self._stores:
            if shutil.which(f"{PROGRAM_PREFIX}{name}") is None:
                raise StoreError("it is not on PATH")
            self._stores[name] = _Helper(name, self._helper_s)
        return self._stores[name]

    @contextmanager
    def _collect_problems(self, store: str) -> Iterator[None]:
        try:
            yield
        except CredentialsNotFound:
            return
        except _UNUSABLE as error:
            self._failed.add(store)
            words = str(_in_docker_py(error)).strip().rstrip(".") or type(error).__name__
            helper = f"{PROGRAM_PREFIX}{store}"
            self.problems.append(f"the helper {helper}, which {self._path} names, gives no credentials: {words}")


def _in_docker_py(error: Exception) -> BaseException:
    """The cause of docker-py's own error. A StoreError has its own message."""
    return error if isinstance(error, StoreError) else error.__cause__ or error


class _Helper(Store):
    """A credential helper with a time limit."""

    def __init__(self, program: str, timeout_s: float) -> None:
        super().__init__(program)
        self._timeout_s = timeout_s

    def _execute(self, subcmd: str, data_input: bytes | None) -> bytes:
        try:
            done = subprocess.run(
                [self.exe, subcmd], input=data_input or b"", capture_output=True, timeout=self._timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StoreError(f"it did not answer within {self._timeout_s:g} s") from error
        if done.returncode == 0:
            return done.stdout
        words = (done.stdout or done.stderr).decode(errors="replace").strip()
        if "credentials not found" in words:
            raise CredentialsNotFound(words)
        raise StoreError(f"it ended with exit code {done.returncode}: {words[:200]}")


class Client(docker.APIClient):
    """Never fails on the configuration of Docker's command line.

    `uses_proxy`: reach the engine through the proxy that the environment names; a socket never needs one.
    """

    def __init__(self, *, uses_proxy: bool = False, **arguments: Any) -> None:
        self._uses_proxy = uses_proxy
        self._settings = read_settings()
        self.credentials = Credentials(self._settings)
        super().__init__(**arguments)

    @property
    def _general_configs(self) -> dict[str, Any]:
        return {"proxies": dict(self._settings.proxies)}

    @_general_configs.setter
    def _general_configs(self, loaded: object) -> None:
        """Ignores what docker-py read."""

    @property
    def _auth_configs(self) -> Credentials:
        return self.credentials

    @_auth_configs.setter
    def _auth_configs(self, loaded: object) -> None:
        """Ignores what docker-py read."""

    def _retrieve_server_version(self) -> str:
        if not self._uses_proxy or self.base_url.startswith("http+docker://"):
            self.trust_env = False
        found: str = super()._retrieve_server_version()
        return found

    def proxy_variables(self) -> dict[str, str]:
        """The variables for containers and builds that the configuration sets."""
        found: dict[str, str] = self._proxy_configs.get_environment()
        return found


def read_settings() -> ClientSettings:
    """The configuration file of Docker's command line, where that looks for it."""
    path = docker_config.find_config_file()
    if path is None:
        return ClientSettings()
    found = ClientSettings(path)
    if Path(path).name == docker_config.LEGACY_DOCKER_CONFIG_FILENAME:
        with _collect_problem(found, "it is not used"):
            found.auths = dict(auth.load_config(path).auths)
        return found
    data: object = None
    with _collect_problem(found, "it is not used"):
        data = json.loads(Path(path).read_bytes())
        if not isinstance(data, dict):
            raise ValueError("it is not a JSON object")
    if isinstance(data, dict):
        _fill(found, data)
    return found


def credential_problems(timeout_s: float) -> Sequence[str]:
    """Sentences about registry credentials that can't be used. Asks each credential helper once, for `timeout_s`."""
    credentials = Credentials(read_settings(), timeout_s)
    credentials.get_all_credentials()
    return credentials.problems


def _fill(found: ClientSettings, data: Mapping[str, Any]) -> None:
    for registry, entry in _mapping(found, data, "auths").items():
        with _collect_problem(found, f"the credentials for {registry} are not used"):
            found.auths |= auth.parse_auth({registry: _without_empty(entry)}, raise_on_error=True)
    store = data.get("credsStore") or ""
    if isinstance(store, str):
        found.store = store
    else:
        found.problems.append(f"{found.path}: `credsStore` is not text and is not used")
    found.helpers = {
        registry: name for registry, name in _mapping(found, data, "credHelpers").items() if isinstance(name, str)
    }
    found.proxies = {
        engine: {name: value for name, value in about.items() if isinstance(value, str)}
        for engine, about in _mapping(found, data, "proxies").items()
        if isinstance(about, dict)
    }


def _without_empty(entry: object) -> object:
    """Docker's command line ignores an empty `auth`, and writes one itself where a helper has the credentials."""
    if not isinstance(entry, dict):
        return entry or {}
    return {name: value for name, value in entry.items() if name != "auth" or value}


def _mapping(found: ClientSettings, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key) or {}
    if isinstance(value, dict):
        return value
    found.problems.append(f"{found.path}: `{key}` is not a JSON object and is not used")
    return {}


@contextmanager
def _collect_problem(found: ClientSettings, consequence: str) -> Iterator[None]:
    try:
        yield
    except _UNUSABLE as error:
        found.problems.append(f"{found.path}: {consequence}: {str(error).rstrip('.') or type(error).__name__}")
