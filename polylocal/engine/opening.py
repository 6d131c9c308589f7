"""Chooses the engine: its address on this machine, and the implementation that speaks to it."""

import os
from collections.abc import Callable, Sequence

from polylocal.engine.base import Engine
from polylocal.engine.docker import probe
from polylocal.engine.docker.client import credential_problems
from polylocal.engine.docker.engine import DockerEngine
from polylocal.engine.docker.probe import Report as Report

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"


def find_engine(wanted: str | None, timeout_s: float = 3.0) -> Report:
    """Look for an engine that answers: at the address `wanted`, else at DOCKER_HOST, else at every usual address.

    `timeout_s`: for one address.
    """
    return probe.probe(wanted, timeout_s=timeout_s)


def address_of(report: Report, wanted: str | None) -> str:
    """The address to use. Without an answer it is the one where an engine is expected later."""
    return report.found.url if report.found else wanted or os.environ.get(probe.DOCKER_HOST) or DEFAULT_ADDRESS


def open_engine(
    address: str,
    *,
    node: str,
    uses_proxy: bool,
    use_buildkit: bool = False,
    pull_timeout_s: float = 60.0,
    observe: Callable[[str, float], None] = lambda call, seconds: None,
) -> Engine:
    """The engine at an address. It connects at the first call, so this raises nothing.

    `node`: the name of its machine. `uses_proxy`: reach it through the proxy that the environment names, if there is
    one. `pull_timeout_s`: a pull ends after this time without progress. `observe` gets each call of the engine
    with its seconds.
    """
    return DockerEngine(
        address,
        node=node,
        uses_proxy=uses_proxy,
        use_buildkit=use_buildkit,
        pull_timeout_s=pull_timeout_s,
        observe=observe,
    )


def registry_problems(timeout_s: float) -> Sequence[str]:
    """Sentences about registry credentials that can't be used. `timeout_s`: for one credential helper."""
    return credential_problems(timeout_s)
