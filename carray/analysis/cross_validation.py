"""Cross-validation of one configuration: out-of-fold logits, and ensembles of the folds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carray import metrics
from carray.data.manifest import Manifest
from carray.ensemble.build import checked_package_name
from carray.ensemble.selection import LogitMean, Rule, SoftVote
from carray.errors import CarrayError, RecordError
from carray.files import write_npz
from carray.json_file import to_jsonable
from carray.predictions.averaging import AverageOf, WeightedAverage
from carray.predictions.candidates import Candidate, read_trials
from carray.predictions.combination import Combination
from carray.predictions.labels import study_manifest
from carray.predictions.logits import SplitPredictions, log_softmax, read_logits
from carray.predictions.scores import log_losses
from carray.predictions.statistics import Interval, scores_of
from carray.predictions.test_access import record_access
from carray.records import Logits, StudyFolder, TrialState
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Labels

RULES: tuple[type[SoftVote] | type[LogitMean], ...] = (SoftVote, LogitMean)


def assemble_folds(
    study: str | None = None,
    *,
    trial: int | None = None,
    runs: str | os.PathLike[str] | None = None,
    open_test: bool = True,
    name: str | None = None,
    seed: int = 0,
) -> CrossValidation:
    """Put the folds' trials of one configuration together, and package their better ensemble.

    Args:
        study: its name; None takes the newest search.
        trial: one of the folds' trials, or the trial whose configuration they share; None takes
            the newest configuration that is complete on all folds.
        runs: the runs folder.
        open_test: look at `test`, which is recorded.
        name: the model package's; None takes `STUDY-folds`.
        seed: of the bootstrap.

    Raises:
        ConfigError: `name` can't be a folder's.
        RecordError: no such study, or no configuration is complete on every fold; the data are
            gone or have changed.
    """
    where = RunsFolder.at(runs)
    folder = where.find_study(study)
    name = checked_package_name(name, f"{folder.path.name}-folds")
    manifest = study_manifest(folder.record())
    members = _fold_set(folder, manifest, trial)
    predictions = [
        _FoldPredictions.read(candidate, manifest, fold) for fold, candidate in enumerate(members)
    ]
    file = _write(folder, predictions, manifest)
    rows, rule = _ensembles(members, manifest, ("blend",), seed)
    combination = combine_folds(rule, len(members))
    opened = 0
    if open_test and len(manifest.rows("test")):
        opened = record_access(
            where,
            model=name,
            study=folder.path.name,
            manifest_hash=manifest.hash,
            trials=[candidate.record.name for candidate in members],
            combination=combination,
        )
        rows += _ensembles(members, manifest, ("test",), seed)[0]
    return CrossValidation(
        study=folder.path.name,
        backbone=members[0].record.config.backbone,
        folds=tuple(_fold_row(fold, own) for fold, own in enumerate(predictions)),
        out_of_fold=_score(
            "out of fold",
            "train",
            np.concatenate([log_softmax(own.logits) for own in predictions]),
            np.concatenate([own.labels for own in predictions]),
            seed,
        ),
        ensembles=tuple(rows),
        rule=rule,
        logits_file=file,
        models_that_opened_test=opened,
        package=_write_package(folder, members, combination, where.models, name),
    )


@dataclass(frozen=True, eq=False)
class _FoldPredictions:
    """Predictions of one fold's trial on the images that it wasn't trained on."""

    candidate: Candidate
    rows: Labels
    labels: Labels
    logits: Logits

    @classmethod
    def read(cls, candidate: Candidate, manifest: Manifest, fold: int) -> _FoldPredictions:
        """Read the logits that the trial left on its fold.

        Raises:
            RecordError: they are broken, or of other data.
        """
        rows = manifest.fold_rows(fold)[1]
        logits = read_logits(
            candidate.folder,
            candidate.record.name,
            "val",
            len(rows),
            len(manifest.classes),
            images_of=f"fold {fold}",
        )
        return cls(candidate, rows, manifest.labels[rows], logits)


def _fold_set(folder: StudyFolder, manifest: Manifest, trial: int | None) -> list[Candidate]:
    """Return the complete trials of one configuration, one a fold, by fold."""
    sets: dict[str, dict[int, Candidate]] = {}
    asked_key = None
    for candidate in sorted(read_trials(folder), key=lambda found: found.record.number):
        key = candidate.configuration
        if candidate.record.number == trial:
            asked_key = key
        if _is_usable(candidate, manifest):
            sets.setdefault(key, {})[candidate.record.config.fold or 0] = candidate
    if trial is not None and asked_key is None:
        raise RecordError(f"study {folder.path.name!r} has no trial {trial}")
    chosen = sets.get(asked_key, {}) if asked_key else _newest(sets, manifest.num_folds)
    missing = [str(fold) for fold in range(manifest.num_folds) if fold not in chosen]
    if not chosen or missing:
        lacking = f"fold {', '.join(missing)} of {manifest.num_folds} lacks a complete trial"
        raise RecordError(
            f"no configuration of study {folder.path.name!r} is complete on every fold "
            f"({lacking if chosen else 'it has no trial on a fold'}): run `carray train DIR "
            f"--folds {manifest.num_folds or 5}` or `carray tune DIR --folds "
            f"{manifest.num_folds or 5}` again"
            + (", or let those there vote: `carray ensemble --with-folds`" if chosen else "")
        )
    return [chosen[fold] for fold in range(manifest.num_folds)]


def has_whole_folds(folder: StudyFolder) -> bool:
    """Say whether `assemble_folds` finds a configuration that is complete on every fold."""
    try:
        return bool(_fold_set(folder, study_manifest(folder.record()), None))
    except CarrayError:
        return False


def _newest(sets: dict[str, dict[int, Candidate]], num_folds: int) -> dict[int, Candidate]:
    """Return the newest set that is whole, else the one that lacks least."""

    def key(found: dict[int, Candidate]) -> tuple[int, int]:
        return len(found), max(one.record.number for one in found.values())

    return max(sets.values(), key=key, default={})


def _is_usable(candidate: Candidate, manifest: Manifest) -> bool:
    record = candidate.record
    return (
        record.config.fold is not None
        and record.state is TrialState.COMPLETE
        and record.manifest_hash in ("", manifest.hash)
        and candidate.folder.logits_file.exists()
    )


def _fold_row(fold: int, predictions: _FoldPredictions) -> FoldRow:
    record = predictions.candidate.record
    return FoldRow(
        fold=fold,
        trial=record.name,
        images=len(predictions.rows),
        best_epoch=record.best_epoch or 0,
        epochs=len(record.epochs),
        log_loss=record.best(metrics.VAL_LOG_LOSS),
        top1=record.best(metrics.VAL_TOP1),
    )


def _write(
    folder: StudyFolder, predictions: Sequence[_FoldPredictions], manifest: Manifest
) -> Path:
    """Write the out-of-fold logits of all training images, in the manifest's order."""
    first = min(own.candidate.record.number for own in predictions)
    file = folder.path / "folds" / f"{first:04d}.npz"
    rows = np.concatenate([own.rows for own in predictions])
    order = np.argsort(rows)
    logits = np.concatenate([own.logits for own in predictions])
    folds = np.repeat(np.arange(len(predictions)), [len(own.rows) for own in predictions])
    found = {"rows": rows, "labels": manifest.labels[rows], "logits": logits, "folds": folds}
    write_npz(file, {name: values[order] for name, values in found.items()})
    return file


def _ensembles(
    members: Sequence[Candidate], manifest: Manifest, splits: Sequence[str], seed: int
) -> tuple[list[ScoreRow], str]:
    """Return the scores of the folds alone and merged, and the better rule on the first split."""
    numbers, rows, best = tuple(range(len(members))), [], ""
    for split in splits:
        labels = manifest.labels[manifest.rows(split)]
        if len(labels) == 0:
            continue
        predictions = SplitPredictions(members, split, labels)
        rows.append(_mean_of_members(predictions, seed))
        merged = []
        for kind in RULES:
            rule: Rule = kind(numbers)
            merged.append(
                _score(rule.name, split, rule.fit(predictions).log_p(predictions), labels, seed)
            )
        best = best or min(merged, key=lambda row: row.log_loss.value).what
        rows += merged
    return rows, best or "soft vote"


def combine_folds(rule: str, folds: int) -> Combination:
    """Return how the trials of all folds are combined by `rule`, each with the same weight."""
    space: AverageOf = "logit" if rule == "logit mean" else "probability"
    return Combination(WeightedAverage(tuple(range(folds)), (1 / folds,) * folds, space), rule)


def _mean_of_members(predictions: SplitPredictions, seed: int) -> ScoreRow:
    """Return what one fold's trial scores on average."""
    log_ps = [predictions.log_p(number) for number in range(len(predictions.candidates))]
    right = np.mean([log_p.argmax(axis=1) == predictions.labels for log_p in log_ps], axis=0)
    losses = np.mean([log_losses(log_p, predictions.labels) for log_p in log_ps], axis=0)
    return _row("one fold alone, on average", predictions.split, right, losses, seed)


def _score(what: str, split: str, log_p: Float32s, labels: Labels, seed: int) -> ScoreRow:
    right = log_p.argmax(axis=1) == labels
    return _row(what, split, right, log_losses(log_p, labels), seed)


def _row(what: str, split: str, right: Any, losses: Any, seed: int) -> ScoreRow:
    scores = scores_of(losses, right, seed)
    return ScoreRow(what, split, len(losses), scores.log_loss, scores.top1)


def _write_package(
    folder: StudyFolder,
    members: Sequence[Candidate],
    combination: Combination,
    models: Path,
    name: str,
) -> Path | None:
    """Write the model package of the better ensemble, if the folds' weights are there."""
    if not all(member.has_weights for member in members):
        return None
    from carray.inference.package import write_version

    trials = [member.folder for member in members]
    return write_version(models, name, folder.record(), trials, combination)


@dataclass(frozen=True)
class FoldRow:
    """One fold's trial, judged on the images that it was not trained on."""

    fold: int
    trial: str
    images: int
    best_epoch: int
    epochs: int
    log_loss: float
    top1: float


@dataclass(frozen=True)
class ScoreRow:
    """Something's score on some images, with intervals."""

    what: str
    split: str
    images: int
    log_loss: Interval
    top1: Interval


@dataclass(frozen=True)
class CrossValidation:
    """A configuration on every fold."""

    study: str
    backbone: str
    folds: tuple[FoldRow, ...]
    out_of_fold: ScoreRow
    """Every training image, by the trial that hasn't seen it."""
    ensembles: tuple[ScoreRow, ...]
    """On `blend` and, where it was opened, `test`: the folds alone (their mean) and merged."""
    rule: str
    """The ensemble that is better on `blend`; soft vote where there is no such split."""
    logits_file: Path
    """`rows` (manifest), `labels`, `logits` (images, classes) float16, `folds`."""
    models_that_opened_test: int
    package: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        files = {n: str(getattr(self, n) or "") for n in ("logits_file", "package")}
        found: dict[str, Any] = to_jsonable({**asdict(self), **files})
        return found
