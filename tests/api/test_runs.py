"""Jobs and builds: creation, changes, reports, stop, clones, deletion."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from support import build, job

from polylocal.api.api_context import ApiContext
from polylocal.statuses import TRANSITIONS, Kind, Status, is_done
from polylocal.store import NewRun, Store
from polylocal.store.rows import Project, Run, User

from .conftest import Caller, Json, P, finish, put_code

JOBS = f"{P}/jobs"
CONFIG = job("python3 -u download_data.py")


# -- creation and changes -------------------------------------------------------------------------------------------


def test_numbers_count_per_kind_over_all_projects(api: Caller, project: Project, store: Store, root: User) -> None:
    store.projects.create(root, {"name": "other"})
    paths = [f"{P}/jobs", "/api/v1/root/other/jobs", f"{P}/builds", f"{P}/jobs"]
    bodies = [CONFIG, CONFIG, build(), CONFIG]
    made = [api.post(path, {"config": body}).json()["unique_name"] for path, body in zip(paths, bodies, strict=True)]
    assert made == [
        "root.quick-start.jobs.1",
        "root.other.jobs.2",
        "root.quick-start.builds.1",
        "root.quick-start.jobs.3",
    ]


def test_a_name_that_is_taken_gets_a_number(api: Caller, project: Project, store: Store, root: User) -> None:
    names = [api.post(JOBS, {"config": CONFIG, "name": "train"}).json()["name"] for _ in range(3)]
    assert names == ["train", "train-1", "train-2"]
    assert api.post(f"{P}/builds", {"config": build(), "name": "train"}).json()["name"] == "train"
    store.projects.create(root, {"name": "other"})
    assert api.post("/api/v1/root/other/jobs", {"config": CONFIG, "name": "train"}).json()["name"] == "train"


def test_renaming(api: Caller, make_job: Callable[..., Run]) -> None:
    make_job(name="one")
    make_job(name="two")
    answer = api.patch(f"{JOBS}/2", {"name": "one"})
    assert answer.status_code == 400
    assert answer.json() == {"name": ["A job with name `one` already exists in this project."]}
    assert api.patch(f"{JOBS}/2", {"name": "two"}).json()["name"] == "two"
    assert api.patch(f"{JOBS}/2", {"name": "three"}).json()["name"] == "three"
    assert api.patch(f"{JOBS}/2", {"name": None}).json()["name"] is None
    api.delete(f"{JOBS}/1")
    assert api.patch(f"{JOBS}/2", {"name": "one"}).json()["name"] == "one"


def test_merging(api: Caller, a_job: Run) -> None:
    first = {"tags": ["a"], "data_refs": {"x": "1", "y": "1"}, "run_env": {"pid": 1}}
    api.patch(f"{JOBS}/1", first)
    more = {"tags": ["b", "a"], "data_refs": {"y": "2"}, "run_env": {"host": "h"}, "description": "d", "merge": True}
    found = api.patch(f"{JOBS}/1", more).json()
    assert found["tags"] == ["a", "b"]
    assert found["data_refs"] == {"x": "1", "y": "2"}
    assert found["run_env"] == {"pid": 1, "host": "h"}
    assert found["description"] == "d"
    replaced = api.patch(f"{JOBS}/1", {"tags": ["c"], "data_refs": {"z": "3"}}).json()
    assert (replaced["tags"], replaced["data_refs"], replaced["run_env"]) == (
        ["c"],
        {"z": "3"},
        {"pid": 1, "host": "h"},
    )


def test_fields_that_a_client_may_set(api: Caller, a_job: Run) -> None:
    values = {"name": "n", "description": "d", "readme": "r", "tags": ["t"], "backend": "other", "node_scheduled": "x"}
    found = api.patch(f"{JOBS}/1", values).json()
    assert {name: found[name] for name in values} == values
    assert api.get(f"{JOBS}/1").json() == found


def test_in_what_order_runs_come(api: Caller, make_job: Callable[..., Run]) -> None:
    for _ in range(3):
        make_job()
    api.patch(f"{JOBS}/1", {"description": "changed"})
    assert [item["id"] for item in api.get(JOBS).json()["results"]] == [1, 3, 2]


def test_bookmarks(api: Caller, make_job: Callable[..., Run], store: Store, project: Project, root: User) -> None:
    make_job()
    make_job()
    store.runs.insert(project, root, NewRun(Kind.BUILD, config=build()))
    assert api.delete(f"{JOBS}/1/unbookmark").status_code == 404
    for _ in range(2):
        assert api.post(f"{JOBS}/1/bookmark").status_code == 201
    assert [item["bookmarked"] for item in api.get(f"{JOBS}?sort=created_at").json()["results"]] == [True, False]
    assert api.get(f"{P}/builds/1").json()["bookmarked"] is False
    for _ in range(2):
        assert api.delete(f"{JOBS}/1/unbookmark").status_code == 204
    assert api.get(f"{JOBS}/1").json()["bookmarked"] is False


def test_deleting(api: Caller, make_job: Callable[..., Run], store: Store) -> None:
    make_job()
    make_job()
    answer = api.delete(f"{JOBS}/1/")
    assert (answer.status_code, answer.content) == (204, b"")
    for path in ("", "/statuses", "/logs", "/outputs", "/coderef"):
        assert api.get(f"{JOBS}/1{path}").status_code == 404
    assert api.delete(f"{JOBS}/1/").status_code == 404
    assert api.post(f"{JOBS}/1/stop").status_code == 404
    listed = api.get(JOBS).json()
    assert (listed["count"], [item["id"] for item in listed["results"]]) == (1, [2])
    assert api.get(f"{P}/").json()["num_jobs"] == 1
    assert [run.id for run in store.queue.stopping()] == [1]  # the runner then stops the process


# -- stop -----------------------------------------------------------------------------------------------------------


def test_a_stop_is_a_request(api: Caller, a_job: Run, store: Store) -> None:
    woken: list[int] = []
    store.subscribe(woken.append)
    began = time.monotonic()
    answer = api.post(f"{JOBS}/1/stop/")
    assert time.monotonic() - began < 1
    assert (answer.status_code, answer.content) == (200, b"")
    assert woken == [a_job.pk]
    assert api.get(f"{JOBS}/1").json()["last_status"] == "created"
    assert [run.pk for run in store.queue.stopping()] == [a_job.pk]
    asked = store.runs.by_pk(a_job.pk).stop_requested_at
    assert api.post(f"{JOBS}/1/stop/").status_code == 200
    assert store.runs.by_pk(a_job.pk).stop_requested_at == asked


def test_stopping_a_finished_run(api: Caller, a_job: Run, store: Store) -> None:
    finish(store, a_job)
    assert api.post(f"{JOBS}/1/stop/").status_code == 200
    assert store.runs.by_pk(a_job.pk).stop_requested_at is None
    assert api.get(f"{JOBS}/1").json()["last_status"] == "succeeded"


# -- statuses -------------------------------------------------------------------------------------------------------


def path_to(source: Status) -> list[Status]:
    """The shortest path of transitions from `created`."""
    ways: dict[Status, list[Status]] = {Status.CREATED: []}
    queue = [Status.CREATED]
    for status in queue:
        for target in Status:
            if status in TRANSITIONS[target] and target not in ways:
                ways[target] = [*ways[status], target]
                queue.append(target)
    return ways[source]


@pytest.mark.parametrize("source", list(Status))
def test_every_step_of_the_matrix(source: Status, api: Caller, make_job: Callable[..., Run], store: Store) -> None:
    for number, target in enumerate(Status, start=1):
        run = make_job()
        for step in path_to(source):
            assert store.runs.transition(run, step)
        answer = api.post(f"{JOBS}/{number}/statuses/", {"status": target})
        if source in TRANSITIONS[target]:
            assert (answer.status_code, answer.json()["status"], answer.json()["job"]) == (201, target, number)
        else:
            assert (target, answer.status_code) == (target, 400)
            assert answer.json() == [f"The job is {source} and can't become {target}."]
        found = api.get(f"{JOBS}/{number}").json()
        assert found["last_status"] == (target if source in TRANSITIONS[target] else source)
        assert (found["finished_at"] is not None) is is_done(found["last_status"])


def test_a_reported_status(api: Caller, a_job: Run) -> None:
    body = {"status": "failed", "message": "m" * 256, "traceback": "t", "details": {"a": [1]}, "created_at": "2018"}
    made = api.post(f"{JOBS}/1/statuses/", body)
    assert made.status_code == 201
    expected = {"status": "failed", "message": "m" * 256, "traceback": "t", "details": {"a": [1]}, "job": 1}
    assert {name: made.json()[name] for name in expected} == expected
    assert api.get(f"{JOBS}/1/statuses/").json()["results"][-1] == made.json()
    assert api.get(f"{JOBS}/1/statuses/{made.json()['uuid']}/").json() == made.json()
    assert api.get(f"{JOBS}/1/statuses/{'0' * 32}/").status_code == 404


def test_the_status_of_another_run_is_not_found(api: Caller, make_job: Callable[..., Run]) -> None:
    make_job()
    make_job()
    uuid = api.get(f"{JOBS}/1/statuses").json()["results"][0]["uuid"]
    assert api.get(f"{JOBS}/1/statuses/{uuid}").status_code == 200
    assert api.get(f"{JOBS}/2/statuses/{uuid}").status_code == 404


def test_times_of_a_run(api: Caller, make_job: Callable[..., Run]) -> None:
    make_job()
    make_job()
    api.post(f"{JOBS}/1/statuses", {"status": "running"})
    started = api.get(f"{JOBS}/1").json()["started_at"]
    api.post(f"{JOBS}/1/statuses", {"status": "succeeded"})
    found = api.get(f"{JOBS}/1").json()
    assert (found["started_at"], found["last_status"]) == (started, "succeeded")
    assert found["created_at"] <= started <= found["finished_at"] == found["updated_at"]
    api.post(f"{JOBS}/2/statuses", {"status": "stopped"})
    found = api.get(f"{JOBS}/2").json()
    assert found["started_at"] == found["created_at"]


def test_the_end_of_a_build_moves_the_runs_that_wait_for_it(
    api: Caller, project: Project, store: Store, root: User
) -> None:
    made = store.runs.insert(project, root, NewRun(Kind.BUILD, config=build()))
    store.runs.insert(project, root, NewRun(Kind.JOB, config=job(), build_pk=made.pk))
    api.post(f"{P}/builds/1/statuses", {"status": "failed", "message": "no space"})
    found = api.get(f"{JOBS}/1").json()
    assert (found["last_status"], found["build_job"]) == ("failed", "root.quick-start.builds.1")
    last = api.get(f"{JOBS}/1/statuses").json()["results"][-1]
    assert last["message"] == "Build failed"
    assert (last["details"]["build_job"], last["details"]["reason"]) == ("root.quick-start.builds.1", "no space")


# -- clones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_a_clone(how: str, api: Caller, make_job: Callable[..., Run], store: Store) -> None:
    original = make_job(name="train", description="d", tags=["t"], priority=5)
    made = api.post(f"{JOBS}/1/{how}/")
    assert made.status_code == 201
    found = made.json()
    assert (found["id"], found["last_status"], found["is_clone"]) == (2, "created", True)
    assert (found["original"], found["cloning_strategy"]) == ("root.quick-start.jobs.1", how)
    assert (found["config"], found["priority"]) == (original.config, 5)
    assert found["name"] != "train"
    clone = store.runs.find(Kind.JOB, 2)
    assert (clone.outputs == original.outputs) is (how == "resume")
    assert found["outputs_path"] == api.get(f"{JOBS}/2").json()["outputs_path"]


def test_names_of_clones(api: Caller, a_job: Run) -> None:
    body = {"name": "again", "description": "d", "tags": "a,b", "ttl": 60, "priority": -1}
    found = api.post(f"{JOBS}/1/restart/", body).json()
    assert {name: found[name] for name in body} == {**body, "tags": ["a", "b"]}


def test_a_resume_of_a_resume_refers_to_the_original(api: Caller, a_job: Run, store: Store) -> None:
    for n in (1, 2, 3):
        api.post(f"{JOBS}/{n}/resume/")
    assert [api.get(f"{JOBS}/{n}").json()["original"] for n in (2, 3, 4)] == ["root.quick-start.jobs.1"] * 3
    assert {store.runs.find(Kind.JOB, n).outputs for n in (1, 2, 3, 4)} == {a_job.outputs}


def test_a_resume_of_a_restart_continues_the_restart(api: Caller, a_job: Run, store: Store) -> None:
    api.post(f"{JOBS}/1/restart/")
    api.post(f"{JOBS}/2/resume/")
    assert api.get(f"{JOBS}/3").json()["original"] == "root.quick-start.jobs.2"
    assert store.runs.find(Kind.JOB, 3).outputs == store.runs.find(Kind.JOB, 2).outputs != a_job.outputs


def test_a_copy_of_a_resume_has_outputs_of_its_own(api: Caller, a_job: Run, store: Store) -> None:
    api.post(f"{JOBS}/1/resume/")
    api.post(f"{JOBS}/2/copy/")
    assert api.get(f"{JOBS}/3").json()["original"] == "root.quick-start.jobs.2"
    assert store.runs.find(Kind.JOB, 3).outputs != a_job.outputs


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_a_polyaxonfile_laid_over_the_originals(how: str, api: Caller, project: Project) -> None:
    original = {**CONFIG, "build": {"image": "busybox", "build_steps": ["date"]}, "params": {"lr": 0.1}}
    over: Json = {"build": {"image": "alpine"}, "run": {"cmd": "train --lr={{ lr }}"}, "params": {"lr": 0.5}}
    api.post(JOBS, {"content": json.dumps(original)})
    bodies: list[Json] = [
        {"config": over},
        {"content": json.dumps(over)},
        {"content": repr({"version": 1, "kind": "job", **over})},
        {"content": "build: {image: alpine}\nrun: {cmd: 'train --lr={{ lr }}'}\nparams: {lr: 0.5}\n"},
        {"config": json.dumps(over), "content": None},
    ]
    for body in bodies:
        made = api.post(f"{JOBS}/1/{how}/", body)
        assert (body, made.status_code) == (body, 201)
        config = made.json()["config"]
        assert config["build"] == {"image": "alpine", "build_steps": ["date"]}
        assert config["run"] == {"cmd": "train --lr=0.5"}
        assert config["kind"] == "job"
    again = api.post(f"{JOBS}/2/{how}/", {"config": {"params": {"lr": 0.7}}}).json()
    assert again["config"]["run"] == {"cmd": "train --lr=0.7"}
    assert api.get(f"{JOBS}/1").json()["config"]["build"]["image"] == "busybox"


@pytest.mark.parametrize("how", ["restart", "resume", "copy"])
def test_a_wrong_polyaxonfile_over_the_originals(how: str, api: Caller, a_job: Run) -> None:
    for body in ({"config": {"bild": {}}}, {"content": "a: b: c"}, {"content": "{"}, {"config": {"kind": "build"}}):
        answer = api.post(f"{JOBS}/1/{how}/", body)
        assert (body, answer.status_code) == (body, 400)
        assert isinstance(answer.json(), list)
        assert all(text.startswith("Received non valid job specification config.") for text in answer.json())
    assert api.get(JOBS).json()["count"] == 1


def test_a_run_without_polyaxonfile_is_not_run_again(api: Caller, project: Project) -> None:
    api.post(JOBS, {"is_managed": False})
    answer = api.post(f"{JOBS}/1/restart")
    assert (answer.status_code, answer.json()) == (400, ["The job has no polyaxonfile to run again."])


def test_data_folders_of_a_clone_must_be_known(api: Caller, a_job: Run) -> None:
    answer = api.post(f"{JOBS}/1/restart", {"config": {"environment": {"data_refs": ["nosuch"]}}})
    assert answer.status_code == 400


def test_builds_are_not_run_again(api: Caller, project: Project) -> None:
    api.post(f"{P}/builds", {"config": build()})
    assert api.post(f"{P}/builds/1/restart").status_code == 404


# -- code -----------------------------------------------------------------------------------------------------------


def test_a_run_is_made_of_the_newest_code(api: Caller, project: Project, context: ApiContext) -> None:
    assert api.post(JOBS, {"config": CONFIG}).json()["commit"] is None
    first = put_code(context, project, {"a": "1"})
    assert api.post(JOBS, {"config": CONFIG}).json()["commit"] == first
    second = put_code(context, project, {"a": "2"})
    assert api.post(JOBS, {"config": CONFIG}).json()["commit"] == second
    assert api.post(f"{P}/builds", {"config": build()}).json()["commit"] == second
    assert {item["id"] for item in api.get(f"{JOBS}?query=commit:{first}").json()["results"]} == {2}


def test_a_run_may_name_its_commit(api: Caller, project: Project, context: ApiContext) -> None:
    first = put_code(context, project, {"a": "1"})
    second = put_code(context, project, {"a": "2"})
    for name, commit in (("commit", first), ("commit", first[:10]), ("branch", "master"), ("ref", first)):
        made = api.post(JOBS, {"config": {**CONFIG, "build": {"image": "busybox", name: commit}}})
        assert made.status_code == 201
        assert made.json()["commit"] == (second if name == "branch" else first)
    answer = api.post(JOBS, {"config": {**CONFIG, "build": {"image": "busybox", "commit": "f" * 40}}})
    assert answer.status_code == 400
    told = f"build.commit: the code of this project has no commit or branch `{'f' * 40}`."
    assert answer.json() == {"config": [told]}


@pytest.mark.parametrize("update_code", [True, "true", "1", False, None])
def test_a_clone_runs_the_same_code_unless_told_otherwise(
    update_code: object, api: Caller, project: Project, context: ApiContext
) -> None:
    first = put_code(context, project, {"a": "1"})
    api.post(JOBS, {"config": CONFIG})
    second = put_code(context, project, {"a": "2"})
    assert api.post(f"{JOBS}/1/restart").json()["commit"] == first
    wanted = second if update_code else first
    assert api.post(f"{JOBS}/1/restart", {"update_code": update_code}).json()["commit"] == wanted


def test_the_code_of_a_run(api: Caller, project: Project, context: ApiContext) -> None:
    api.post(JOBS, {"config": CONFIG})
    keys = ["id", "branch", "commit", "head", "is_dirty", "git_url", "repo", "external_repo"]
    none = api.get(f"{JOBS}/1/coderef")
    assert (none.status_code, list(none.json())) == (200, keys)
    assert none.json()["commit"] is None
    commit = put_code(context, project, {"a": "1"})
    api.post(JOBS, {"config": CONFIG})
    found = api.get(f"{JOBS}/2/coderef/").json()
    assert (found["commit"], found["head"], found["branch"]) == (commit, commit, "master")
    assert (found["is_dirty"], found["repo"], found["git_url"]) == (False, "root.quick-start", None)


def test_reported_code(api: Caller, a_job: Run) -> None:
    body = {"commit": "a" * 40, "head": "b" * 40, "branch": "work", "git_url": "https://x/y", "is_dirty": True}
    made = api.post(f"{JOBS}/1/coderef/", body)
    assert made.status_code == 201
    assert {name: made.json()[name] for name in body} == body
    assert api.get(f"{JOBS}/1/coderef/").json() == made.json()
    assert api.get(f"{JOBS}/1").json()["commit"] == "a" * 40
    assert api("POST", f"{JOBS}/1/coderef/").status_code == 201  # outside a git folder, clients send nothing


OPTIONS = ["--output=/tmp/x", "--index-output=/tmp/x", "-x", "--all"]
NO_HASHES = [*OPTIONS, "HEAD", "master", "abc", "a" * 41, "a" * 63, "g" * 40, ":/x", "HEAD~1", "a" * 40 + "\n", "\0"]


@pytest.mark.parametrize("field", ["commit", "head"])
@pytest.mark.parametrize("value", NO_HASHES)
def test_a_reported_commit_is_a_hash(field: str, value: str, api: Caller, a_job: Run) -> None:
    answer = api.post(f"{JOBS}/1/coderef/", {field: value})
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert api.get(f"{JOBS}/1/coderef/").json()["commit"] is None


@pytest.mark.parametrize(
    "report",
    [
        *({"branch": name} for name in (*OPTIONS, "a b", "a..b", "a~1", "a:b", "x.lock")),
        *({"git_url": url} for url in (*OPTIONS, "https://x/\n", "https://x/\x1b]52;", "x" * 2001)),
    ],
)
def test_a_reported_branch_and_url_are_such(report: dict[str, str], api: Caller, a_job: Run) -> None:
    answer = api.post(f"{JOBS}/1/coderef/", report)
    assert (answer.status_code, list(answer.json())) == (400, list(report))


def test_a_report_of_a_repository_with_sha256_and_of_none(api: Caller, a_job: Run) -> None:
    body = {"commit": "a" * 64, "head": "A" * 40, "branch": "HEAD", "git_url": "git@x:y.git"}
    assert api.post(f"{JOBS}/1/coderef/", body).status_code == 201
    assert api.get(f"{JOBS}/1/coderef/").json()["commit"] == "a" * 64
    assert api.post(f"{JOBS}/1/coderef/", {"commit": "", "branch": ""}).status_code == 201
    assert api.get(f"{JOBS}/1/coderef/").json()["commit"] == "a" * 64  # an empty report keeps the code


@pytest.mark.parametrize("kind", [Kind.BUILD, Kind.NOTEBOOK])
def test_the_code_to_check_out_is_a_commit_of_the_project(
    kind: Kind, api: Caller, store: Store, context: ApiContext, project: Project, root: User
) -> None:
    """Reports of other code are refused: a build or a notebook keeps a commit of the project."""
    commit = put_code(context, project, {"a": "1"})
    code = store.projects.reference_code(project, {"commit": commit})
    run = store.runs.insert(project, root, NewRun(kind, config=build(), code_id=code.id))
    path = f"{P}/{kind.plural}/{run.id}/coderef/"
    for value in ("--output=x", "a" * 40, "master"):
        assert api.post(path, {"commit": value}).status_code == 400
        assert store.runs.by_pk(run.pk).commit == commit
    assert api.post(path, {"commit": commit[:9]}).status_code == 201
    assert store.runs.by_pk(run.pk).commit == commit


@pytest.mark.parametrize("field", ["commit", "branch", "ref"])
@pytest.mark.parametrize("value", [*OPTIONS, "HEAD~1", "HEAD^", ":/((x{1,9}){1,9}){1,9}", "a..b", "master:a", "@{-1}"])
def test_revision_syntax_names_no_code_of_a_run(
    field: str, value: str, api: Caller, context: ApiContext, project: Project
) -> None:
    put_code(context, project, {"a": "1"})
    put_code(context, project, {"a": "2"})
    answer = api.post(JOBS, {"config": {**CONFIG, "build": {"image": "busybox", field: value}}})
    assert (answer.status_code, list(answer.json())) == (400, ["config"])
    assert "a hash (at least 7 of its digits), a branch, a tag, or HEAD" in answer.json()["config"][0]


# -- builds ---------------------------------------------------------------------------------------------------------


def test_how_many_use_a_build(api: Caller, project: Project, store: Store, root: User) -> None:
    made = store.runs.insert(project, root, NewRun(Kind.BUILD, config=build()))
    for _ in range(3):
        store.runs.insert(project, root, NewRun(Kind.JOB, config=job(), build_pk=made.pk))
    assert api.get(f"{P}/builds/1").json()["num_jobs"] == 3
    api.delete(f"{JOBS}/1")
    found = api.get(f"{P}/builds/1").json()
    assert (found["num_jobs"], found["num_experiments"]) == (2, 0)
    api.delete(f"{P}/builds/1")
    assert api.get(f"{JOBS}/2").json()["build_job"] is None


def test_a_builder_may_report_its_dockerfile(api: Caller, project: Project) -> None:
    api.post(f"{P}/builds", {"config": build()})
    assert api.get(f"{P}/builds/1").json()["dockerfile"] is None
    text = "\nFROM busybox\n\nRUN date\n"
    assert api.patch(f"{P}/builds/1", {"dockerfile": text, "node_scheduled": "box"}).json()["dockerfile"] == text
    found = api.get(f"{P}/builds/1").json()
    assert (found["dockerfile"], found["node_scheduled"]) == (text, "box")


def test_every_post_makes_a_build(api: Caller, project: Project) -> None:
    made = [api.post(f"{P}/builds", {"config": build()}).json()["id"] for _ in range(2)]
    assert made == [1, 2]


def test_a_job_may_name_its_build(api: Caller, project: Project, store: Store) -> None:
    api.post(f"{P}/builds", {"config": build(), "name": "base"})
    bodies: list[Json] = [{"config": CONFIG, "build_job": 1}]
    bodies += [{"config": {**CONFIG, "build": {"ref": ref}}} for ref in (1, "1", "base")]
    for body in bodies:
        made = api.post(JOBS, body)
        assert (body, made.status_code) == (body, 201)
        assert made.json()["build_job"] == "root.quick-start.builds.1"
    answer = api.post(JOBS, {"config": CONFIG, "build_job": 9})
    assert (answer.status_code, answer.json()) == (400, ["There is no build `9` in this project."])
    finish(store, store.runs.find(Kind.BUILD, 1), Status.FAILED)
    assert api.post(JOBS, {"config": CONFIG, "build_job": 1}).status_code == 400


def test_a_build_of_another_project_is_not_named(api: Caller, project: Project, store: Store, ann: User) -> None:
    theirs = store.projects.create(ann, {"name": "theirs", "is_public": False})
    store.runs.insert(theirs, ann, NewRun(Kind.BUILD, config=build()))
    assert api.post(JOBS, {"config": CONFIG, "build_job": 1}).status_code == 400


def test_builds_that_are_not_to_be_used_again(api: Caller, project: Project, store: Store) -> None:
    for _ in range(3):
        api.post(f"{P}/builds", {"config": build()})
    assert api.post(f"{P}/builds/2/invalidate/").status_code == 200
    assert [store.runs.find(Kind.BUILD, n).is_valid for n in (1, 2, 3)] == [True, False, True]
    assert api.post(f"{P}/builds/invalidate/").status_code == 200
    assert [store.runs.find(Kind.BUILD, n).is_valid for n in (1, 2, 3)] == [False, False, False]


def test_the_name_of_a_run_in_the_engine(api: Caller, a_job: Run, store: Store) -> None:
    assert api.get(f"{JOBS}/1").json()["pod_id"] is None
    store.runs.record(a_job, container_id="c" * 64)
    assert api.get(f"{JOBS}/1").json()["pod_id"] == f"plx-job-{a_job.uuid}"
    assert api.get(JOBS).json()["results"][0]["pod_id"] == f"plx-job-{a_job.uuid}"


def test_how_a_run_ended(api: Caller, a_job: Run, store: Store) -> None:
    store.runs.transition(a_job, Status.FAILED, "exit code 3", recorded={"exit_code": 3})
    found = api.get(f"{JOBS}/1").json()
    assert (found["exit_code"], found["last_status"], found["restarts"]) == (3, "failed", 0)
