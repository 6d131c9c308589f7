"""The ABF API of an installation without the extra `packages`."""

from __future__ import annotations

import pytest
from packages_support import hide_extra

from .farm import Farm

SENTENCE = "needs libraries that are not installed: pip install 'polylocal[packages]'"


@pytest.fixture(autouse=True)
def _is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_extra(monkeypatch)


def set_kind(farm: Farm, kind: str) -> None:
    with farm.store.database.write() as db:
        db.execute("update platforms set distrib_type = ?", (kind,))


@pytest.mark.parametrize("kind", ["dnf", "mdv", "rhel"])
def test_a_build_of_rpm_packages_is_refused(kind: str, farm: Farm) -> None:
    set_kind(farm, kind)
    answer = farm.ivan.post("build_lists.json", farm.body())
    assert answer.status_code == 422
    assert f"Build for platform rosa2012: an rpm package {SENTENCE}" in answer.json()["build_list"]["message"]


@pytest.mark.parametrize("kind", ["deb", "pypi"])
def test_a_build_of_other_packages_is_accepted(kind: str, farm: Farm) -> None:
    set_kind(farm, kind)
    assert farm.ivan.post("build_lists.json", farm.body()).status_code == 200


def test_a_key_is_refused(farm: Farm) -> None:
    answer = farm.ivan.get(f"platforms/{farm.ids.rosa_platform}/key.json")
    assert answer.status_code == 422
    assert answer.json()["platform"]["message"] == f"a signature of a repository {SENTENCE}"
