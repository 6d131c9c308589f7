"""Opens the container engine with the daemon's settings."""

from typing import Any
from urllib.parse import urlsplit

from polylocal.engine.base import Engine
from polylocal.engine.opening import open_engine
from polylocal.settings import Settings
from polylocal.system import addresses


def engine_at(address: str, settings: Settings, **more: Any) -> Engine:
    """The engine at an address, which connects at the first call. Connections to this machine use no proxy.

    `more`: further arguments of `open_engine`.
    """
    host = urlsplit(address if "://" in address else f"tcp://{address}").hostname or ""
    return open_engine(
        address,
        node=settings.node,
        uses_proxy=not addresses.is_this_machine(host),
        pull_timeout_s=settings.pull_timeout_s,
        **more,
    )
