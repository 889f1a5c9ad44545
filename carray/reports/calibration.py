"""What `carray calibrate` prints: what sets cover, and how unknown images are told."""

from __future__ import annotations

from carray.analysis.calibrate import CalibratedModel
from carray.errors import counted
from carray.predictions.conformal import Coverage
from carray.reports.hints import shown_model, shown_path
from carray.reports.table import interval_text, table

SETS = (
    *("sets:<8", "wanted:>8.2f", "held the right class (95 %):>28.3f"),
    *("classes:>9.2f", "one class:>11.2f"),
)


def reliability_lines(found: CalibratedModel) -> list[str]:
    """Return the sets' coverage, the false alarms, and what was written."""
    rows = [_row(each, each.method.upper()) for each in found.sets]
    if found.test:
        rows.append(_row(found.test, f"{found.test.method.upper()} test"))
    alarms = interval_text(found.false_alarms, ".3f")
    lines = [
        f"{found.model} on {found.images} {found.split} photographs, each judged by a threshold of "
        "the others:",
        *table(SETS, rows),
        "",
        f"sets are made by {found.chosen.upper()}, whose are the smallest",
        f"probabilities are at temperature {found.temperature:.2f}, in whatever it is exported to",
        f"called unknown by mistake: {alarms}, {found.false_alarm_rate:g} allowed",
    ]
    if far := found.unknown:
        lines.append(
            f"of {counted(far.unknown, 'unknown image')} {far.caught:.2f} are called so; AUROC "
            f"{interval_text(far.auroc, '.3f')}"
        )
    lines += [f"note: {note}" for note in found.notes]
    return [
        *lines,
        "",
        f"written: {shown_path(found.file)}",
        f"next: carray serve {shown_model(found.file.parent)}",
    ]


def _row(found: Coverage, name: str) -> tuple[object, ...]:
    return name, found.wanted, found.found, found.mean_size, found.single
