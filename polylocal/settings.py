"""Settings of the daemon. Command-line flags override `POLYLOCAL_*` variables, which override `polylocal.toml`."""

import json
import os
import platform
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polylocal.engine.plan import OWN_NETWORK
from polylocal.errors import SetupError
from polylocal.files.data_folders import DataFolders
from polylocal.paths import DEFAULT_HOME, Home

_PREFIX = "POLYLOCAL_"


class Settings(BaseModel):
    """Each setting with its default. Names end with the unit. Instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(DEFAULT_HOME, description="the folder that contains all data")
    host: str = Field("127.0.0.1", description="the address that the REST API listens on")
    allowed_hosts: list[str] = Field(
        default_factory=list, description="further names of this machine that browsers and clients may use"
    )
    local_git_hosts: list[str] = Field(
        default_factory=list,
        description="hosts (name or name:port) that users may fetch code from although they lead to this machine",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="the API's port; 0 takes any free one")
    user: Annotated[str, Field(min_length=1, max_length=156, pattern=r"^[-\w]*$")] = Field(
        "root", description="name of the admin that the first start creates"
    )
    engine: str | None = Field(None, description="the engine's address, as in DOCKER_HOST; empty: find one")
    max_runs: Annotated[int, Field(ge=1)] = Field(2, description="most runs at the same time")
    grace_s: Annotated[float, Field(ge=0)] = Field(10.0, description="seconds between the stop signal and the kill")
    poll_s: Annotated[float, Field(gt=0)] = Field(
        2.0, description="most seconds between two checks of the database for new work"
    )
    builder: Literal["classic", "buildkit"] = Field(
        "classic", description="classic: the engine's own builder; buildkit: `docker buildx`, which must be installed"
    )
    lang_env: str = Field("en_US.UTF-8", description="locale that generated Dockerfiles set; if empty, they set none")
    nvidia_bin: str = Field("", description="folder that generated Dockerfiles add to PATH")
    image_fallbacks: dict[str, str] = Field(
        default_factory=dict, description="local image to use if a base image can't be pulled: {wanted: local}"
    )
    pull_timeout_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="seconds without progress after which the pull of a base image fails"
    )
    data: DataFolders = Field(
        default_factory=dict,
        description="folders that runs may name in environment.data_refs: {name: folder} ([more](#data-folders))",
    )
    notebook_image: str = Field(
        "jupyter/base-notebook:2023-10-20", description="image of notebooks that are started without a polyaxonfile"
    )
    tensorboard_image: str = Field(
        "tensorflow/tensorflow:2.16.1", description="image of tensorboards that are started without a polyaxonfile"
    )
    network: Annotated[str, Field(min_length=1)] = Field(
        OWN_NETWORK,
        description="network of the engine that runs join; on polylocal's own network, runs can't reach each other",
    )
    node: str = Field(default_factory=platform.node, description="name of this machine in `node_scheduled`")
    time_limit_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="seconds that a build, a job or an experiment may run; empty: no limit"
    )
    package_cpus: Annotated[float, Field(gt=0)] | None = Field(
        None, description="CPU cores that a package build may use; empty: all"
    )
    package_memory_mib: Annotated[float, Field(gt=0)] | None = Field(
        None, description="MiB of memory that a package build may use; empty: all"
    )
    max_log_mib: Annotated[int, Field(ge=1)] = Field(
        4096, description="largest log of a run, in MiB; longer logs are cut, and end with a line that says so"
    )
    min_free_mib: Annotated[int, Field(ge=0)] = Field(
        256, description="free MiB on the home folder's disk below which no new work begins"
    )
    image_budget_gib: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        100.0, description="GiB that built images may use; the least recently used are removed and rebuilt if needed"
    )
    pids_limit: Annotated[int, Field(ge=16)] = Field(4096, description="most processes and threads in one container")
    new_privileges: bool = Field(False, description="true: programs in containers may gain privileges, as with sudo")
    max_upload_mib: Annotated[int, Field(ge=1)] = Field(512, description="largest code upload, packed, in MiB")
    max_unpacked_mib: Annotated[int, Field(ge=1)] = Field(
        4096, description="largest unpacked code, in MiB, whether uploaded, pushed, fetched, built or downloaded"
    )
    max_upload_files: Annotated[int, Field(ge=1)] = Field(
        100_000, description="most files and folders of code, whether uploaded, pushed or fetched"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="level of the daemon's own log")
    daemon_log_mib: Annotated[int, Field(ge=1)] = Field(10, description="largest file of that log, in MiB")
    daemon_log_files: Annotated[int, Field(ge=2)] = Field(5, description="files of that log to keep")

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the API."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def folders(self) -> Home:
        return Home(self.home)


def load(**flags: Any) -> Settings:
    """Read the settings. Flags that are None count as not given. Raises SetupError with all problems at once."""
    given = {name: value for name, value in flags.items() if value is not None}
    home = Path(given.get("home") or _home_of_environment()).expanduser().absolute()
    try:
        return Settings(**_merged(_of_file(Home(home).settings), _of_environment(), {**given, "home": home}))
    except ValidationError as error:
        found = ((e["loc"], e["msg"].removeprefix("Value error, ")) for e in error.errors())
        problems = (f"{'.'.join(map(str, place))}: {message}" for place, message in found)
        raise SetupError(f"settings (flags, POLYLOCAL_*, {Home(home).settings}): {'; '.join(problems)}") from error
    except (ValueError, OSError) as error:
        raise SetupError(f"{Home(home).settings} can't be read: {error}") from error


def _home_of_environment() -> Path:
    return Path(os.environ.get("POLYLOCAL_HOME") or DEFAULT_HOME).expanduser()


def _of_file(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}


def _of_environment() -> dict[str, Any]:
    """The settings in `POLYLOCAL_*` variables. Lists and tables are JSON. Raises SetupError."""
    found: dict[str, Any] = {}
    for variable, text in os.environ.items():
        name = variable.upper().removeprefix(_PREFIX).lower()
        if not variable.upper().startswith(_PREFIX) or name not in Settings.model_fields:
            continue
        is_json = get_origin(Settings.model_fields[name].annotation) in (list, dict)
        try:
            found[name] = json.loads(text) if is_json else text
        except ValueError as error:
            raise SetupError(f"settings: {variable} is not JSON: {error}") from error
    return found


def _merged(*sources: dict[str, Any]) -> dict[str, Any]:
    """Later sources go over earlier ones. Tables are merged."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            below = merged.get(name)
            merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
