"""The disk budget: logits stay for ever, weights of the best trials stay while there is room."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from carray.records import RunsFolder, StudyRecord, TrialFolder, TrialRecord

GIB = 2**30


def enforce_budget(runs: RunsFolder, budget_gib: float, keep_best: int) -> list[TrialRecord]:
    """Delete weights until all studies' together are within the budget; return whose went.

    Every study's `keep_best` complete trials come last, and running trials are never touched. An
    ensemble's members are safe whatever happens: their model package holds copies.
    """
    total = sum(file.stat().st_size for file in _weights_files(runs))
    if total <= budget_gib * GIB:
        return []  # the usual end, after each trial: no record is read for it
    rows = _kept_weights(runs)
    gone = []
    for rank, record, folder in sorted(rows, key=lambda row: row[0], reverse=True):
        if total <= budget_gib * GIB or rank < keep_best:
            break
        total -= folder.weights_file.stat().st_size
        folder.weights_file.unlink()
        gone.append(record)
    return gone


def _weights_files(runs: RunsFolder) -> Iterator[Path]:
    anywhere = TrialFolder(Path("studies/*/trials/*"))
    return runs.path.glob(str(anywhere.weights_file))


def _kept_weights(runs: RunsFolder) -> list[tuple[float, TrialRecord, TrialFolder]]:
    """Return (rank within its study, record, folder) of every ended trial that has weights."""
    rows = []
    for study in runs.studies():
        ended = [
            (folder, record)
            for folder, record in study.trials()
            if record.state.is_finished() and folder.weights_file.exists()
        ]
        asked = study.record()
        ended.sort(key=lambda pair: _goodness(asked, pair[1]))
        rows += [(float(rank), record, folder) for rank, (folder, record) in enumerate(ended)]
    return rows


def _goodness(study: StudyRecord, record: TrialRecord) -> tuple[bool, float]:
    """Order complete trials before all others, then by the study's metric."""
    value = record.best(study.metric)
    sign = 1.0 if study.direction == "minimize" else -1.0
    return record.state != "complete", sign * value if math.isfinite(value) else math.inf
