"""The queue: which waiting runs may begin, and why the others wait. Pure.

Runs begin by priority, then by age. Each takes one of a fixed number of places. A run whose cores or memory are not
free holds back the runs behind it. Notebooks and tensorboards take no place and hold nothing back: a user waits for
them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import Capacity, Resources, requested_resources
from polylocal.polyaxonfile.resources import ROUNDING, Path, Problem, problems, reserved
from polylocal.statuses import Kind, Status
from polylocal.store.rows import QueuedRun, Run


class Candidate(Protocol):
    """A run, as far as the queue needs to know it. `resources` are those of the stored polyaxonfile."""

    @property
    def pk(self) -> int: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def unique_name(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def resources(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True)
class Holder:
    """A run that holds something. `owner` is the user whose project it is in: others may not know its name."""

    name: str
    owner: str
    amount: float = 1.0


# -- reasons to wait --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """All places are taken. `ahead` counts the waiting runs before this one."""

    ahead: int
    places: int
    holders: Sequence[Holder] = ()


@dataclass(frozen=True)
class Shortage:
    """Too little of a resource is free: of "cpu", in cores, or of "memory", in MiB."""

    resource: str
    wanted: float
    total: float
    holders: Sequence[Holder] = ()

    @property
    def free(self) -> float:
        """Negative where the machine has become smaller than what runs on it."""
        return self.total - sum(holder.amount for holder in self.holders)


@dataclass(frozen=True)
class Behind:
    """A place is free, but the first of the waiting runs needs more than is free. `ahead` counts that run, too."""

    ahead: int
    first: Holder  # with the amount that it wants
    shortage: Shortage


@dataclass(frozen=True)
class Build:
    """The build of its image is not done."""

    name: str


@dataclass(frozen=True)
class Concurrency:
    """Its group has not released it: of `limit` experiments at a time, `active` are released and not done."""

    group: str
    limit: int
    active: int


@dataclass(frozen=True)
class Retry:
    """An attempt failed for a reason that passes; the next one comes in `in_s` seconds."""

    in_s: float


@dataclass(frozen=True)
class Pause:
    """Nothing begins: the disk is full, the engine does not answer, or the scheduler is late."""

    cause: Literal["disk", "engine", "scheduler"]
    problem: str


Reason = Place | Shortage | Behind | Build | Concurrency | Retry | Pause


# -- decisions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """It may begin now."""


@dataclass(frozen=True)
class Wait:
    reason: Reason


@dataclass(frozen=True)
class Refuse:
    """This machine can never run it. `path` leads to the key of the polyaxonfile, if one is to blame."""

    path: Path
    problem: str

    @property
    def message(self) -> str:
        return ": ".join(filter(None, [".".join(map(str, self.path)), self.problem]))


Decision = Begin | Wait | Refuse


@dataclass(frozen=True)
class QueueState:
    """What the database does not tell: the runs that the runner works on, and by pk the seconds until a retry."""

    active: Sequence[Candidate] = ()
    retries: Mapping[int, float] = field(default_factory=dict)


NOTHING_AWAITED: Mapping[int, Reason] = MappingProxyType({})


def decide(
    waiting: Sequence[Candidate],
    active: Iterable[Candidate],
    machine: Capacity | None,
    places: int,
    *,
    awaited: Mapping[int, Reason] = NOTHING_AWAITED,
    pause: Pause | None = None,
) -> list[Decision]:
    """One decision for each of `waiting`, in the same order. `waiting` is sorted by priority, then by age.

    `machine` None: its capacity is unknown and no limit. `awaited`: by pk, what a run needs before it joins the queue.
    `pause`: nothing begins.
    """
    if pause:
        return [Wait(pause)] * len(waiting)
    line = _Line(active, machine, places)
    found: dict[int, Decision] = {}
    for run in sorted(waiting, key=lambda run: takes_place(run.kind)):  # servers are served first
        found[run.pk] = Wait(awaited[run.pk]) if run.pk in awaited else line.decide(run)
    return [found[run.pk] for run in waiting]


def takes_place(kind: Kind) -> bool:
    """Whether runs of this kind count against the number of places. A group runs nothing itself."""
    return not kind.is_server and kind is not Kind.GROUP


def refusal(run: Run, machine: Capacity | None) -> Refuse | None:
    """Why this machine can never run it, or one of the experiments of a group. `machine` None: no machine can.

    Raises ValueError: an older version stored the polyaxonfile and it can't be read.
    """
    try:
        return _refusal(
            problem for wanted in requested_resources(run.specification) for problem in problems(wanted, machine)
        )
    except InvalidPolyaxonfile as error:  # also of an experiment of a group
        return Refuse((), error.problems[0])


def awaited(waiting: Iterable[QueuedRun], retries: Mapping[int, float]) -> dict[int, Reason]:
    """By pk, what those runs wait for that have not joined the queue yet. `retries`: seconds until a retry, by pk."""
    found = ((run.pk, _awaited(run, retries.get(run.pk))) for run in waiting)
    return {pk: reason for pk, reason in found if reason}


def _awaited(run: QueuedRun, retry_s: float | None) -> Reason | None:
    if run.is_held:
        return Concurrency(run.group_name or "", run.concurrency or 1, run.released)
    if run.build_name and run.build_status is not Status.SUCCEEDED:
        return Build(run.build_name)
    return None if retry_s is None else Retry(retry_s)


class _Line:
    """The runs that have begun or may begin, while one waiting run after the other is decided."""

    def __init__(self, active: Iterable[Candidate], machine: Capacity | None, places: int) -> None:
        self._machine = machine
        self._places = places
        self._holders: list[Holder] = []  # of places
        self._reserved: dict[str, list[Holder]] = {"cpu": [], "memory": []}
        self._first: tuple[Holder, Shortage] | None = None  # of those that wait, if it holds back the others
        self._ahead = 0
        for run in active:
            self._admit(run, _amounts_of_active(run))

    def decide(self, run: Candidate) -> Decision:
        if takes_place(run.kind) and (reason := self._turn()):
            self._ahead += 1
            return Wait(reason)
        try:
            resources = _resources(run)
        except ValidationError:
            return Refuse(("environment", "resources"), "An older version stored them; this one can't read them.")
        if refused := _refusal(problems(resources, self._machine)):
            return refused
        wanted = _amounts(resources)
        if shortage := self._shortage(wanted):
            if takes_place(run.kind):
                self._first = Holder(run.unique_name, run.owner, shortage.wanted), shortage
                self._ahead += 1
            return Wait(shortage)
        self._admit(run, wanted)
        return Begin()

    def _turn(self) -> Place | Behind | None:
        """Why the next run that takes a place has to wait for others, whatever it asks for."""
        if self._first:
            return Behind(self._ahead, *self._first)
        return Place(self._ahead, self._places, tuple(self._holders)) if len(self._holders) >= self._places else None

    def _shortage(self, wanted: Mapping[str, float]) -> Shortage | None:
        for resource, amount in wanted.items():
            total = self._machine.amount(resource) if self._machine else None
            if total is None:
                continue
            shortage = Shortage(resource, amount, total, tuple(self._reserved[resource]))
            if amount > shortage.free + ROUNDING:
                return shortage
        return None

    def _admit(self, run: Candidate, wanted: Mapping[str, float]) -> None:
        if takes_place(run.kind):
            self._holders.append(Holder(run.unique_name, run.owner))
        for resource, amount in wanted.items():
            self._reserved[resource].append(Holder(run.unique_name, run.owner, amount))


def _refusal(found: Iterable[Problem]) -> Refuse | None:
    return next((Refuse(path, problem) for path, problem in found), None)


def _resources(run: Candidate) -> Resources | None:
    """What a run asks for. Raises ValidationError: an older version stored something else."""
    return None if run.resources is None or run.kind is Kind.BUILD else Resources.model_validate(run.resources)


def _amounts_of_active(run: Candidate) -> dict[str, float]:
    try:
        return _amounts(_resources(run))
    except ValidationError:  # begun by an older version; it must not hold up the queue
        return {}


def _amounts(resources: Resources | None) -> dict[str, float]:
    """What no other run gets while one with these resources runs: cores and MiB, without zeros."""
    cores, memory_mib = reserved(resources)
    return {name: amount for name, amount in (("cpu", cores), ("memory", memory_mib)) if amount}
