"""Whether Docker can give GPUs to containers, and how many.

A device request gives NVIDIA GPUs to a container. It works if the engine has the runtime `nvidia`, if its devices come
by CDI (Docker 28.2 and newer list them), or if the engine found the hook of NVIDIA's Container Toolkit at its start
(moby daemon/nvidia_linux.go).
"""

import os
import shutil
from collections.abc import Mapping
from typing import Any

from polylocal.engine import machine
from polylocal.engine.host import EngineInfo, GpuSupport

PODMAN = "Podman's Docker API can't give GPUs; use Docker Engine for runs that need one"
NO_TOOLKIT = "the engine can't give them: it has no runtime `nvidia`"
INSTALL_TOOLKIT = "Install NVIDIA Container Toolkit, then restart the engine."
_HOOK = "nvidia-container-runtime-hook"
# the PATH of services
_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))


def gives_gpus(about: Mapping[str, Any]) -> bool:
    """Whether the engine itself says so in its answer to `GET /info`."""
    devices = about.get("DiscoveredDevices") or []
    has_cdi = any(str(device.get("ID") or "").startswith("nvidia.com/gpu") for device in devices)
    return "nvidia" in (about.get("Runtimes") or {}) or has_cdi


def support(info: EngineInfo, *, is_local: bool) -> GpuSupport:
    """The GPUs of this machine, if the engine can give them. Those of another machine can't be counted."""
    if info.name == "Podman":
        return GpuSupport(0, PODMAN)
    if not is_local:
        return GpuSupport(None)
    count = machine.count_gpus()
    if not count:
        return GpuSupport(0, machine.no_gpus() or "the NVIDIA driver knows of no card")
    if info.gives_gpus or (not info.is_desktop and shutil.which(_HOOK, path=_PATH)):
        return GpuSupport(count)
    return GpuSupport(0, f"{count} NVIDIA card{'s' if count > 1 else ''} here, but {NO_TOOLKIT}", INSTALL_TOOLKIT)
