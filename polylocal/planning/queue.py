"""The queue: which waiting runs may begin, and why the others wait. Pure.

Runs begin by priority, then by age. Each takes one of a fixed number of slots. A run whose cores or memory are not free
holds back the runs behind it. Notebooks and tensorboards take no slot and hold nothing back: a user waits for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from pydantic import ValidationError

from polylocal.errors import InvalidPolyaxonfile
from polylocal.polyaxonfile import Capacity, Resources, requested_resources
from polylocal.polyaxonfile.resources import ROUNDING, Path, Problem, problems, reservation
from polylocal.statuses import Status
from polylocal.store.rows import QueuedRun, Run

Candidate = Run | QueuedRun


@dataclass(frozen=True)
class Holder:
    """A run that holds a slot or an amount of a resource. `owner`: of its project; others may not know the name."""

    name: str
    owner: str
    amount: float = 1.0


@dataclass(frozen=True)
class NoSlot:
    """All slots are taken. `ahead` counts the waiting runs before this one."""

    ahead: int
    slots: int
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
class BehindBlockedRun:
    """A slot is free, but the first of the waiting runs needs more than is free. `ahead` counts that run, too."""

    ahead: int
    first: Holder  # with the amount that it wants
    shortage: Shortage


@dataclass(frozen=True)
class BuildPending:
    """The build of its image is not done."""

    name: str


@dataclass(frozen=True)
class GroupLimit:
    """Its group has not released it: of `limit` experiments at a time, `active` are released and not done."""

    group: str
    limit: int
    active: int


@dataclass(frozen=True)
class Starting:
    """It may begin. The scheduler starts it with its next step."""


@dataclass(frozen=True)
class Retry:
    """An attempt failed for a temporary reason; the next one follows in `in_s` seconds."""

    in_s: float


@dataclass(frozen=True)
class Pause:
    """Nothing begins: the disk is full, the engine does not answer, or the scheduler is late."""

    cause: Literal["disk", "engine", "scheduler"]
    problem: str


Reason = NoSlot | Shortage | BehindBlockedRun | BuildPending | GroupLimit | Starting | Retry | Pause


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
    """Facts that are not in the database: the runs that have a thread, and by pk the seconds until a retry."""

    active: Sequence[Candidate] = ()
    retries: Mapping[int, float] = field(default_factory=dict)


NO_PREREQUISITES: Mapping[int, Reason] = MappingProxyType({})


def decide(
    waiting: Sequence[Candidate],
    active: Iterable[Candidate],
    machine: Capacity | None,
    slots: int,
    *,
    prerequisites: Mapping[int, Reason] = NO_PREREQUISITES,
    pause: Pause | None = None,
) -> list[Decision]:
    """One decision for each of `waiting`, in the same order. `waiting` is sorted by priority, then by age.

    `machine` None: its capacity is unknown and no limit. `prerequisites`: by pk, the reasons why runs have not joined
    the queue. `pause`: nothing begins.
    """
    if pause:
        return [Wait(pause)] * len(waiting)
    allocator = _Allocator(active, machine, slots)
    found: dict[int, Decision] = {}
    for run in sorted(waiting, key=lambda run: run.kind.takes_slot):  # servers are served first
        found[run.pk] = Wait(prerequisites[run.pk]) if run.pk in prerequisites else allocator.decide(run)
    return [found[run.pk] for run in waiting]


def refusal(run: Run, machine: Capacity | None) -> Refuse | None:
    """Why this machine can never run it, or one of the experiments of a group. `machine` None: no machine can.

    Raises ValueError: an older version stored the polyaxonfile and it can't be read.
    """
    try:
        wanted = requested_resources(run.specification)
        return _refusal(problem for resources in wanted for problem in problems(resources, machine))
    except InvalidPolyaxonfile as error:  # also of an experiment of a group
        return Refuse((), error.problems[0])


def prerequisites(waiting: Iterable[QueuedRun], retries: Mapping[int, float]) -> dict[int, Reason]:
    """By pk, the reasons why runs have not joined the queue. `retries`: seconds until a retry, by pk."""
    found = ((run.pk, _prerequisite(run, retries.get(run.pk))) for run in waiting)
    return {pk: reason for pk, reason in found if reason}


def _prerequisite(run: QueuedRun, retry_s: float | None) -> Reason | None:
    if run.is_held:
        return GroupLimit(run.group_name or "", run.concurrency or 1, run.released)
    if run.build_name and run.build_status is not Status.SUCCEEDED:
        return BuildPending(run.build_name)
    return None if retry_s is None else Retry(retry_s)


class _Allocator:
    """Allocates slots and resources to one waiting run after the other."""

    def __init__(self, active: Iterable[Candidate], machine: Capacity | None, slots: int) -> None:
        self._machine = machine
        self._slots = slots
        self._holders: list[Holder] = []  # of slots
        self._reserved: dict[str, list[Holder]] = {"cpu": [], "memory": []}
        self._first: tuple[Holder, Shortage] | None = None  # the first waiting run, if it holds back the others
        self._ahead = 0
        for run in active:
            amounts: dict[str, float] = {}  # of a run that an older version began: it must not block the queue
            with suppress(ValidationError):
                amounts = _amounts(_resources(run))
            self._admit(run, amounts)

    def decide(self, run: Candidate) -> Decision:
        if run.kind.takes_slot and (reason := self._wait_for_others()):
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
            if run.kind.takes_slot:
                self._first = Holder(run.unique_name, run.owner, shortage.wanted), shortage
                self._ahead += 1
            return Wait(shortage)
        self._admit(run, wanted)
        return Begin()

    def _wait_for_others(self) -> NoSlot | BehindBlockedRun | None:
        """The reason why the next run waits regardless of its resources."""
        if self._first:
            return BehindBlockedRun(self._ahead, *self._first)
        return NoSlot(self._ahead, self._slots, tuple(self._holders)) if len(self._holders) >= self._slots else None

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
        if run.kind.takes_slot:
            self._holders.append(Holder(run.unique_name, run.owner))
        for resource, amount in wanted.items():
            self._reserved[resource].append(Holder(run.unique_name, run.owner, amount))


def _refusal(found: Iterable[Problem]) -> Refuse | None:
    return next((Refuse(path, problem) for path, problem in found), None)


def _resources(run: Candidate) -> Resources | None:
    """The requested resources. Raises ValidationError: an older version stored them in another form."""
    return None if run.resources is None or run.kind.makes_image else Resources.model_validate(run.resources)


def _amounts(resources: Resources | None) -> dict[str, float]:
    """The amounts that these resources reserve: cores and MiB, without zeros."""
    cores, memory_mib = reservation(resources)
    return {name: amount for name, amount in (("cpu", cores), ("memory", memory_mib)) if amount}
