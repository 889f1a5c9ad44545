"""Writing an ensemble's model package and logging it to MLflow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from carray import inference
from carray.ensemble.result import Ensemble
from carray.ensemble.sent_weights import send_best_weights
from carray.errors import TrackingError
from carray.inference.card import Card
from carray.inference.package import is_measured, write_version
from carray.inference.versions import version_note
from carray.provenance import versions
from carray.records import StudyRecord, TrialFolder
from carray.runs_folder import RunsFolder

MLFLOW_ENTRY = Path(inference.__file__).with_name("mlflow_entry.py")  # copied, never imported


def publish(runs: RunsFolder, study: StudyRecord, ensemble: Ensemble, *, track: bool) -> Ensemble:
    """Write a version of an ensemble's package under `runs`, log it; return the ensemble with both.

    A tracking server that doesn't answer costs a note, not the package.

    Raises:
        RecordError: a member's weights are gone.
    """
    results = _results(ensemble)
    package = write_version(
        runs.models,
        ensemble.name,
        study.model_copy(update={"classes": ensemble.classes}),
        [TrialFolder(member.folder) for member in ensemble.packaged],
        ensemble.packaged_combination,
        results,
    )
    runs.keep(package)
    written = replace(ensemble, package=package, name=package.name)
    if is_measured(Card.read(package / "card.json").results) and not is_measured(results):
        kept = f"{package.name} is this very model, measured on test before: it stays as it is"
        return replace(written, notes=(*written.notes, kept))
    if note := version_note(package):
        written = replace(written, notes=(*written.notes, note))
    if not track:
        return written
    try:
        written = replace(written, model_uri=_log(runs, study, written))
    except TrackingError as error:
        return replace(written, notes=(*written.notes, f"the model is not in MLflow: {error}"))
    members = [int(member.trial.rpartition("/")[2]) for member in ensemble.chosen]
    _, trouble = send_best_weights(runs, runs.study(study.name), members)
    return replace(written, notes=(*written.notes, trouble)) if trouble else written


def _results(ensemble: Ensemble) -> dict[str, Any]:
    results = ensemble.as_dict()
    names = (
        "verdict",
        "judged_on",
        "judged_images",
        "rules",
        "single",
        "kept_single",
        "test",
        "tta_rows",
        "notes",
    )
    return {name: results[name] for name in names}


def _log(runs: RunsFolder, study: StudyRecord, ensemble: Ensemble) -> str:
    from carray.tracking import log_package

    assert ensemble.package is not None
    return log_package(
        runs,
        study,
        ensemble.package,
        MLFLOW_ENTRY,
        params={
            "rule": ensemble.packaged_combination.rule,
            "members": len(ensemble.packaged),
            "temperature": ensemble.packaged_combination.average.temperature,
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
    chosen = rows[-1] if ensemble.kept_single else next(row for row in rows if row.chosen)
    values = {f"{judged}/log_loss": chosen.log_loss, f"{judged}/top1": chosen.top1}
    if ensemble.test is None:
        return values
    test = ensemble.test
    packaged = test.single if ensemble.kept_single else test.ensemble
    return values | {
        "test/log_loss": packaged.log_loss.value,
        "test/top1": packaged.top1.value,
        "test/single_log_loss": test.single.log_loss.value,
        "test/single_top1": test.single.top1.value,
        "test/log_loss_gain_low": test.log_loss_gain.low,
        "test/log_loss_gain_high": test.log_loss_gain.high,
    }
