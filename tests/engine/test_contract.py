"""The contract of an engine, on the fake engine and on the real one."""

from __future__ import annotations

import io
import ipaddress
import tarfile
import tempfile
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from support import eventually

from polylocal.engine.containers import LOOPBACK, Died, Endpoint, Frame
from polylocal.engine.images import BuildRequest, BuildResult
from polylocal.engine.plan import ContainerPlan
from polylocal.errors import ContainerMissing, EngineError, ImageMissing
from polylocal.system.cancellation import Cancel

from .conftest import NODE


def build(bench, dockerfile: str, tag: str, on_line=lambda line: None, cancel: Cancel | None = None) -> BuildResult:
    """Build from a Dockerfile alone, by the engine of the bench."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(dockerfile)
            tar.addfile(entry, io.BytesIO(dockerfile.encode()))
        file.seek(0)
        request = BuildRequest(file, tag, {"polylocal.image": bench.installation})
        return bench.engine.build(request, on_line, cancel or Cancel())


def joined(frames: Iterable[Frame], stream: int) -> bytes:
    return b"".join(frame.data for frame in frames if frame.stream == stream)


def ended(bench, container_id: str):
    return eventually(lambda: (state := bench.engine.inspect(container_id)).is_finished and state)


def test_info_says_what_the_machine_has(bench):
    info = bench.engine.info()
    assert info.cpus >= 1
    support = bench.engine.gpus()
    assert support.count or support.problem  # the reason is there exactly if there are none
    assert info.memory_mib > 100
    assert info.api_version[0].isdigit()


def test_builder_has_a_name(bench):
    assert bench.engine.builder().startswith("classic")


def test_a_local_image_has_an_id_and_an_unknown_one_none(bench):
    assert bench.engine.image_id(bench.image)
    assert bench.engine.image_id("polylocal/no-such:image") is None


def test_pulling_what_is_nowhere_is_an_engine_error(bench):
    with pytest.raises(EngineError):
        bench.engine.pull("127.0.0.1:1/no/such:image", lambda line: None, Cancel())


def test_pulling_what_is_here_asks_nobody(bench):
    bench.engine.pull(bench.image, lambda line: pytest.fail("nothing was to be pulled"), Cancel())


def test_life_of_a_container(bench):
    container_id = bench.engine.create(bench.plan("echo hello; exit 3"))
    state = bench.engine.inspect(container_id)
    assert (state.status, state.started_at, state.is_running) == ("created", "", False)
    assert not bench.engine.may_have_started(state)
    bench.engine.start(container_id)
    state = ended(bench, container_id)
    assert state.exit_code == 3
    assert state.started_at
    assert state.finished_at
    assert not bench.engine.has_lost(state)
    bench.engine.remove(container_id)
    with pytest.raises(ContainerMissing):
        bench.engine.inspect(container_id)


def test_attach_before_start_gives_all_output(bench):
    container_id = bench.engine.create(bench.plan("echo out; echo err >&2; printf tail"))
    with bench.engine.attach(container_id) as stream:
        bench.engine.start(container_id)
        frames = list(stream)
    assert joined(frames, 1) == b"out\ntail"
    assert joined(frames, 2) == b"err\n"


def test_logs_give_the_stored_output_with_streams_and_times(bench):
    container_id = bench.started("echo out; echo err >&2; printf tail")
    ended(bench, container_id)
    with bench.engine.logs(container_id, follow=False) as stream:
        frames = list(stream)
    assert joined(frames, 1) == b"out\ntail"
    assert joined(frames, 2) == b"err\n"
    assert all(frame.time_us for frame in frames)


def test_logs_follow_to_the_end(bench):
    container_id = bench.started("echo one; sleep 0.3; echo two")
    with bench.engine.logs(container_id, follow=True) as stream:
        assert joined(stream, 1) == b"one\ntwo\n"


def test_logs_tail_gives_the_last_lines(bench):
    container_id = bench.started("echo 1; echo 2; echo 3; echo 4")
    ended(bench, container_id)
    with bench.engine.logs(container_id, follow=False, tail=2) as stream:
        assert joined(stream, 1) == b"3\n4\n"


@pytest.mark.parametrize("how", ["attach", "logs"])
def test_closing_a_stream_ends_it_for_its_reader(bench, how):
    container_id = bench.engine.create(bench.plan("echo one; sleep 60"))
    attached = bench.engine.attach(container_id) if how == "attach" else None
    bench.engine.start(container_id)
    stream = attached or bench.engine.logs(container_id, follow=True)
    seen = threading.Event()

    def read() -> None:
        for _ in stream:
            seen.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert seen.wait(10)
    stream.close()
    reader.join(10)
    assert not reader.is_alive()
    stream.close()  # idempotent
    with stream:
        pass


def test_stop_ends_a_container_and_forgives_everything(bench):
    container_id = bench.started("sleep 60")
    bench.engine.stop(container_id, 1)
    assert ended(bench, container_id).exit_code != 0
    bench.engine.stop(container_id, 1)
    bench.engine.remove(container_id)
    bench.engine.stop(container_id, 1)


def test_terminate_ends_a_container_and_says_where_nothing_runs(bench):
    created = bench.engine.create(bench.plan("sleep 60"))
    assert not bench.engine.terminate(created)
    container_id = bench.started("sleep 60")
    assert bench.engine.terminate(container_id)
    assert bench.engine.wait(container_id, 10)
    assert ended(bench, container_id).exit_code == 143
    assert not bench.engine.terminate(container_id)
    bench.engine.remove(container_id)
    assert not bench.engine.terminate(container_id)


def test_waiting_has_a_limit_and_forgives_missing_ones(bench):
    container_id = bench.started("sleep 60")
    assert not bench.engine.wait(container_id, 0.1)
    assert not bench.engine.wait(container_id, 0)
    bench.engine.kill(container_id)
    assert bench.engine.wait(container_id, 10)
    bench.engine.remove(container_id)
    assert bench.engine.wait(container_id, 10)


def test_kill_forgives_everything(bench):
    container_id = bench.engine.create(bench.plan("sleep 60"))
    bench.engine.kill(container_id)
    bench.engine.start(container_id)
    bench.engine.kill(container_id)
    assert ended(bench, container_id).exit_code != 0
    bench.engine.kill(container_id)
    bench.engine.remove(container_id)
    bench.engine.kill(container_id)


def test_remove_takes_running_ones_too_and_forgives_missing_ones(bench):
    container_id = bench.started("sleep 60")
    bench.engine.remove(container_id)
    bench.engine.remove(container_id)
    assert not bench.engine.containers(bench.installation)


def test_starting_twice_starts_once(bench):
    container_id = bench.started("sleep 60")
    before = bench.engine.inspect(container_id).started_at
    bench.engine.start(container_id)
    assert bench.engine.inspect(container_id).started_at == before


def test_an_ended_container_starts_again_with_its_log(bench):
    container_id = bench.started("echo again; exit 1")
    first = ended(bench, container_id)
    with bench.engine.attach(container_id) as stream:
        bench.engine.start(container_id)
        assert joined(stream, 1) == b"again\n"
    second = eventually(lambda: (s := bench.engine.inspect(container_id)).finished_at != first.finished_at and s)
    assert second.is_finished
    with bench.engine.logs(container_id, follow=False) as stream:
        assert joined(stream, 1) == b"again\nagain\n"


def test_a_container_of_the_same_run_is_adopted(bench):
    plan = bench.plan()
    assert bench.engine.create(plan) == bench.engine.create(plan)


def test_a_stranger_of_the_same_name_is_refused(bench):
    plan = bench.plan()
    bench.engine.create(plan)
    stranger = ContainerPlan(plan.name, plan.image, plan.command, {**plan.labels, "polylocal.run": "job/other"})
    with pytest.raises(EngineError, match="not ours"):
        bench.engine.create(stranger)


def test_creating_from_a_missing_image(bench):
    plan = bench.plan()
    with pytest.raises(ImageMissing):
        bench.engine.create(ContainerPlan(plan.name, "polylocal/no-such:image", plan.command, plan.labels))


@pytest.mark.parametrize("call", ["start", "inspect", "attach"])
def test_a_missing_container_is_said_to_be_missing(bench, call):
    with pytest.raises(ContainerMissing):
        getattr(bench.engine, call)("0" * 64)


def test_files_of_a_container_are_seen_before_it_starts(bench):
    container_id = bench.engine.create(bench.plan())
    assert bench.engine.has_file(container_id, "/bin/sh")
    assert not bench.engine.has_file(container_id, "/bin/bash")


def test_a_file_that_is_not_there_has_no_beginning(bench):
    assert bench.engine.read_file(bench.engine.create(bench.plan()), "/no/such/file", 10) is None


def test_containers_lists_ours_in_every_state(bench):
    plan = bench.plan()
    created = bench.engine.create(plan)
    running = bench.started("sleep 60")
    found = {item.id: item for item in bench.engine.containers(bench.installation)}
    assert found[created].run == plan.labels["polylocal.run"]
    assert (found[created].status, found[running].status) == ("created", "running")
    assert not bench.engine.containers("another-installation")


def test_events_tell_of_deaths_with_exit_codes(bench):
    deaths: list[Died] = []

    def listen() -> None:
        for died in bench.engine.events(bench.installation):
            deaths.append(died)
            return

    listener = threading.Thread(target=listen)
    listener.start()
    # the stream says nothing when it opens: deaths are made until one is heard
    ids = []

    def heard() -> list[Died]:
        ids.append(bench.started("exit 5"))
        ended(bench, ids[-1])
        listener.join(0.2)
        return deaths

    died = eventually(heard)[0]
    listener.join(10)
    assert died.container_id in ids
    assert died.exit_code == 5


# -- what a container uses, and where it listens -----------------------------------------------------------------


def test_a_running_container_uses_something(bench):
    container_id = bench.started("sleep 60")
    sample = eventually(lambda: bench.engine.usage(container_id))
    assert sample.cpus >= 1
    assert sample.machine_ns > 0
    assert sample.cpu_ns >= 0
    assert len(sample.per_cpu_ns) in (0, sample.cpus)
    assert sample.memory_bytes is None or 0 < sample.memory_bytes < 2**50
    later = eventually(lambda: (s := bench.engine.usage(container_id)) and s.machine_ns > sample.machine_ns and s)
    assert later.cpu_ns >= sample.cpu_ns


def test_what_does_not_run_uses_nothing(bench):
    created = bench.engine.create(bench.plan("sleep 60"))
    assert bench.engine.usage(created) is None
    ran = bench.started("true")
    ended(bench, ran)
    assert bench.engine.usage(ran) is None


def test_the_usage_of_a_missing_container(bench):
    with pytest.raises(ContainerMissing):
        bench.engine.usage("0" * 64)


def test_a_published_port_has_an_endpoint_on_loopback_while_the_container_runs(bench):
    container_id = bench.engine.create(bench.plan("sleep 60", port=8888))
    assert bench.engine.inspect(container_id).endpoint(8888) is None
    bench.engine.start(container_id)
    found = eventually(lambda: bench.engine.inspect(container_id).published.get(8888))
    assert found.host == LOOPBACK
    assert 1024 < found.port < 65536
    assert bench.engine.inspect(container_id).endpoint(8888) == found
    bench.engine.stop(container_id, 0)
    assert ended(bench, container_id).endpoint(8888) is None


def test_without_a_port_nothing_is_published(bench):
    assert bench.engine.inspect(bench.started("sleep 60")).published == {}


def test_two_containers_with_the_same_port_have_different_endpoints(bench):
    ids = [bench.started("sleep 60", port=8888) for _ in range(2)]
    ports = [eventually(lambda i=i: bench.engine.inspect(i).published.get(8888)).port for i in ids]
    assert ports[0] != ports[1]


def test_a_port_that_is_not_published_has_an_endpoint_at_the_containers_own_address(bench):
    container_id = bench.started("sleep 60", port=8888, publishes_port=False)
    state = bench.engine.inspect(container_id)
    assert state.published == {}
    assert state.endpoint(8888) == Endpoint(state.address, 8888)
    assert state.endpoint(6006) == Endpoint(state.address, 6006)
    assert not ipaddress.IPv4Address(state.address).is_unspecified
    bench.engine.stop(container_id, 0)
    assert ended(bench, container_id).endpoint(8888) is None


def test_each_running_container_has_an_address_of_its_own_on_its_network(bench):
    ids = [bench.engine.create(bench.plan("sleep 60", network="bridge")) for _ in range(2)]
    assert bench.engine.inspect(ids[0]).address is None
    for container_id in ids:
        bench.engine.start(container_id)
    first, second = (ipaddress.IPv4Address(bench.engine.inspect(i).address) for i in ids)
    assert first != second
    bench.engine.stop(ids[0], 0)
    assert ended(bench, ids[0]).address is None


@pytest.mark.parametrize("publishes_port", [True, False])
def test_on_the_hosts_network_an_endpoint_is_on_loopback(bench, publishes_port):
    container_id = bench.started("sleep 60", port=8888, publishes_port=publishes_port, network="host")
    state = bench.engine.inspect(container_id)
    assert state.published == {}
    assert state.endpoint(8888) == Endpoint(LOOPBACK, 8888)
    bench.engine.stop(container_id, 0)
    assert ended(bench, container_id).endpoint(8888) is None


def test_a_container_without_a_network_has_no_endpoint(bench):
    state = bench.engine.inspect(bench.started("sleep 60", network="none"))
    assert (state.address, state.endpoint(8888)) == (None, None)


# -- the machine --------------------------------------------------------------------------------------------------


def test_the_node_of_a_container_is_the_one_that_the_engine_was_told(bench):
    container_id = bench.engine.create(bench.plan("true"))
    assert bench.engine.inspect(container_id).node == bench.engine.node == NODE
    bench.engine.start(container_id)
    assert ended(bench, container_id).node == NODE


def test_the_machine_has_the_name_of_the_node_and_the_version_of_the_engine(bench):
    info = bench.engine.info()
    found = bench.engine.machine()
    assert (found.name, found.engine, found.engine_api) == (NODE, f"{info.name} {info.version}", info.api_version)
    assert found.cpus >= 1
    assert found.memory_mib > 64


def test_the_clock_of_the_engine(bench):
    assert abs(bench.engine.time() - datetime.now(UTC)) < timedelta(minutes=10)


def test_a_builder_that_is_not_installed_has_no_name(bench):
    assert bench.engine.buildkit() is None or bench.engine.buildkit().startswith("buildkit (")


# -- builds -------------------------------------------------------------------------------------------------------


def test_build_streams_lines_and_gives_the_image(bench):
    lines: list[str] = []
    tag = f"{bench.installation}:built"
    result = build(bench, f"FROM {bench.image}\nENV A b\n", tag, lines.append)
    assert result.image_id == bench.engine.image_id(tag)
    assert any(line.startswith("Step 1/") for line in lines)
    bench.engine.remove_image(tag)
    assert bench.engine.image_id(tag) is None
    bench.engine.remove_image(tag)


def test_a_failed_build_is_a_value_with_the_step(bench):
    lines: list[str] = []
    dockerfile = f"FROM {bench.image}\nRUN exit 7\nENV A b\n"
    result = build(bench, dockerfile, f"{bench.installation}:x", lines.append)
    assert result.image_id is None
    assert "7" in result.error
    assert "RUN exit 7" in result.step
    assert any("RUN exit 7" in line for line in lines)


def test_a_build_can_be_cancelled_in_the_middle_of_a_step(bench):
    cancel = Cancel()

    def on_line(line: str) -> None:
        if "RUN sleep" in line:
            threading.Timer(0.2, cancel).start()

    dockerfile = f"FROM {bench.image}\nRUN sleep 60\n"
    result = build(bench, dockerfile, f"{bench.installation}:x", on_line, cancel)
    assert result.image_id is None
    assert "stopped" in result.error


def test_a_helper_runs_to_its_end_and_leaves_nothing(bench):
    assert bench.engine.run_helper(bench.plan("exit 4", name=f"plx-helper-{bench.installation}")) == 4
    assert not bench.engine.containers(bench.installation)
