"""TensorBoard in a real browser, through the daemon: curves of event files that runs wrote."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from support import BUSYBOX

from ui.site import IMAGE, TIMEOUT_MS, Site, Visitor

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

STEPS = 20
TRAIN = f"""
import os, sys
from tensorboard.summary import Writer

writer = Writer(os.environ["POLYAXON_RUN_OUTPUTS_PATH"])
for step in range({STEPS}):
    writer.add_scalar("loss", float(sys.argv[1]) / (step + 1), step)
writer.close()
"""
# lines with exactly one point per measurement; all other lines of a chart have other numbers of points
ARE_DRAWN = """([wanted, points]) => {
  const lines = [...document.querySelectorAll("scalar-card line-chart path")].map(path => path.getAttribute("d"));
  return lines.filter(line => line.split("L").length === points).length === wanted
}"""
TENSORBOARD = {"kind": "tensorboard", "build": IMAGE}


def train(rate: str) -> dict:
    return {"version": 1, "build": IMAGE, "run": {"cmd": f"python3 train.py {rate}"}}


@pytest.fixture(scope="module")
def scopes(site: Site) -> dict[str, tuple[str, list[str]]]:
    """Scope of the tensorboard → its page and the expected curves. All of them run."""
    project = site.project("curves", {"train.py": TRAIN})
    experiment = site.call("POST", f"{project}/experiments/", json={"config": {"kind": "experiment", **train("0.5")}})
    search = {"kind": "group", "hptuning": {"matrix": {"rate": {"values": [0.1, 0.2]}}, "concurrency": 2}}
    group = site.call("POST", f"{project}/groups/", json={"content": {**search, **train("{{ rate }}")}})
    alone, together = f"experiments/{experiment.json()['id']}", f"groups/{group.json()['id']}"
    for run in (alone, together):
        site.wait_for_status(f"{project}/{run}", "succeeded")
    listed = site.call("GET", f"{project}/experiments/", params={"query": f"group:{together.partition('/')[2]}"})
    members = sorted(str(found["id"]) for found in listed.json()["results"])
    found = {
        "project": (project, [alone, *(f"{together}/{member}" for member in members)]),
        "experiment": (f"{project}/{alone}", ["."]),
        "group": (f"{project}/{together}", members),
    }
    for path, _ in found.values():
        site.launch(f"{path}/tensorboard", TENSORBOARD)
    return found


@pytest.mark.parametrize("scope", ["project", "experiment", "group"])
def test_curves_are_shown(site: Site, scopes: dict, scope: str, visitor: Visitor) -> None:
    """The page is opened at once, and waits for the program automatically."""
    path, runs = scopes[scope]
    page = visitor()
    page.goto(f"{site.url}/tensorboard/{path}/?token={site.token}")
    card = page.locator("scalar-card")
    expect(card).to_contain_text("loss", timeout=TIMEOUT_MS)
    for run in runs:
        expect(page.locator("runs-data-table").get_by_text(run, exact=True).first).to_be_visible()
    page.wait_for_function(ARE_DRAWN, arg=[2 * len(runs), STEPS])  # the measured and the smoothed curve


def test_readers_of_the_project_see_its_tensorboard(site: Site, scopes: dict, visitor: Visitor) -> None:
    path, _ = scopes["project"]
    page, token = visitor(), site.add_user("reader")
    page.goto(f"{site.url}/tensorboard/{path}/")
    page.get_by_placeholder("token").fill(token)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("scalar-card")).to_contain_text("loss", timeout=TIMEOUT_MS)
    site.call("PATCH", f"{path}/", json={"is_public": False})
    assert page.reload().status in (403, 404)
    expect(page.get_by_role("heading", name="Not")).to_be_visible()


def test_an_image_without_tensorboard(site: Site) -> None:
    project = site.project("no-curves")
    run = site.launch(f"{project}/tensorboard", {"kind": "tensorboard", "build": {"image": BUSYBOX}})
    site.wait_for_status(run, "failed")
    missing = "the image has no tensorboard: install it with a build step, `pip install tensorboard`"
    assert missing in site.history(run)[-1][1]
