"""Variables of a run in its container, beside its build and its secrets."""

from __future__ import annotations

from polylocal.engine.plan import ContainerPlan
from polylocal.files.secrets import SecretStore
from polylocal.statuses import Kind

from .conftest import Rig, Supervise, plan_of


def test_a_second_run_with_another_value_uses_the_same_image(rig: Rig, plans: list[ContainerPlan]) -> None:
    runs = [rig.run(rig.submit(environment={"env_vars": {"MODE": mode}})) for mode in ("fast", "exact")]
    assert [plan_of(plans, run).env["MODE"] for run in runs] == ["fast", "exact"]
    assert runs[0].build_pk == runs[1].build_pk
    build = rig.store.runs.by_pk(runs[0].build_pk or 0)
    assert "MODE" not in (build.dockerfile or "")


def test_each_experiment_of_a_group_has_its_own_variables(
    rig: Rig, supervise: Supervise, plans: list[ContainerPlan]
) -> None:
    group = rig.group({"matrix": {"lr": {"values": [0.1, 0.2]}}}, environment={"env_vars": [["LR", "{{ lr }}"]]})
    supervise(lambda: rig.again(group).status == "succeeded")
    assert sorted(plan.env["LR"] for plan in plans) == ["0.1", "0.2"]


def test_a_secret_that_has_come_to_set_the_same_variable_fails_the_run(rig: Rig, plans: list[ContainerPlan]) -> None:
    secret_store = SecretStore(rig.settings.folders.secrets)
    secret_store.write("root", "aws", {"ID": "1"})
    run = rig.built(rig.submit(environment={"env_vars": {"KEY": "1"}, "secret_refs": ["aws"]}))
    rig.store.runs._set(run.pk, {"secrets_user_id": rig.user.id})
    secret_store.write("root", "aws", {"ID": "1", "KEY": "2"})
    done = rig.run(run)
    assert (done.status, plans) == ("failed", [])
    assert (
        rig.message(done)
        == "Could not start: environment.env_vars.KEY: a secret of the run sets this variable as well."
    )


def test_a_server_has_them(rig: Rig, supervise: Supervise, plans: list[ContainerPlan]) -> None:
    rig.server(Kind.NOTEBOOK, environment={"env_vars": {"LINES": "a\nb", "PATH": "/x"}})
    supervise(lambda: plans)
    assert (plans[-1].env["LINES"], plans[-1].env["PATH"]) == ("a\nb", "/x")
