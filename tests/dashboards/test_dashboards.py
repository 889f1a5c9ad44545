"""Every query of every dashboard asks for something that a study really exports."""

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.samplers import RandomSampler
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from carray import metrics
from carray.records import StudyFolder, StudyRecord, TrialState
from carray.search.space.loading import load_space

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
FILES = sorted(DASHBOARDS.glob("*.json"))
STUDY = "cars at dawn"
Exported = dict[str, list[Sample]]  # by metric name


def panels_of(file: Path) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(file.read_text())["panels"]
    return panels


def queries_of(file: Path) -> list[tuple[str, str]]:
    """(expression, legend) of every panel and of every variable that asks Prometheus."""
    targets = [target for panel in panels_of(file) for target in panel["targets"]]
    variables = json.loads(file.read_text())["templating"]["list"]
    asked = [v["query"]["query"] for v in variables if v["type"] == "query"]
    return [(t["expr"], t["legendFormat"]) for t in targets] + [(query, "") for query in asked]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:ray|carray)_\w+", expression))


def labels_in(expression: str, legend: str) -> set[str]:
    matchers = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression)
    asked = re.findall(r"label_values\([^,]+,\s*(\w+)\)", expression)
    by = [label.strip() for group in grouped for label in group.split(",")]
    return {*matchers, *by, *asked, *re.findall(r"\{\{(\w+)\}\}", legend)}


ALL_QUERIES = [(file.stem, *query) for file in FILES for query in queries_of(file)]


@pytest.fixture(scope="module")
def exported(ray_instance: None, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """What a node's metrics port serves while a ledger of three trials tells `StudyGauges`."""
    import ray

    run_three_trials(StudyFolder(tmp_path_factory.mktemp("runs") / "study"))
    return scrape(ray.nodes()[0])


def run_three_trials(folder: StudyFolder) -> None:
    """One trial completes, one gives a loss that is no number, one is left running."""
    from carray.search.ledger import Ledger
    from carray.search.observers.prometheus import StudyGauges
    from carray.search.sampling.storage import open_optuna_study

    study = StudyRecord(name=STUDY, trials=3)
    space = load_space("quick")
    folder.path.mkdir()
    storage, sampler = f"sqlite:///{folder.optuna_file}", RandomSampler(seed=0)
    row = dict.fromkeys(metrics.EPOCH_METRICS, 0.5) | {metrics.EPOCH_SECONDS: 60.0}
    with open_optuna_study(STUDY, [study.direction], storage, sampler) as seeded:
        ledger = Ledger(folder, study, space, seeded, observers=[StudyGauges(study)])
        for state in (TrialState.COMPLETE, TrialState.FAILED, None):
            record = ledger.ask()
            assert record is not None
            ledger.report(record.number, 1, row, {})
            if state is not None:
                ledger.end(record.number, state, "loss is nan at step=3")
                ledger.leave(record.number)


def scrape(node: dict[str, Any], patience_seconds: float = 30.0) -> Exported:
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = parse(answer.read().decode())
        except OSError:
            found = {}
        if "ray_carray_failures_total" in found:
            return found
        time.sleep(0.25)
    raise AssertionError(f"{url} never served the study's metrics")


def parse(text: str) -> Exported:
    """Return what there is of this study."""
    found: Exported = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("study") == STUDY:
                found.setdefault(sample.name, []).append(sample)
    return found


@pytest.mark.ray
@pytest.mark.parametrize(("dashboard", "expression", "legend"), ALL_QUERIES)
def test_a_query_asks_for_what_a_study_exports(
    exported: Exported, dashboard: str, expression: str, legend: str
) -> None:
    names = names_in(expression)
    assert names
    for name in names:
        assert name in exported
        for sample in exported[name]:
            assert labels_in(expression, legend) <= set(sample.labels)


@pytest.mark.ray
def test_everything_that_a_study_exports_is_on_a_dashboard(exported: Exported) -> None:
    asked = {name for _, expression, _ in ALL_QUERIES for name in names_in(expression)}
    assert set(exported) == asked


@pytest.mark.ray
def test_the_values_are_the_studys(exported: Exported) -> None:
    trials = {sample.labels["state"]: sample.value for sample in exported["ray_carray_trials"]}
    none = dict.fromkeys(("pruned", "infeasible", "collapsed"), 0)
    assert trials == {"running": 1, "complete": 1, "failed": 1, **none}
    (failure,) = exported["ray_carray_failures_total"]
    assert (failure.labels["cause"], failure.value) == ("non_finite_loss", 1)
    assert exported["ray_carray_epochs_total"][0].value == 3
    assert exported["ray_carray_images_per_second"][0].value == 0.5  # of the one still at work
    assert exported["ray_carray_data_wait_share"][0].value == 0.5
    assert exported["ray_carray_best_value"][0].value == 0.5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestTheFile:
    def test_can_be_imported_whatever_the_data_source_is_called(self, file: Path) -> None:
        dashboard = json.loads(file.read_text())
        assert dashboard["title"]
        assert dashboard["uid"]
        assert dashboard["schemaVersion"] >= 36
        assert [v["type"] for v in dashboard["templating"]["list"]] == ["datasource", "query"]
        for panel in panels_of(file):
            assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}

    def test_says_on_each_panel_what_it_shows(self, file: Path) -> None:
        panels = panels_of(file)
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["title"] and panel["description"] for panel in panels)

    def test_has_no_panels_that_overlap_or_stick_out(self, file: Path) -> None:
        cells = [
            (x, y)
            for panel in panels_of(file)
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24  # Grafana's grid


def test_prometheus_scrapes_each_target_under_a_name_of_its_own() -> None:
    jobs = yaml.safe_load((DASHBOARDS / "prometheus.yml").read_text())["scrape_configs"]
    assert len({job["job_name"] for job in jobs}) == len(jobs) == 2
    for job in jobs:
        assert {"file_sd_configs", "static_configs"} & set(job)


def test_the_readme_names_every_file() -> None:
    text = (DASHBOARDS / "README.md").read_text()
    for file in DASHBOARDS.iterdir():
        assert file.name in text
