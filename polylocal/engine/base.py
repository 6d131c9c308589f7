"""The engine as the daemon needs it: three protocols in one, and their contract. It does not depend on Docker.

The contract holds for every engine; `tests/engine/` checks it on Docker and on a fake engine.

- Any thread may call any method.
- Every method except `build`, `attach`, `logs` and `events` is idempotent: after an EngineUnreachable, call it again.
- A missing container raises ContainerMissing and a missing image raises ImageMissing. Every other refusal raises
  EngineError with the engine's own words. An engine that does not answer raises EngineUnreachable.
- The network `plan.OWN_NETWORK` needs no preparation. The engine creates it for a container, or when its gateway is
  requested. Containers on it can't reach each other.
- Files and addresses need not be the daemon's. A `Mount` names a file of the daemon's machine, and the engine has to
  provide it. `ContainerState.endpoint` and `ContainerState.node` say where a container is. `has_file` and `read_file`
  look into containers. `usage` may be unknown.
"""

from typing import Protocol

from polylocal.engine.containers import Containers
from polylocal.engine.host import Host
from polylocal.engine.images import Images


class Engine(Images, Containers, Host, Protocol):
    """Runs containers and builds images. Callers that need less take one of the three protocols."""
