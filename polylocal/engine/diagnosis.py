"""Protocol: the checks of an engine for `polylocal doctor`."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Isolation:
    """Whether polylocal's own network isolates the containers of runs from each other."""

    is_supported: bool = True  # False: the engine has no network that does
    exists: bool = True  # False: the network is created when it is first needed
    problem: str = ""  # the reason why it does not isolate them
    fix: str = ""  # one line for the user


class Diagnosis(Protocol):
    """Finds problems of an engine. `base` has the rules that hold for every method."""

    def unsupported(self) -> str:
        """The reason why the daemon can't use this version of the engine, in a few words; "": it can."""

    def isolation(self) -> Isolation:
        """Examines polylocal's own network. Creates nothing."""
