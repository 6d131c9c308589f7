"""Chooses the engine: its address on this machine, and the implementation that speaks to it."""

import os

from polylocal.engine.docker import probe
from polylocal.engine.docker.client import credential_problems as registry_problems
from polylocal.engine.docker.engine import DockerEngine as open_engine
from polylocal.engine.docker.probe import Report
from polylocal.engine.docker.probe import probe as find_engine

__all__ = ["DEFAULT_ADDRESS", "Report", "address_of", "find_engine", "open_engine", "registry_problems"]

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"


def address_of(report: Report, wanted: str | None) -> str:
    """The address to use. Without an answer it is the one where an engine is expected later."""
    return report.found.url if report.found else wanted or os.environ.get(probe.DOCKER_HOST) or DEFAULT_ADDRESS
