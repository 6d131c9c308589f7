"""Non-finite numbers: the other values are stored, and strict parsers can read every response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polylocal.statuses import Kind, Status
from polylocal.store import Store
from polylocal.store.rows import Project, Run

from .conftest import GROUP, Caller, Json, P, finish

pytestmark = pytest.mark.usefixtures("project")

E = f"{P}/experiments"
LAST = "last_metric_not_finite"


def strict(text: str) -> Any:
    """Parse like strict JSON parsers, which refuse NaN."""

    def refuse(word: str) -> object:
        raise AssertionError(f"{word} is no JSON: {text}")

    return json.loads(text, parse_constant=refuse)


def send(api: Caller, path: str, text: str, method: str = "POST") -> Any:
    return api(method, path, content=text.encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def tracked(api: Caller) -> str:
    api.post(f"{E}/", {})
    return f"{E}/1"


def entries(api: Caller, experiment: str) -> list[Json]:
    found: list[Json] = strict(api.get(f"{experiment}/metrics/").text)["results"]
    return found


def test_the_finite_values_of_a_batch_are_kept(api: Caller, tracked: str) -> None:
    answer = send(api, f"{tracked}/metrics/", '[{"values":{"loss":0.5}},{"values":{"loss":NaN,"acc":0.2}}]')
    assert answer.status_code == 201
    first, second = entries(api, tracked)
    assert (first["values"], "not_finite" in first) == ({"loss": 0.5}, False)
    assert (second["values"], second["not_finite"]) == ({"loss": None, "acc": 0.2}, {"loss": "nan"})
    for path in (f"{tracked}/", f"{E}/", f"{E}/?metrics=true", "/api/v1/experiments/"):
        found = strict(api.get(path).text)
        item = found["results"][0] if "results" in found else found
        assert (item["last_metric"], item[LAST]) == ({"loss": None, "acc": 0.2}, {"loss": "nan"})


@pytest.mark.parametrize(
    ("written", "word"),
    [
        *((text, "nan") for text in ("NaN", "null", '"NaN"', '"nan"', '" NaN "')),
        *((text, "inf") for text in ("Infinity", "1e999", '"inf"', '"Infinity"', '"+inf"', "1" * 400, "1" * 5000)),
        *((text, "-inf") for text in ("-Infinity", "-1e999", '"-inf"', '"-Infinity"', '"-1e999"', "-" + "1" * 400)),
    ],
)
def test_texts_of_clients_for_non_finite_numbers(written: str, word: str, api: Caller, tracked: str) -> None:
    made = send(api, f"{tracked}/metrics/", f'{{"values": {{"loss": {written}, "acc": 0.2}}}}')
    assert made.status_code == 201
    assert strict(made.text)["values"] == {"loss": None, "acc": 0.2}
    assert entries(api, tracked)[0]["not_finite"] == {"loss": word}
    assert strict(api.get(f"{tracked}/").text)[LAST] == {"loss": word}


def test_a_form_may_hold_the_values_as_text(api: Caller, tracked: str) -> None:
    made = api("POST", f"{tracked}/metrics/", data={"values": '{"loss": NaN, "acc": 0.2}'})
    assert (made.status_code, made.json()["values"]) == (201, {"loss": None, "acc": 0.2})


@pytest.mark.parametrize("written", ['"x"', "[]", "{}", '"nano"', '"in f"'])
def test_values_that_are_not_numbers_are_refused(written: str, api: Caller, tracked: str) -> None:
    assert send(api, f"{tracked}/metrics/", f'{{"values": {{"loss": {written}}}}}').status_code == 400
    assert entries(api, tracked) == []


def test_the_last_value_is_the_one_reported_last(api: Caller, tracked: str) -> None:
    send(api, f"{tracked}/metrics/", '{"values": {"loss": 0.5}}')
    send(api, f"{tracked}/metrics/", '{"values": {"loss": NaN}}')
    assert api.get(f"{tracked}/").json()["last_metric"] == {"loss": None}
    send(api, f"{tracked}/metrics/", '{"values": {"loss": 0.25}}')
    found = api.get(f"{tracked}/").json()
    assert (found["last_metric"], LAST in found) == ({"loss": 0.25}, False)


def test_filters_and_sorting(api: Caller) -> None:
    for value in ("0.5", "NaN", "0.25", "Infinity", "-Infinity"):
        number = api.post(f"{E}/", {}).json()["id"]
        send(api, f"{E}/{number}/metrics/", f'{{"values": {{"loss": {value}}}}}')

    def ids(**params: str) -> list[int]:
        found = api.get(f"{E}/", params=params).json()
        assert found["count"] == len(found["results"])
        return [item["id"] for item in found["results"]]

    assert ids(query="metric.loss:<9", sort="created_at") == [1, 3]
    assert ids(query="metric.loss:>-9", sort="created_at") == [1, 3]
    assert ids(sort="metric.loss,created_at") == [3, 1, 2, 4, 5]
    assert ids(sort="-metric.loss,created_at") == [1, 3, 2, 4, 5]


# -- groups -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def search(api: Caller, store: Store, project: Project) -> Run:
    """A group with four experiments whose losses are 0.5, nan, 0.25 and -inf."""
    api.post(f"{P}/groups/", {"content": GROUP})
    group = store.runs.get(project, Kind.GROUP, 1)
    for value in ("0.5", "NaN", "0.25", "-Infinity"):
        body = {"experiment_group": 1, "params": {"lr": 0.1}}
        number = api.post(f"{E}/", body).json()["id"]
        send(api, f"{E}/{number}/metrics/", f'{{"values": {{"loss": {value}, "acc": 1}}}}')
        finish(store, store.runs.get(project, Kind.EXPERIMENT, number), Status.SUCCEEDED)
    return group


def test_it_is_never_the_best(api: Caller, search: Run) -> None:
    for way, first in (("minimize", 3), ("maximize", 1)):
        answer = api.get(f"{P}/groups/1/results/", params={"metric": "loss", "optimization": way})
        table = strict(answer.text)
        assert table["best_experiment"]["id"] == first
        assert {row["id"] for row in table["results"][2:]} == {2, 4}
    by_id = {row["id"]: row for row in table["results"]}
    assert (by_id[2]["metrics"], by_id[2]["not_finite"]) == ({"loss": None, "acc": 1}, {"loss": "nan"})
    assert "not_finite" not in by_id[1]


def test_a_csv_contains_the_words(api: Caller, search: Run) -> None:
    lines = api.get(f"{P}/groups/1/results/?format=csv&metric=loss").text.splitlines()
    place = lines[0].split(",").index("metric.loss")
    assert {line.split(",")[place] for line in lines[1:]} == {"0.5", "nan", "0.25", "-inf"}


def test_no_value_for_early_stopping(store: Store, search: Run) -> None:
    assert store.groups.has_reached(search, "loss", 0.3, maximize=False)
    assert not store.groups.has_reached(search, "loss", 0.1, maximize=False)
    assert not store.groups.has_reached(search, "loss", 0.6, maximize=True)
    assert sorted(store.metrics.series(search, "loss").values()) == [[0.25], [0.5]]


# -- params and other objects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["params", "declarations"])
@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999", "-" + "1" * 5000])
def test_params_beside_it_are_kept(word: str, written: str, api: Caller, tracked: str) -> None:
    answer = send(api, f"{tracked}/", f'{{"{word}": {{"lr": 0.1, "bad": {written}, "deep": [{written}]}}}}', "PATCH")
    assert answer.status_code == 200
    wanted = {"lr": 0.1, "bad": None, "deep": [None]}
    assert strict(answer.text)["params"] == wanted
    assert strict(api.get(f"{E}/?params=true").text)["results"][0]["params"] == wanted
    assert api.get(f"{E}/?query=params.lr:0.1").json()["count"] == 1


def test_params_of_a_new_experiment(api: Caller) -> None:
    assert strict(send(api, f"{E}/", '{"params": {"lr": NaN, "bs": 8}}').text)["params"] == {"lr": None, "bs": 8}


@pytest.mark.parametrize("field", ["run_env", "data_refs"])
@pytest.mark.parametrize("value", ['{"a": NaN, "b": 1}', '{"a": 1e999, "b": 1}'])
def test_other_objects_keep_what_is_good(field: str, value: str, api: Caller, tracked: str) -> None:
    assert strict(send(api, f"{tracked}/", f'{{"{field}": {value}}}', "PATCH").text)[field] == {"a": None, "b": 1}
    made = api("POST", f"{P}/jobs/", data={"is_managed": "false", field: value})
    assert strict(made.text)[field] == {"a": None, "b": 1}


def test_details_of_a_status_searches_and_charts(api: Caller, tracked: str) -> None:
    body = '{"status": "running", "details": {"a": [NaN, 1.5]}}'
    assert strict(send(api, f"{tracked}/statuses/", body).text)["details"] == {"a": [None, 1.5]}
    found = send(api, "/api/v1/searches/root/quick-start/jobs/", '{"query": {"a": Infinity}, "meta": {"b": NaN}}')
    assert (strict(found.text)["query"], strict(found.text)["meta"]) == ({"a": None}, {"b": None})
    charts = send(api, f"{tracked}/chartviews/", '{"charts": [{"y": [NaN, 1]}]}')
    assert strict(charts.text)["charts"] == [{"y": [None, 1]}]


@pytest.mark.parametrize("field", ["content", "config"])
def test_a_polyaxonfile_with_it_is_refused_with_a_sentence(field: str, api: Caller) -> None:
    text = '{"version": 1, "kind": "experiment", "build": {"image": "a"}, "run": {"cmd": "x"}, "params": {"lr": NaN}}'
    answer = send(api, f"{E}/", f'{{"{field}": {text}}}')
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert "`nan` is not a number that can be stored" in answer.json()[field][0]


@pytest.mark.parametrize(("field", "value"), [("ttl", "NaN"), ("priority", "Infinity"), ("build_job", "1e999")])
def test_a_whole_number_that_is_not_finite_is_refused(field: str, value: str, api: Caller) -> None:
    answer = send(api, f"{P}/jobs/", f'{{"is_managed": false, "{field}": {value}}}')
    assert (answer.status_code, list(answer.json())) == (400, [field])


def test_a_budget_that_is_not_finite_is_refused(api: Caller) -> None:
    for value in ("NaN", "Infinity"):
        assert list(send(api, "/polylocal/v1/gc", f'{{"budget_gib": {value}}}').json()) == ["budget_gib"]
