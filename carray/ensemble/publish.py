"""Writing an ensemble's model package and logging it to MLflow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from carray import inference
from carray.ensemble.result import Ensemble
from carray.errors import TrackingError
from carray.inference.package import write_package
from carray.provenance import versions
from carray.records import RunsFolder, StudyRecord, TrialFolder

MLFLOW_ENTRY = Path(inference.__file__).with_name("mlflow_entry.py")  # copied, never imported


def publish(runs: RunsFolder, study: StudyRecord, ensemble: Ensemble, *, track: bool) -> Ensemble:
    """Write the package of an ensemble under `runs`, log it, and return the ensemble with both.

    A tracking server that doesn't answer costs a note, not the package.

    Raises:
        RecordError: a member's weights are gone.
    """
    written = replace(ensemble, package=runs.models / ensemble.name)
    write_package(
        runs.models / ensemble.name,
        study.model_copy(update={"classes": ensemble.classes}),
        [TrialFolder(member.folder) for member in ensemble.chosen],
        ensemble.combination,
        _results(ensemble),
    )
    if not track:
        return written
    try:
        return replace(written, model_uri=_log(runs, study, written))
    except TrackingError as error:
        return replace(written, notes=(*written.notes, f"the model is not in MLflow: {error}"))


def _results(ensemble: Ensemble) -> dict[str, Any]:
    told = ensemble.as_dict()
    names = (
        "verdict",
        "judged_on",
        "judged_images",
        "rules",
        "single",
        "test",
        "tta_rows",
        "notes",
    )
    return {name: told[name] for name in names}


def _log(runs: RunsFolder, study: StudyRecord, ensemble: Ensemble) -> str:
    from carray.tracking import log_package

    assert ensemble.package is not None
    return log_package(
        runs,
        study,
        ensemble.package,
        MLFLOW_ENTRY,
        params={
            "rule": ensemble.rule,
            "members": len(ensemble.blend.members),
            "temperature": ensemble.blend.temperature,
            "metric": ensemble.metric,
            "views": ensemble.tta.label if ensemble.tta else "none",
        },
        values=tracked_values(ensemble),
        requirements=tuple(f"{name}=={found}" for name, found in versions().items()),
    )


def tracked_values(ensemble: Ensemble) -> dict[str, float]:
    """Return the metrics of the model's run, named after the split that they are of."""
    judged = ensemble.judged_on.partition(",")[0]
    rows = ensemble.tta_rows if ensemble.tta else ensemble.rules
    chosen = next(row for row in rows if row.chosen)
    values = {f"{judged}/log_loss": chosen.log_loss, f"{judged}/top1": chosen.top1}
    if ensemble.test is None:
        return values
    test = ensemble.test
    return values | {
        "test/log_loss": test.ensemble.log_loss.value,
        "test/top1": test.ensemble.top1.value,
        "test/single_log_loss": test.single.log_loss.value,
        "test/single_top1": test.single.top1.value,
        "test/log_loss_gain_low": test.log_loss_gain.low,
        "test/log_loss_gain_high": test.log_loss_gain.high,
    }
