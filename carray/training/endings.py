"""Whether a trial ends by itself, a pure function of its epochs; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from carray import metrics
from carray.config import TrialConfig
from carray.metrics import EpochRow
from carray.training.collapse import find_collapse


def ending_of(rows: Sequence[EpochRow], config: TrialConfig) -> tuple[str, str]:
    """Return why a trial with these epochs ends though some are left, "" if it doesn't, and how."""
    collapse = find_collapse(rows, config) if rows and config.stop_collapsed else None
    if collapse:
        return str(collapse), "collapsed"
    waited, patience = len(rows) - best_epoch(rows, config), config.early_stop_patience
    if not patience or waited < patience:
        return "", "complete"
    told = f"{config.best_metric} has not improved for {waited} epochs"
    return f"{told} (early_stop_patience={patience})", "complete"


def best_epoch(rows: Sequence[EpochRow], config: TrialConfig) -> int:
    """Return the 1-based best of these epochs; the last where none can be told better."""
    return metrics.best_epoch(rows, config.best_metric) or len(rows)
