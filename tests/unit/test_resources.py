"""Resources of a run: reservation, reduction to the machine's size, refusal."""

from __future__ import annotations

from typing import Any

import pytest
from support import job

from polylocal.engine.plan import Limits
from polylocal.errors import InvalidPolyaxonfile
from polylocal.planning.container import limits
from polylocal.polyaxonfile import Capacity, Resources, Specification, parse, requested_resources
from polylocal.polyaxonfile.resources import cuts, gpus, problems, reservation
from polylocal.statuses import Kind

TWO = Capacity(2, 4096.0, 2)
NO_CARDS = Capacity(2, 4096.0, 0)
NONE_HERE = (
    "The run asks for 1 GPU; this machine has none that the engine can give (polylocal doctor says why);"
    " take `gpu` out to run on the processor."
)
GROUP = {"version": 1, "kind": "group", "build": {"image": "a"}, "run": {"cmd": "x"}}


def told(found: list[Any]) -> list[str]:
    return [f"{'.'.join(path)}: {text}" for path, text in found]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, (0, 0)),
        ({"cpu": {"requests": 0.5, "limits": 2}, "memory": {"requests": 100, "limits": 900}}, (0.5, 100)),
        ({"cpu": {"limits": 2}, "memory": {"limits": 900}}, (2, 900)),
        ({"cpu": {"requests": 1}, "memory": {"requests": 100}}, (1, 100)),
        ({"cpu": {"requests": 0, "limits": 2}}, (0, 0)),
    ],
)
def test_requests_are_reserved_and_limits_only_without_them(resources: Any, expected: tuple[float, float]) -> None:
    assert reservation(Resources(**resources)) == expected


@pytest.mark.parametrize(
    ("resources", "machine", "expected"),
    [
        ({"cpu": {"requests": 3}}, TWO, ["cpu.requests: The run asks for 3 cores; this machine has 2."]),
        ({"cpu": {"limits": 2.5}}, TWO, ["cpu.limits: The run asks for 2.5 cores; this machine has 2."]),
        ({"cpu": {"requests": 3, "limits": 8}}, TWO, ["cpu.requests: The run asks for 3 cores; this machine has 2."]),
        ({"cpu": {"requests": 2, "limits": 8}}, TWO, []),
        (
            {"memory": {"limits": 1000000}},
            TWO,
            ["memory.limits: The run asks for 1000000 MiB of memory; this machine has 4096 MiB."],
        ),
        ({"memory": {"requests": 4096, "limits": 9999}}, TWO, []),
        ({"gpu": {"limits": 1}}, NO_CARDS, [f"gpu.limits: {NONE_HERE}"]),
        ({"gpu": {"requests": 1}}, NO_CARDS, [f"gpu.requests: {NONE_HERE}"]),
        ({"gpu": {"limits": 4}}, TWO, ["gpu.limits: The run asks for 4 GPUs; this machine has 2."]),
        ({"gpu": {"limits": 2}}, TWO, []),
        ({"gpu": {"limits": 0}}, NO_CARDS, []),
        ({"gpu": {"limits": 9}}, Capacity(2, 4096.0), []),
        (
            {"cpu": {"limits": 9}, "gpu": {"limits": 9}},
            TWO,
            [
                "cpu.limits: The run asks for 9 cores; this machine has 2.",
                "gpu.limits: The run asks for 9 GPUs; this machine has 2.",
            ],
        ),
        ({"tpu": {"limits": 9}}, TWO, []),
        ({"cpu": {"requests": 2 + 1e-9}}, TWO, []),  # not cut: it requests 2 cores, and there are 2
        ({"cpu": {"requests": 1, "limits": 0}, "memory": {"requests": 64, "limits": 0}}, TWO, []),  # 0 means no limit
    ],
)
def test_requests_beyond_the_machine(resources: Any, machine: Capacity, expected: list[str]) -> None:
    assert told(problems(Resources(**resources), machine)) == [f"environment.resources.{each}" for each in expected]
    assert problems(Resources(**resources)) == []


@pytest.mark.parametrize(
    ("resources", "path", "words"),
    [
        ({"gpu": {"limits": 0.5}}, "gpu.limits", "whole GPUs, not 0.5"),
        ({"gpu": {"requests": 1.5, "limits": 2}}, "gpu.requests", "whole GPUs, not 1.5"),
        ({"gpu": {"limits": True}}, "gpu.limits", "`true` is not an amount"),
        ({"cpu": {"requests": False}}, "cpu.requests", "`false` is not an amount"),
        ({"gpu": {"limits": -1}}, "gpu.limits", "greater than or equal to 0"),
        ({"cpu": {"requests": 2, "limits": 1}}, "cpu.requests", "(2 cores) must not be above `limits` (1 core)"),
        ({"memory": {"requests": 64, "limits": 32}}, "memory.requests", "must not be above"),
        ({"gpu": {"requests": 1, "limits": 0}}, "gpu.requests", "(1 GPU) must not be above `limits` (0 GPUs)"),
        ({"gpu": {"requests": 2, "limits": 1}}, "gpu.requests", "(2 GPUs) must not be above `limits` (1 GPU)"),
        ({"memory": {"limits": 4}}, "memory.limits", "at least 6 MiB of memory, not 4"),
        ({"cpu": {"limits": 0.001}}, "cpu.limits", "at least 0.01 cores, not 0.001"),
        ({"memory": {"limits": "1e999"}}, "memory.limits", "finite"),
        ({"cpu": {"limits": "nan"}}, "cpu.limits", "greater than or equal to 0"),
    ],
)
@pytest.mark.parametrize("kind", [Kind.JOB, Kind.GROUP])
def test_amounts_that_no_machine_has_are_refused_with_their_path(
    kind: Kind, resources: Any, path: str, words: str
) -> None:
    more = {"hptuning": {"matrix": {"lr": {"values": [1]}}}} if kind is Kind.GROUP else {}
    with pytest.raises(InvalidPolyaxonfile) as refused:
        parse(job(kind=str(kind), environment={"resources": resources}, **more), kind)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [f"environment.resources.{path}"]
    assert words in refused.value.problems[0]


def test_the_line_is_reported() -> None:
    text = "version: 1\nkind: job\nbuild: {image: a}\nrun: {cmd: x}\nenvironment:\n  resources:\n"
    text += "    gpu:\n      limits: 0.5\n"
    with pytest.raises(InvalidPolyaxonfile, match=r"^line 8, environment\.resources\.gpu\.limits: "):
        parse(text, Kind.JOB)


def test_a_stored_run_of_an_older_version_is_judged_too() -> None:
    stored = Specification(Kind.JOB, "", job(environment={"resources": {"gpu": {"limits": 0.5}}}))
    assert "whole GPUs" in problems(stored.environment.resources)[0][1]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            {"cpu": {"requests": 1, "limits": 8}},
            ["cpu.limits: The limit of 8 cores is cut to what this machine has, 2 cores."],
        ),
        (
            {"memory": {"requests": 1, "limits": 8192}},
            [
                "memory.limits: The limit of 8192 MiB of memory is cut to what this machine has, 4096 MiB of memory.",
            ],
        ),
        (
            {"gpu": {"requests": 1, "limits": 4}},
            ["gpu.limits: The limit of 4 GPUs is cut to what this machine has, 2 GPUs."],
        ),
        ({"cpu": {"requests": 1, "limits": 2}}, []),
        ({"cpu": {"limits": 8}}, []),  # refused, not cut
        ({"cpu": {"requests": 1}}, []),
    ],
)
def test_limits_above_the_machine_are_cut_and_reported(resources: Any, expected: list[str]) -> None:
    assert told(cuts(Resources(**resources), TWO)) == [f"environment.resources.{each}" for each in expected]


def test_a_container_gets_at_most_the_machine() -> None:
    wanted = Resources(
        cpu={"requests": 1, "limits": 8}, memory={"requests": 64, "limits": 8192}, gpu={"requests": 1, "limits": 4}
    )
    assert limits(wanted, TWO) == Limits(cpus=2, memory_mib=4096, memory_reservation_mib=64, gpus=2)
    assert limits(wanted) == Limits(cpus=8, memory_mib=8192, memory_reservation_mib=64, gpus=4)


def test_a_run_that_asks_for_a_card_never_goes_without_one_silently() -> None:
    """If the cards have disappeared since, the engine refuses the container."""
    assert gpus(Resources(gpu={"limits": 1}), NO_CARDS) == 1
    assert gpus(Resources(gpu={"requests": 0, "limits": 1}), NO_CARDS) is None


def test_a_reservation_that_the_engine_refuses_counts_for_the_queue_alone() -> None:
    wanted = Resources(memory={"requests": 2, "limits": 64})
    assert (limits(wanted).memory_reservation_mib, reservation(wanted)) == (None, (0, 2))


def test_amounts_are_shown_as_people_write_them() -> None:
    found = problems(Resources(memory={"limits": 12345678.5}), Capacity(2, 7962.4371))
    assert "asks for 12345678.5 MiB of memory; this machine has 7962 MiB." in found[0][1]


# -- groups -----------------------------------------------------------------------------------------------------------


def group(values: Any, limit: str = "{{ n }}") -> list[Any]:
    about = {"hptuning": {"matrix": {"n": values, "lr": {"values": [1, 2]}}}}
    content = {**GROUP, **about, "environment": {"resources": {"cpu": {"limits": limit}}}}
    found = []
    for each in requested_resources(parse(content, Kind.GROUP)):
        assert each
        assert each.cpu
        found.append(each.cpu.limits)
    return found


def test_a_group_asks_for_what_each_point_of_its_matrix_asks_for() -> None:
    assert group({"values": [1, 64]}) == [1, 64]
    assert group({"values": [1, 64]}, "{{ n * 2 }}") == [2, 128]
    assert group({"values": [1, 64]}, "{% if n > 1 %}64{% else %}1{% endif %}") == [1, 64]
    assert group({"values": [1, 64]}, "3") == [3]


def test_a_distribution_is_judged_when_it_is_drawn() -> None:
    about = {"hptuning": {"matrix": {"n": {"uniform": "1:9"}}, "random_search": {"n_experiments": 2}}}
    content = {**GROUP, **about, "environment": {"resources": {"cpu": {"limits": "{{ n }}"}}}}
    assert list(requested_resources(parse(content, Kind.GROUP))) == []


def test_a_build_asks_for_nothing() -> None:
    content = {"version": 1, "kind": "build", "build": {"image": "a"}}
    more = {"environment": {"resources": {"cpu": {"limits": 99}}}}
    assert list(requested_resources(parse({**content, **more}, Kind.BUILD))) == []
