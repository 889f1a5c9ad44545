"""The page on which a study's trials are compared: a shared view, kept with its experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from carray.records import StudyFolder, StudyRecord, TrialRecord
from carray.tracking.study_run import mlflow_key
from carray.tracking.tracker import drawn_params, run_of

KEY = "carray"  # of the view, in the page's address
VIEW_TAG = f"mlflow.sharedViewState.{KEY}"
SECTION = "carray-search"
WIDE = {"columns": 1, "cardHeight": 420}  # one chart a row: axes need room
MOST_AXES = 10
SCORES = ("val/log_loss", "val/calibrated_log_loss", "val/top1", "val/macro_f1")


def write_comparison(client: Any, experiment_id: str, folder: StudyFolder) -> str:
    """Keep the comparison of a study's trials with its experiment; return the page that shows it.

    The table has the search's trials, the best first, with what was drawn and `best/*`; its charts
    begin with parallel coordinates. Refits, folds and ensembles are left out.
    """
    records = [record for record in folder.records() if record.kind == "search"]
    view = json.dumps(comparison(folder.record(), records))
    client.set_experiment_tag(experiment_id, VIEW_TAG, view)
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={KEY}"


def comparison(study: StudyRecord, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return the view of a study as MLflow's screens keep one."""
    best = f"best/{study.metric}"
    costs = [f"network/{name}" for name in study.objectives[1:]]
    scores = dict.fromkeys([best, *costs, *(f"best/{name}" for name in SCORES)])
    drawn = drawn_names(records)
    return {
        "searchFilter": "tags.`carray.kind` = 'search'",
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": study.direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": [
            *(f"metrics.`{name}`" for name in scores),
            *(f"params.`{mlflow_key(name)}`" for name in drawn),
        ],
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # else sections are sorted by their names
        "compareRunSections": [
            {"uuid": SECTION, "name": "search", "display": True, "isReordered": True, **WIDE}
        ],
        "compareRunCharts": [
            _chart(
                "PARALLEL", selectedParams=varied(drawn, records), selectedMetrics=[best, *costs]
            )
            | {"showAllRuns": True},
            _chart("LINE", metricKey=study.metric, selectedMetricKeys=[study.metric]),
        ],
    }


def _chart(kind: str, **fields: Any) -> dict[str, Any]:
    given = {"type": kind, "uuid": f"{SECTION}-{kind.lower()}", "metricSectionId": SECTION}
    return {**given, "deleted": False, "isGenerated": False, **fields}


def drawn_names(records: Sequence[TrialRecord]) -> list[str]:
    """Return the names of what was drawn for any trial, the backbone first."""
    return ["backbone", *dict.fromkeys(name for record in records for name in drawn_params(record))]


def varied(names: Sequence[str], records: Sequence[TrialRecord]) -> list[str]:
    """Return those of `names` in which the trials differ, at most `MOST_AXES`; else the first."""
    runs = [run_of(record).params for record in records]
    differ = [name for name in names if len({params.get(name) for params in runs}) > 1]
    return [mlflow_key(name) for name in (differ or names)[:MOST_AXES]]
