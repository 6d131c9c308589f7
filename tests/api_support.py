"""Contexts of the API for tests without an engine and a runner."""

from typing import Any

from polylocal.api.api_context import ApiContext
from polylocal.engine.machine import Machine
from polylocal.installation import Installation
from polylocal.planning.queue import QueueState
from polylocal.settings import Settings
from polylocal.store import Store


def api_context(settings: Settings, store: Store, **parts: Any) -> ApiContext:
    """A context of the API whose engine answers, has nothing and uses nothing. `parts` replace its fields."""
    idle: dict[str, Any] = {
        "engine_state": lambda: None,
        "scheduler_state": lambda: None,
        "queue_state": QueueState,
        "disk_usage": lambda budget_gib: (),
        "free_disk": lambda budget_gib: (),
        "image_sizes": lambda: (),
        "reaches_containers": lambda: True,
        "has_image": lambda name: False,
        "usage": lambda container_id: None,
        "machine": lambda: Machine("", 0, 0, "", ""),
        "capacity": lambda with_gpus: None,
    }
    return ApiContext(installation=Installation(settings, store), **{**idle, **parts})
