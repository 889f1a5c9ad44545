"""What networks cost beside what they are worth: `bench STUDY` and `ensemble --pareto`."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Any

from carray import metrics
from carray.ensemble.front import Front
from carray.errors import counted
from carray.predictions.network_costs import Device, NetworkCosts, front_rows, network_of
from carray.records import StudyFolder
from carray.reports.hints import runs_option
from carray.reports.table import cells_of, line_width, table, wrapped

COLUMNS = (
    *("network:<38", "px:>5", "ms:>8.1f", "MB:>8.1f", "G multiply-adds:>16.3f"),
    *("trials:>7", "best:>9.4f"),
)
FRONT_COLUMNS = (
    "members:<9",
    "ms:>8.1f",
    "MB:>8.1f",
    "log-loss:>26.4f",
    "top-1:>26.4f",
    "  trials:<0",
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


def study_front_lines(folder: StudyFolder) -> list[str]:
    """Return the front of a study of several objectives as a table; nothing where it has one."""
    rows = front_rows(folder)
    if not rows:
        return []
    objectives = folder.record().objectives
    heads = {**metrics.SHORT_NAMES, "latency": "ms", "size": "MB"}
    columns = ["trial:<6", "state:<12", "backbone:<38"]
    columns += [f"{heads[objectives[0]]}:>20.4f", *(f"{heads[n]}:>10.1f" for n in objectives[1:])]
    cells = [
        (
            *(row["trial"].rpartition("/")[2], row["state"], row["backbone"]),
            *(row[name] for name in objectives),
        )
        for row in rows
    ]
    trials = counted(len(rows), "trial")
    head = f"the front: {trials} that no other beats in {' and '.join(objectives)}"
    return [head, *table(columns, cells)]


def _name(network: dict[str, Any]) -> str:
    parts = {**network["head"], **network["scratch"]}
    return " ".join([network["backbone"], *(f"{name}={value}" for name, value in parts.items())])


def front_lines(found: Front, folds: bool = False) -> list[str]:
    """Return the table, the quickest ensemble first, and the command that packages each."""
    rows = [
        (
            *(str(len(point.trials)), point.milliseconds, point.mb, point.log_loss, point.top1),
            "  " + " ".join(_trial_name(trial, found) for trial in point.trials),
        )
        for point in found.points
    ]
    names = " ".join(quote(name) for name in found.studies)
    options = " --with-folds" * folds + f" --on {found.device}" * (found.device != "cpu")
    runs = runs_option(found.folder.parents[1])
    commands = [
        f"  carray ensemble {names} --max-latency {point.max_latency:g}ms{options}{runs}"
        for point in found.points
    ]
    lines = [
        f"{' + '.join(found.studies)} on {counted(found.images, 'image')} of {found.split}, each "
        "judged by members that it didn't choose (95 %):",
        "",
        *_front_table(rows),
        "",
        f"ms: one image through the networks, one after the other ({found.hardware})",
        *(["--pareto shows one point: nothing slower was better"] * (len(found.points) == 1)),
    ]
    return [*(part for line in lines for part in wrapped(line)), "next, one of:", *commands]


def _front_table(rows: Sequence[tuple[object, ...]]) -> list[str]:
    """Return a line a point; its trials are on a line of their own where they don't fit."""
    lines = table(FRONT_COLUMNS, rows)
    if max(map(cells_of, lines)) <= line_width() and not any("…" in line for line in lines):
        return lines
    figures = table(FRONT_COLUMNS[:-1], [row[:-1] for row in rows], spare=("MB",))
    place = len(figures) - len(rows)
    below = (f"    {str(row[-1]).strip()}" for row in rows)
    pairs = zip(figures[place:], below, strict=True)
    return [*figures[:place], *(line for pair in pairs for line in pair)]


def _trial_name(trial: str, found: Front) -> str:
    """Return a trial's number; of several studies, its whole name."""
    return trial if len(found.studies) > 1 else trial.rpartition("/")[2]
