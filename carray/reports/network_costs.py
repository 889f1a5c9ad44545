"""What `carray bench STUDY` prints: what each network of a study costs beside its best trial."""

from __future__ import annotations

from shlex import quote
from typing import Any

from carray import metrics
from carray.predictions.network_costs import Device, NetworkCosts, network_of
from carray.records import StudyFolder
from carray.reports.hints import runs_option
from carray.reports.table import table

COLUMNS = (
    *("network:<38.37", "px:>5", "ms:>8.1f", "MB:>8.1f", "G multiply-adds:>16.3f"),
    *("trials:>7", "best:>9.4f"),
)


def study_costs_json(folder: StudyFolder, on: Device) -> list[dict[str, Any]]:
    """Return a row a network: its figures, how many trials have it, and the best of them."""
    study, costs = folder.record(), NetworkCosts.of(folder)
    records = [record for record in folder.records() if record.epochs]
    rows = []
    for cost in (one for one in costs.networks if one.device == on):
        own = [each for each in records if network_of(each.config) == cost.network]
        judged = [each for each in own if each.config.fold is None]
        best = study.objective.best(judged)
        value = None if best is None else best.best(study.metric)
        rows.append({**cost.model_dump(), "trials": len(own), "best": value})
    return sorted(rows, key=lambda row: row["milliseconds"])


def study_costs_lines(folder: StudyFolder, on: Device) -> list[str]:
    """Return the table, the quickest network first, and the next commands."""
    rows = study_costs_json(folder, on)
    cells = [
        (
            *(_name(row["network"]), row["network"]["image_size"], row["milliseconds"]),
            *(row["mb"], row["multiply_adds"] / 1e9, row["trials"], row["best"]),
        )
        for row in rows
    ]
    study, runs = folder.record(), runs_option(folder.path.parents[1])
    name, where = quote(study.name), f" --on {on}" * (on != "cpu")
    hardware = "; ".join(dict.fromkeys(row["hardware"] for row in rows))
    return [
        f"networks of study {study.name}, one image at a time ({hardware}); best: "
        f"{metrics.SHORT_NAMES[study.metric]} on val",
        "",
        *table(COLUMNS, cells),
        "",
        "next:",
        f"  carray leaderboard {name}{runs}",
        f"  carray ensemble {name} --pareto{where}{runs}",
    ]


def _name(network: dict[str, Any]) -> str:
    parts = {**network["head"], **network["scratch"]}
    return " ".join([network["backbone"], *(f"{name}={value}" for name, value in parts.items())])
