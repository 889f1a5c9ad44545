"""What `carray ensemble --pareto` prints: ensembles by what they cost, and how each is packaged."""

from __future__ import annotations

from shlex import quote

from carray.ensemble.front import Front
from carray.reports.ensemble import wrapped
from carray.reports.hints import runs_option
from carray.reports.table import table

COLUMNS = ("members:<9", "ms:>8.1f", "MB:>8.1f", "log-loss:>26.4f", "top-1:>26.4f", "  trials:<0")


def front_lines(found: Front, folds: bool = False) -> list[str]:
    """Return the table, the quickest ensemble first, and the command that packages each."""
    rows = [
        (
            *(str(len(point.trials)), point.milliseconds, point.mb, point.log_loss, point.top1),
            "  " + " ".join(_name(trial, found) for trial in point.trials),
        )
        for point in found.points
    ]
    names = " ".join(quote(name) for name in found.studies)
    options = " --folds" * folds + f" --on {found.device}" * (found.device != "cpu")
    runs = runs_option(found.folder.parents[1])
    commands = [
        f"  carray ensemble {names} --max-latency {point.max_latency:g}ms{options}{runs}"
        for point in found.points
    ]
    lines = [
        f"{' + '.join(found.studies)} on {found.images} images of {found.split}, each judged by "
        "members that it didn't choose (95 %):",
        "",
        *table(COLUMNS, rows),
        "",
        f"ms: one image through the networks, one after the other ({found.hardware})",
        *(["--pareto shows one point: nothing slower was better"] * (len(found.points) == 1)),
    ]
    return [*(part for line in lines for part in wrapped(line)), "next, one of:", *commands]


def _name(trial: str, found: Front) -> str:
    """Return a trial's number; of several studies, its whole name."""
    return trial if len(found.studies) > 1 else trial.rpartition("/")[2]
