"""`distill_model`: one small network that learns a model's answers, beside what it replaces."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carray import metrics
from carray.config import DistillConfig, TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.ensemble.build import checked_package_name
from carray.errors import ConfigError
from carray.inference.dataset_predictions import find_data, predict_rows
from carray.inference.inputs import find_package, runs_of
from carray.inference.measure_network import measure_network
from carray.inference.package import write_version
from carray.inference.predictor import Model, load_model
from carray.json_file import JsonResult
from carray.models.recipes import complete_config
from carray.predictions.averaging import WeightedAverage
from carray.predictions.combination import Combination
from carray.predictions.logits import log_softmax
from carray.predictions.scores import CalibrationFit, cross_fit_temperature, make_folds
from carray.predictions.statistics import (
    Interval,
    bootstrap_means,
    interval,
    scores_of,
    two_sided_p,
    verdict_of,
)
from carray.progress import silent
from carray.records import TrialRecord
from carray.runs_folder import RunsFolder
from carray.training.teacher import check_teacher
from carray.training.train import OnEpoch, Trainer
from carray.typing import Float32s, Labels, Progress

STUDENT, ALONE = "student", "labels alone"
ScoresSN = npt.NDArray[np.float64]  # (seeds, images); a model has one


@dataclass(frozen=True)
class DistilledRow(JsonResult):
    """What one of the three is worth where they are judged, each at a cross-fitted temperature."""

    what: str
    """The teacher's name, `student` or `labels alone`."""
    trials: tuple[str, ...]
    log_loss: Interval
    """Of the images; seeds are averaged."""
    top1: Interval
    seed_log_losses: tuple[float, ...]
    milliseconds: float
    """Half of all single images take less: the networks alone, on this machine's CPU."""
    mb: float


@dataclass(frozen=True)
class SeedGain(JsonResult):
    """What the student is better by, on the same images; above zero is better."""

    log_loss: Interval
    log_loss_p: float
    top1: Interval
    top1_p: float

    @property
    def verdicts(self) -> tuple[str, str]:
        """`better`, `worse` or `not better`, by log-loss and by top-1."""
        pairs = (self.log_loss, self.log_loss_p), (self.top1, self.top1_p)
        first, second = (verdict_of(gain, p) for gain, p in pairs)
        return first, second


@dataclass(frozen=True)
class Distillation(JsonResult):
    """A student beside its teacher, and beside the same network trained on labels alone."""

    teacher: str
    study: str
    config: TrialConfig
    """Of the first seed's student."""
    split: str
    images: int
    rows: tuple[DistilledRow, ...]
    against_alone: SeedGain
    against_teacher: SeedGain
    trial: str
    """The seed that is best on `val`, which the package holds."""
    notes: tuple[str, ...]
    package: Path | None = None


def distill_model(
    teacher: str,
    into: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    seeds: int = 1,
    name: str | None = None,
    data: str | Path | None = None,
    weights: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] | None = None,
    on_epoch: OnEpoch | None = None,
    progress: Progress = silent,
) -> Distillation:
    """Train a small network on a model's answers, judge it, and package it with what it is worth.

    In each step the teacher sees the very images that the student sees, augmented and mixed. The
    same network is trained on labels alone for as many epochs. Trials that are complete are not
    trained again.

    Args:
        teacher: a package's name or folder, or a trial (`STUDY/NUMBER`).
        into: the student's backbone, or a trial (`STUDY/NUMBER`) whose configuration it takes, as a
            search with `distill.*` found it.
        overrides: dotted names and values of the student; what they leave open is the teacher's
            image size and epochs, and the backbone's known recipe.
        seeds: how many students are trained, and as many networks on labels alone.
        name: the package's; None takes `TEACHER-BACKBONE`.
        data: the teacher's data set, where it isn't where its study had it.
        weights: a folder of pretrained weights.
        runs: the runs folder.
        on_epoch: told every epoch.
        progress: shows how far the images are.

    Raises:
        ConfigError: a value breaks a rule.
        RecordError: there is no such model, or its study doesn't say where its data are.
        DataError: the data aren't those that the teacher was trained on.
        TrialFailed: a trial failed.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} must be at least 1")
    package = find_package(RunsFolder.at(runs), teacher)
    where = runs_of(package, runs)
    model = load_model(package, "cpu")
    manifest = find_data(where, model.card, data)
    config = student_config(model, package, into, overrides or {}, manifest, where)
    name = checked_package_name(name, f"{package.name}-{config.backbone.rpartition('/')[2]}")
    check_teacher(config, manifest)
    study = f"{package.name}-students"
    trainer = Trainer(manifest, where, study, weights, on_epoch, progress=progress)
    configs = [config.model_copy(update={"seed": config.seed + seed}) for seed in range(seeds)]
    students = [trainer.trained(each) for each in configs]
    untaught = [each.model_copy(update={"distill": DistillConfig()}) for each in configs]
    alone = [trainer.trained(each) for each in untaught]
    return _Judging(trainer, model, students, alone).packaged(name)


def student_config(
    model: Model,
    package: Path,
    into: str,
    overrides: Mapping[str, Any],
    manifest: Manifest,
    runs: RunsFolder,
) -> TrialConfig:
    """Return a student's configuration: that of a trial, or a backbone's known recipe.

    Beside a recipe, size and epochs are those of the teacher's members, unless given.

    Raises:
        ConfigError: a name is unknown or a value breaks a rule.
        RecordError: `into` names a trial that isn't there.
    """
    if into.rpartition("/")[2].isdigit():
        searched = runs.find_trial(into).record().config
        return build_config({**overrides, "distill.teacher": str(package)}, searched)
    members = [member.card.config for member in model.members]
    own = {
        "image_size": max(config.image_size for config in members),
        "fit": members[0].fit,
        "epochs": max(config.epochs for config in members),
    }
    taught = {"backbone": into, "distill.teacher": str(package)}
    return complete_config({**own, **overrides, **taught}, len(manifest.rows("train")))


@dataclass(frozen=True, eq=False)
class _Answers:
    """What some seeds of one network, or one model, said of the judging split's images."""

    what: str
    trials: tuple[str, ...]
    fits: Sequence[CalibrationFit]
    right: ScoresSN

    @classmethod
    def of(
        cls, what: str, trials: Sequence[str], log_ps: Sequence[Float32s], labels: Labels
    ) -> _Answers:
        folds = make_folds(labels)
        fits = [cross_fit_temperature(log_p, labels, folds) for log_p in log_ps]
        right = np.array([log_p.argmax(axis=1) == labels for log_p in log_ps], np.float64)
        return cls(what, tuple(trials), fits, right)

    @property
    def losses(self) -> ScoresSN:
        return np.array([fit.losses for fit in self.fits], np.float64)

    def row(self, milliseconds: float, mb: float) -> DistilledRow:
        scores = scores_of(self.losses.mean(axis=0), self.right.mean(axis=0))
        by_seed = tuple(float(loss) for loss in self.losses.mean(axis=1))
        own = (self.what, self.trials, scores.log_loss, scores.top1, by_seed)
        return DistilledRow(*own, milliseconds, mb)

    def gain_over(self, other: _Answers) -> SeedGain:
        lower = other.losses.mean(axis=0) - self.losses.mean(axis=0)
        oftener = self.right.mean(axis=0) - other.right.mean(axis=0)
        gains = np.stack([lower, oftener], axis=1)
        means = bootstrap_means(gains)
        found = [
            (interval(float(gains[:, which].mean()), means[:, which]), two_sided_p(means[:, which]))
            for which in (0, 1)
        ]
        return SeedGain(*found[0], *found[1])


@dataclass(frozen=True, eq=False)
class _Judging:
    """Compares the three on the judging split, which none of them was trained on."""

    trainer: Trainer
    model: Model
    students: Sequence[TrialRecord]
    alone: Sequence[TrialRecord]

    def packaged(self, name: str) -> Distillation:
        """Write the best student's package, with the comparison in its card."""
        trainer, best = self.trainer, self.best
        student, alone, teacher = self.answers()
        found = Distillation(
            teacher=self.model.card.name,
            study=trainer.study,
            config=self.students[0].config,
            split=trainer.manifest.judging_split,
            images=student.right.shape[1],
            rows=self.rows(teacher, student, alone),
            against_alone=student.gain_over(alone),
            against_teacher=student.gain_over(teacher),
            trial=best.name,
            notes=self.notes(),
        )
        temperature = student.fits[self.students.index(best)].temperature
        package = write_version(
            trainer.runs.models,
            name,
            trainer.folder.record(),
            [trainer.folder.trial(best.number)],
            Combination(WeightedAverage((0,), (1.0,), temperature=temperature), STUDENT),
            {"distilled": found.as_dict()},
        )
        trainer.runs.keep(trainer.folder.path, package)
        return replace(found, package=package)

    @property
    def best(self) -> TrialRecord:
        """The student that is best on `val`."""
        return min(self.students, key=lambda record: record.best(metrics.VAL_LOG_LOSS))

    def answers(self) -> tuple[_Answers, _Answers, _Answers]:
        """Return what the students, the networks on labels alone and the teacher say."""
        trainer = self.trainer
        split = trainer.manifest.judging_split
        rows = trainer.manifest.rows(split)
        labels = trainer.manifest.labels[rows]
        own = [
            _Answers.of(what, [record.name for record in records], self._log_ps(records), labels)
            for what, records in ((STUDENT, self.students), (ALONE, self.alone))
        ]
        log_p = predict_rows(self.model, trainer.manifest, rows, trainer.progress)
        members = [member.card.trial for member in self.model.members]
        return (*own, _Answers.of(self.model.card.name, members, [log_p], labels))  # type: ignore[return-value]

    def _log_ps(self, records: Sequence[TrialRecord]) -> list[Float32s]:
        folder, split = self.trainer.folder, self.trainer.manifest.judging_split
        return [log_softmax(folder.trial(record.number).logits(split)) for record in records]

    def rows(
        self, teacher: _Answers, student: _Answers, alone: _Answers
    ) -> tuple[DistilledRow, ...]:
        """Return the table; a teacher costs what its members cost, in each of its views."""
        classes = len(self.model.classes)
        own = measure_network(self.students[0].config, classes)
        costs = [measure_network(each.card.config, classes) for each in self.model.members]
        views = len(self.model.card.combination.views.views)
        total = views * sum(each.milliseconds for each in costs), sum(each.mb for each in costs)
        size = own.milliseconds, own.mb
        return teacher.row(*total), student.row(*size), alone.row(*size)

    def notes(self) -> tuple[str, ...]:
        notes = []
        if len(self.students) == 1:
            notes.append("one seed: another may differ by more than the images say; --seeds 3")
        average = self.model.card.combination.average
        if len(set(average.weights)) > 1 or average.temperature != 1:
            split = self.trainer.manifest.judging_split
            notes.append(
                f"the teacher's weights were fitted on {split}, which flatters it a little"
            )
        return tuple(notes)
