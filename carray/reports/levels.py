"""Lines on accuracy by make, model, generation, body and year."""

from __future__ import annotations

from collections.abc import Sequence

from carray.predictions.levels import LevelScore
from carray.reports.table import table

LEVELS = ("right up to:<26", "of:>6", "accuracy:>28.4f", "wrong in it:>14")


def level_lines(levels: Sequence[LevelScore], otherwise: int) -> list[str]:
    """Return accuracy by make, model and so on, and the mistakes told apart."""
    rows = ((one.level, one.groups, one.accuracy, one.wrong) for one in levels)
    lines = table(LEVELS, rows)
    return [*lines, f"wrong otherwise: {otherwise}"] if otherwise else lines
