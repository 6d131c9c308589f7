"""One run on the fake engine: its steps, its end and its files."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support import eventually, job

from polylocal.client import packing
from polylocal.engine.base import Engine
from polylocal.errors import EngineError, EngineUnreachable
from polylocal.runner import outcome, provision
from polylocal.runner.execution import Execution
from polylocal.runner.work import execution_of
from polylocal.statuses import Kind, Status
from polylocal.store import NewRun


def in_thread(rig, run, engine: Engine | None = None) -> tuple[Execution, threading.Thread]:
    execution = execution_of(rig.built(run), rig.context(engine))
    thread = threading.Thread(target=execution)
    thread.start()
    return execution, thread


def test_a_job_that_succeeds(rig):
    run = rig.run(rig.submit("echo out; echo err >&2; printf tail"))
    assert rig.history(run) == ["created", "building", "scheduled", "running", "succeeded"]
    assert rig.message(run) == "Completed"
    assert run.exit_code == 0
    assert run.node == rig.settings.node
    assert sorted(rig.log(run).splitlines()) == [b"err", b"out", b"tail"]
    assert not rig.engine.made
    assert (rig.settings.home / str(run.outputs)).is_dir()
    assert not rig.settings.folders.handover(run.uuid).exists()


def test_a_run_records_the_node_of_its_container(rig, monkeypatch):
    inspect = rig.engine.inspect
    monkeypatch.setattr(rig.engine, "places_containers", True)
    monkeypatch.setattr(rig.engine, "inspect", lambda container_id: replace(inspect(container_id), node="worker-2"))
    run = rig.run(rig.submit())
    assert (run.status, run.node) == ("succeeded", "worker-2")


def test_a_job_that_succeeds_is_not_inspected(rig, monkeypatch):
    """Docker answers about a container that is ending only after the removal of its network, 50 ms later."""
    monkeypatch.setattr(rig.engine, "inspect", lambda container_id: pytest.fail("it was inspected"))
    assert rig.run(rig.submit()).status == "succeeded"


def test_a_job_that_fails_says_its_exit_code_and_its_last_line(rig):
    run = rig.run(rig.submit("echo Traceback; echo ValueError: no >&2; exit 3"))
    assert run.status == "failed"
    assert run.exit_code == 3
    assert rig.message(run) == "Exit code 3: ValueError: no"


def test_a_missing_program(rig):
    run = rig.run(rig.submit("nosuch"))
    assert (run.status, run.exit_code) == ("failed", 127)
    assert "not found" in (rig.message(run) or "")


def test_an_image_without_bash_runs_in_sh(rig):
    rig.engine.shells = {"/bin/sh"}
    first = rig.run(rig.submit("echo one"))
    assert rig.log(first) == b"one\n"
    build = rig.store.runs.by_pk(first.build_pk)
    assert build.shell == "/bin/sh"
    again = rig.run(rig.submit("echo two"))
    assert rig.log(again) == b"two\n"
    assert again.build_pk == first.build_pk


LACKING = {"LC_ALL": "en_US.UTF-8", "LANG": "en_US.UTF-8", "LANGUAGE": "en_US.UTF-8"}
LOCALE = "/usr/lib/locale/{}/LC_CTYPE"


def locale_of(rig, run) -> tuple[dict[str, str], list[str]]:
    """The locale variables of a run's container, and the messages about them in its history."""
    made: list[dict[str, str]] = []
    create = rig.engine.create
    rig.engine.create = lambda plan: made.append(dict(plan.env)) or create(plan)
    rig.run(run)
    rig.engine.create = create
    said = [message for message in rig.messages(run) if message and "locale" in message]
    return {name: made[-1][name] for name in LACKING if name in made[-1]}, said


def test_a_run_gets_a_locale_that_its_image_has(rig):
    rig.engine.environment, rig.engine.files = LACKING, {LOCALE.format("C.utf8"): b""}
    first = rig.submit("true")
    assert locale_of(rig, first) == (dict.fromkeys(LACKING, "C.UTF-8"), [])
    build = rig.store.runs.by_pk(rig.again(first).build_pk)
    assert build.locale == "C.UTF-8"
    rig.engine.files = {}  # nobody looks again
    assert locale_of(rig, rig.submit("true")) == (dict.fromkeys(LACKING, "C.UTF-8"), [])


@pytest.mark.parametrize(
    ("build", "variables", "wanted"),
    [
        ({"env_vars": [["LC_ALL", "de_DE.UTF-8"]]}, {}, ["build.env_vars.LC_ALL: … de_DE.UTF-8; the run has C.UTF-8."]),
        ({"env_vars": [["A", "x"]]}, {}, []),  # nothing in the file names the image's
        ({"lang_env": "fr_FR.UTF-8"}, {}, []),  # nor this one, which the image does not have
        ({}, {"LC_ALL": "nb_NO.UTF-8", "LANG": "x"}, ["environment.env_vars.LC_ALL: … nb_NO.UTF-8."]),
        ({}, {"LANG": "nb_NO.UTF-8"}, []),  # LC_ALL of the image counts before it
        ({}, {"LC_ALL": "C.UTF-8", "NAME": "de_DE.UTF-8"}, []),
        ({}, {"LC_ALL": "C"}, []),
        ({}, {"LC_ALL": ""}, []),
    ],
)
def test_locales_that_variables_name_and_the_image_lacks_are_said(rig, build, variables, wanted):
    rig.engine.environment = {"LC_ALL": "de_DE.UTF-8"}
    rig.engine.files = {LOCALE.format("C.utf8"): b""}
    run = rig.submit("true", build={"image": "base", **build}, environment={"env_vars": variables})
    said = locale_of(rig, run)[1]
    advice = " Install it in build.build_steps, or name one that the image has."
    assert [text.replace("the image has no locale", "…").removesuffix(advice) for text in said] == wanted


def test_a_start_asks_the_engine_for_no_more_than_it_needs(rig, monkeypatch):
    rig.engine.environment, rig.engine.files = LACKING, {LOCALE.format("C.utf8"): b""}
    calls: list[str] = []
    for name in ("create", "remove", "has_file", "read_file", "open_folder", "image"):
        monkeypatch.setattr(rig.engine, name, noted(calls, name, getattr(rig.engine, name)))
    first = rig.built(rig.submit("true"))
    calls.clear()
    provision.make_container(first, rig.store.runs.by_pk(first.build_pk), rig.context())
    assert (calls.count("create"), calls.count("remove"), calls.count("read_file")) == (1, 0, 1)
    second = rig.built(rig.submit("true"))
    calls.clear()
    provision.make_container(second, rig.store.runs.by_pk(second.build_pk), rig.context())
    assert calls == ["create"]


def noted(calls: list[str], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **more: calls.append(name) or method(*arguments, **more)


def test_that_the_locales_of_an_image_can_not_be_seen_is_no_reason_not_to_start(rig, monkeypatch):
    def refuse(container_id: str, path: str, most_bytes: int) -> bytes:
        raise EngineError("not a directory")

    rig.engine.environment = LACKING
    monkeypatch.setattr(rig.engine, "read_file", refuse)
    assert rig.run(rig.submit("true")).status == "succeeded"


def test_an_image_that_has_its_locale_keeps_it(rig):
    rig.engine.environment, rig.engine.files = LACKING, {LOCALE.format("en_US.utf8"): b""}
    run = rig.submit("true")
    assert locale_of(rig, run) == ({}, [])
    assert rig.store.runs.by_pk(rig.again(run).build_pk).locale == ""


def test_a_build_of_an_older_version_is_looked_at_for_its_locale(rig):
    first = rig.run(rig.submit("true"))
    rig.store.runs.record(rig.store.runs.by_pk(first.build_pk), locale=None)
    rig.engine.environment, rig.engine.files = LACKING, {LOCALE.format("C.utf8"): b""}
    assert locale_of(rig, rig.submit("true"))[0] == dict.fromkeys(LACKING, "C.UTF-8")


def test_a_locale_that_the_polyaxonfile_names_and_the_image_lacks_is_said(rig):
    rig.engine.environment = dict.fromkeys(LACKING, "de_DE.UTF-8")
    run = rig.submit("true", build={"image": "base", "lang_env": "de_DE.UTF-8"})
    env, said = locale_of(rig, run)
    assert env == dict.fromkeys(LACKING, "C")
    assert said == [
        "build.lang_env: the image has no locale de_DE.UTF-8; the run has C. Install it in build.build_steps, or name"
        " one that the image has."
    ]


def test_the_container_gets_what_the_documents_promise(rig):
    run = rig.built(rig.submit("sleep 5", environment={"resources": {"memory": {"limits": 64}, "cpu": {"limits": 1}}}))
    execution, thread = in_thread(rig, run)
    container = eventually(lambda: next(iter(rig.engine.made.values()), None))
    plan = container.plan
    assert plan.name == f"plx-job-{run.uuid}"
    assert plan.command == ["/bin/bash", "-c", "sleep 5"]
    assert plan.labels == {"polylocal.home": "home", "polylocal.run": f"job/{run.uuid}"}
    assert (plan.limits.memory_mib, plan.limits.cpus) == (64, 1)
    assert plan.env["POLYAXON_API_HTTP_HOST"] == "http://api:1"
    assert plan.env["POLYAXON_RUN_OUTPUTS_PATH"] == f"/plx-outputs/root/quick-start/jobs/{run.id}"
    credentials = rig.store.users.by_token(plan.env["POLYAXON_SECRET_USER_TOKEN"])
    assert credentials
    assert credentials.run_pk == run.pk
    eventually(lambda: rig.again(run).status == "running")
    rig.store.runs.request_stop(run)
    execution.stop()
    thread.join(10)
    assert rig.store.users.by_token(plan.env["POLYAXON_SECRET_USER_TOKEN"]) is None


@pytest.mark.slow
def test_restarts_within_max_restarts(rig):
    run = rig.run(rig.submit("echo try; exit 4", environment={"max_restarts": 2}))
    assert rig.history(run)[-6:] == ["running", "warning", "running", "warning", "running", "failed"]
    assert rig.log(run) == b"try\ntry\ntry\n"
    assert run.restarts == 2


def test_stopping_a_running_job(rig):
    run = rig.submit("echo begun; sleep 60")
    execution, thread = in_thread(rig, run)
    eventually(lambda: rig.again(run).status == "running")
    rig.store.runs.request_stop(run)
    execution.stop()
    thread.join(10)
    assert (rig.again(run).status, rig.message(run)) == ("stopped", "Job was stopped.")
    assert rig.log(run) == b"begun\n"
    assert not rig.engine.made


def recorded(rig, monkeypatch) -> list[str]:
    """Records the calls that end a container."""
    calls: list[str] = []
    for name in ("terminate", "wait", "kill", "stop"):
        original = getattr(rig.engine, name)

        def call(*arguments, name=name, original=original):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(rig.engine, name, call)
    return calls


def stopped(rig, cmd: str = "echo begun; sleep 60"):
    run = rig.submit(cmd)
    execution, thread = in_thread(rig, run)
    eventually(lambda: rig.again(run).status == "running")
    rig.store.runs.request_stop(run)
    execution.stop()
    thread.join(10)
    return rig.again(run)


def test_a_stop_tells_every_process_once_and_kills_nothing_that_ends(rig, monkeypatch):
    calls = recorded(rig, monkeypatch)
    run = stopped(rig)
    eventually(lambda: calls == ["terminate", "wait"])
    assert (run.status, run.exit_code) == ("stopped", 143)


def test_what_does_not_end_within_its_grace_is_killed(rig, monkeypatch):
    monkeypatch.setattr(rig.engine, "terminate", lambda container_id: True)
    monkeypatch.setattr(rig.engine, "wait", lambda container_id, timeout_s: False)
    calls = recorded(rig, monkeypatch)
    assert stopped(rig).status == "stopped"
    assert calls[:3] == ["terminate", "wait", "kill"]


def test_where_no_process_can_be_told_the_engine_stops_the_container(rig, monkeypatch):
    monkeypatch.setattr(rig.engine, "terminate", lambda container_id: False)
    calls = recorded(rig, monkeypatch)
    assert stopped(rig).status == "stopped"
    assert calls == ["terminate", "stop"]


def test_without_a_grace_nothing_is_told(rig, monkeypatch):
    rig.settings = rig.settings.model_copy(update={"grace_s": 0.0})
    calls = recorded(rig, monkeypatch)
    assert stopped(rig).status == "stopped"
    assert calls == ["stop"]


def test_an_engine_that_goes_away_during_the_grace_has_nothing_told_twice(rig, monkeypatch):
    """The grace period continues."""
    told, waits, wait = [], [], rig.engine.wait
    monkeypatch.setattr(rig.engine, "terminate", lambda container_id: told.append(container_id) or True)

    def cut(container_id: str, timeout_s: float) -> bool:
        waits.append(timeout_s)
        if len(waits) == 1:
            raise EngineUnreachable("the link was cut")
        return wait(container_id, 0)

    monkeypatch.setattr(rig.engine, "wait", cut)
    assert stopped(rig).status == "stopped"
    assert len(told) == 1
    assert len(waits) == 2
    assert waits[1] < waits[0]


def test_a_program_that_saves_at_its_time_limit_has_not_completed(rig):
    """Its own exit code is recorded."""
    rig.settings = rig.settings.model_copy(update={"time_limit_s": 0.1})
    run = rig.submit("sleep 60")
    execution, thread = in_thread(rig, run)
    eventually(lambda: rig.again(run).status == "running")
    rig.container(run).handled = 0
    rig.store.runs.request_stop(run, outcome.TIME_LIMIT)
    execution.stop()
    thread.join(10)
    assert (rig.again(run).status, rig.again(run).exit_code) == ("failed", 0)
    assert rig.store.runs.statuses(run, limit=100, offset=0)[1][-1].details["reason"] == "time-limit"


def test_stopping_before_the_container_was_made(rig):
    run = rig.built(rig.submit("echo never"))
    execution = execution_of(run, rig.context())
    rig.store.runs.request_stop(run)
    execution.stop()
    execution()
    assert rig.again(run).status == "stopped"
    assert not rig.engine.made


def test_stopping_a_build(rig):
    build = rig.store.runs.insert(
        rig.project,
        rig.user,
        NewRun(
            Kind.BUILD, "", {"build": {"image": "base", "build_steps": ["sleep 60"]}, "version": 1, "kind": "build"}
        ),
    )
    execution = execution_of(build, rig.context())
    thread = threading.Thread(target=execution)
    thread.start()
    eventually(lambda: rig.again(build).status == "running")
    rig.store.runs.request_stop(build)
    execution.stop()
    thread.join(10)
    assert (rig.again(build).status, rig.message(build)) == ("stopped", "BuildJob was stopped.")


def test_a_broken_build_fails_the_job_and_keeps_its_log(rig):
    run = rig.submit("true")
    config = {**run.config, "build": {"image": "base", "build_steps": ["exit 9"]}}
    rig.store.runs._set(run.pk, {"config": json.dumps(config)})
    run = rig.built(run)
    build = rig.store.runs.by_pk(run.build_pk)
    assert build.status == "failed"
    assert "RUN exit 9" in (rig.message(build) or "")
    assert b"RUN exit 9" in rig.log(build)
    assert "RUN exit 9\n" in (build.dockerfile or "")
    assert run.status == "failed"
    assert rig.message(run) == "Build failed"


def test_a_missing_base_image_is_replaced_by_its_fallback_and_said_so(rig):
    rig.settings = rig.settings.model_copy(update={"image_fallbacks": {"python:3.11-slim": "base"}})
    run = rig.submit("true")
    config = {**run.config, "build": {"image": "python:3.11-slim"}}
    rig.store.runs._set(run.pk, {"config": json.dumps(config)})
    run = rig.built(run)
    build = rig.store.runs.by_pk(run.build_pk)
    assert build.status == "succeeded"
    assert build.dockerfile.startswith("\nFROM python:3.11-slim\n")
    assert b"using the local base instead" in rig.log(build)
    messages = [row.message or "" for row in rig.store.runs.statuses(build, limit=50, offset=0)[1]]
    assert any("using the local base instead" in message for message in messages)


def test_a_base_image_that_can_be_had_is_pulled(rig):
    rig.engine.remote.add("far")
    run = rig.submit("true")
    config = {**run.config, "build": {"image": "far"}}
    rig.store.runs._set(run.pk, {"config": json.dumps(config)})
    assert rig.store.runs.by_pk(rig.built(run).build_pk).status == "succeeded"


def test_a_base_image_that_is_nowhere_fails_the_build_with_a_sentence(rig):
    run = rig.submit("true")
    config = {**run.config, "build": {"image": "nowhere"}}
    rig.store.runs._set(run.pk, {"config": json.dumps(config)})
    build = rig.store.runs.by_pk(rig.built(run).build_pk)
    assert build.status == "failed"
    assert "nowhere is not on this machine and could not be pulled" in (rig.message(build) or "")


def test_a_lost_container_is_engine_lost(rig):
    run = rig.submit("echo begun; sleep 60")
    _, thread = in_thread(rig, run)
    eventually(lambda: rig.again(run).status == "running")
    rig.engine.lose(rig.again(run).container_id)
    thread.join(10)
    assert rig.again(run).status == "failed"
    assert (rig.message(run) or "").startswith("engine-lost")


def test_the_engine_going_away_is_waited_out(rig, records):
    run = rig.submit("echo one; sleep 0.5; echo two")
    _, thread = in_thread(rig, run)
    eventually(lambda: rig.again(run).status == "running")
    with rig.engine.away():
        threading.Event().wait(0.2)
        assert rig.again(run).status == "running"
    thread.join(10)
    assert rig.again(run).status == "succeeded"
    assert rig.log(run) == b"one\ntwo\n"
    assert sum("does not answer" in line for line in records()) == 1


def test_cut_streams_lose_and_repeat_nothing(rig):
    run = rig.submit(";".join(f"echo {n}; sleep 0.01" for n in range(50)))
    _, thread = in_thread(rig, run)
    while thread.is_alive():
        rig.engine.cut()
        thread.join(0.03)
    assert rig.log(run) == b"".join(b"%d\n" % n for n in range(50))


def test_an_image_that_vanished_is_built_again(rig):
    first = rig.run(rig.submit("echo one"))
    rig.engine.local = {"base": "sha256:base"}
    second = rig.built(rig.submit("echo two"))
    execution_of(second, rig.context())()
    assert rig.again(second).build_pk is None
    second = rig.run(second)
    assert second.status == "succeeded"
    assert second.build_pk != first.build_pk


def test_copy_takes_the_outputs_along(rig):
    original = rig.run(rig.submit("true"))
    (rig.settings.home / str(original.outputs) / "model").write_text("weights")
    new = NewRun(Kind.JOB, original.content, original.config, original=original, cloning_strategy="copy")
    copied = rig.run(rig.store.runs.insert(rig.project, rig.user, new))
    assert (rig.settings.home / str(copied.outputs) / "model").read_text() == "weights"
    assert copied.outputs != original.outputs


def test_ttl_keeps_the_container(rig):
    specification = rig.submit("true")
    rig.store.runs._set(specification.pk, {"ttl": 60})
    run = rig.run(specification)
    assert run.status == "succeeded"
    assert list(rig.engine.made) == [run.container_id]


def test_a_bug_fails_the_run_and_says_so(rig, monkeypatch):
    run = rig.built(rig.submit("true"))
    monkeypatch.setattr(rig.engine, "create", lambda plan: 1 / 0)
    execution_of(run, rig.context())()
    assert rig.again(run).status == "failed"
    assert "polylocal could not carry on: ZeroDivisionError" in (rig.message(run) or "")


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.STOPPED])
def test_a_done_run_stays_done(rig, status):
    run = rig.built(rig.submit("true"))
    rig.store.runs.transition(run, status, "decided elsewhere")
    execution_of(rig.again(run), rig.context())()
    assert rig.history(run)[-1] == status


@pytest.mark.parametrize("cmd", ["echo said", "echo said; exit 3"])
def test_an_engine_that_gives_no_log_at_the_end_changes_no_verdict(rig, monkeypatch, cmd):
    """As the engine answers while a container is being removed."""

    def refuse(*arguments, **more):
        raise EngineError("can not get logs from container which is dead or marked for removal")

    monkeypatch.setattr(rig.engine, "logs", refuse)
    run = rig.run(rig.submit(cmd))
    assert (run.status, run.exit_code) == (("failed", 3) if "exit" in cmd else ("succeeded", 0))
    said, marked = rig.log(run).splitlines()
    assert (said, marked[:11]) == (b"said", b"polylocal: ")  # nobody knows whether that was all
    assert not rig.engine.made


def env_of(rig, run) -> dict[str, str]:
    """The environment of a run's container."""
    build = rig.store.runs.by_pk(rig.built(run).build_pk)
    rig.engine.shells = {"/bin/bash"}
    container_id = provision.make_container(rig.again(run), build, rig.context())
    return dict(rig.engine.made[container_id].plan.env)


def from_code(rig, **build):
    """A job whose build section names files of the code."""
    commit = rig.upload({"Dockerfile": "FROM base\nCOPY build /code\n"})
    code = rig.store.projects.reference_code(rig.project, {"commit": commit})
    return rig._insert(Kind.JOB, {**job("true"), "build": build}, {}, code_id=code.id)


def test_variables_of_a_build_reach_runs_from_a_dockerfile_of_the_users_own(rig):
    pairs = [["K", "it's 5$"], ["N", 1], ["L", "$K${MISSING:-!}"], ["POLYAXON_API", "no"]]
    env = env_of(rig, from_code(rig, dockerfile="Dockerfile", env_vars=pairs))
    assert (env["K"], env["N"], env["L"], env["POLYAXON_API"]) == ("it's 5$", "1", "it's 5$!", "http://api:1")


def test_variables_of_a_build_reach_runs_from_a_dockerfile_that_sets_them_in_another_stage(rig):
    commit = rig.upload({"Dockerfile": "FROM base AS first\nENV K v\nFROM base\nCOPY build /code\n"})
    code = rig.store.projects.reference_code(rig.project, {"commit": commit})
    build = {"dockerfile": "Dockerfile", "env_vars": [["K", "v"]]}
    assert env_of(rig, rig._insert(Kind.JOB, {**job("true"), "build": build}, {}, code_id=code.id))["K"] == "v"


def test_variables_of_a_build_are_in_its_image_where_its_dockerfile_is_rendered(rig):
    assert "K" not in env_of(rig, from_code(rig, image="base", env_vars=[["K", "it's"]]))


def test_variables_of_a_build_reach_runs_from_an_image_of_an_older_version(rig):
    """Its Dockerfile has an older form; the build is used again."""
    build = {"image": "base", "env_vars": [["K", "it's"]]}
    first = rig.built(rig.submit(build=build))
    rig.store.runs.record(rig.store.runs.by_pk(first.build_pk), dockerfile="\nFROM base\n\nENV K it's\n")
    run = rig.submit(build=build)
    assert env_of(rig, run)["K"] == "it's"
    assert rig.again(run).build_pk == first.build_pk


def test_a_stored_build_with_a_line_end_in_a_variable_fails_with_its_path(rig):
    run = rig.submit()
    config = {**run.config, "build": {"image": "base", "env_vars": [["K", "a\nRUN exit 1"]]}}
    with rig.store.runs._database.write() as db:
        db.execute("update runs set config = ? where pk = ?", (json.dumps(config), run.pk))
    done = rig.store.runs.by_pk(rig.built(rig.again(run)).build_pk)
    assert done.status == "failed"
    assert "build.env_vars.0: The value of `K` has a line end" in rig.log(done).decode()


def test_files_that_requirements_include_are_copied_before_the_steps(rig):
    files = {"requirements.txt": "-r reqs/base.txt\n", "reqs/base.txt": "-c ../c.txt\n", "c.txt": "", "other.txt": ""}
    code = rig.store.projects.reference_code(rig.project, {"commit": rig.upload(files)})
    run = rig.built(rig._insert(Kind.JOB, job("true", "base"), {}, code_id=code.id))
    text = rig.store.runs.by_pk(run.build_pk).dockerfile
    wanted = "COPY build/requirements.txt /code\nCOPY build/c.txt /code\nCOPY build/reqs/base.txt /code/reqs/\n"
    assert wanted in text
    assert "other.txt" not in text


def test_links_to_a_dockerfile_and_to_requirements_are_followed(rig, tmp_path):
    folder = tmp_path / "code"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "gpu").write_text("FROM base\nRUN echo own\nCOPY build /code\n")
    (folder / "real" / "prod.txt").write_text("-r more.txt\n")
    (folder / "more.txt").write_text("")
    (folder / "Dockerfile").symlink_to("real/gpu")
    (folder / "requirements.txt").symlink_to("real/prod.txt")
    packing.pack(folder, archive := io.BytesIO())
    archive.seek(0)
    commit = rig.repository.upload(archive, "root")
    code = rig.store.projects.reference_code(rig.project, {"commit": commit})
    for build, wanted in (
        ({"dockerfile": "Dockerfile"}, "RUN echo own"),
        ({"image": "base"}, "COPY build/more.txt /code"),
    ):
        run = rig.built(rig._insert(Kind.JOB, {**job("true"), "build": build}, {}, code_id=code.id))
        assert f"{wanted}\n" in rig.store.runs.by_pk(run.build_pk).dockerfile
