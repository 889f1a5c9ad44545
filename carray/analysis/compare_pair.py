"""Paired comparison of two trials, or of two studies' seeds, on the images that both have.

A side is a trial, or a study whose trials are the seeds of one configuration; the two may be
trained on other data (images left out, boxes cut), as long as the classes are the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from carray.config import TrialConfig, flatten
from carray.data.manifest import Manifest
from carray.errors import RecordError, counted
from carray.json_file import JsonResult
from carray.predictions.candidates import Candidate, comparable, find_candidates, read_trials
from carray.predictions.labels import study_manifest
from carray.predictions.logits import SplitPredictions
from carray.predictions.scores import log_losses
from carray.predictions.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    Verdict,
    accuracy_interval,
    bootstrap_means,
    interval,
    mcnemar_exact,
    paired_gain,
    two_sided_p,
)
from carray.predictions.test_access import record_trial_accesses
from carray.records import StudyFolder, StudyRecord
from carray.runs_folder import RunsFolder

ScoresTN = npt.NDArray[np.float64]
Image = tuple[str, str]  # its name and the hash of its content: a name alone may be another's


def compare_sides(
    first: str,
    second: str,
    *,
    open_test: bool = True,
    runs: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> PairedComparison:
    """Compare two trials, or two studies of one configuration's seeds, image by image.

    Args:
        first: `STUDY/NUMBER`, or a study whose complete trials differ in their seed alone.
        second: the same; its data may be others, with the same classes.
        open_test: look at `test`, which is recorded for each trial; else at `val`.
        runs: the runs folder.
        seed: of the bootstrap.

    Raises:
        RecordError: no such trial or study, a study of several configurations, other classes, or
            no image that both sides have.
    """
    where = RunsFolder.at(runs)
    sides = [_SideTrials.read(where, text, open_test) for text in (first, second)]
    split = sides[0].split
    if sides[1].split != split:
        raise RecordError(
            f"{first} has {split} images and {second} has none: compare on val, with --no-test"
        )
    places = _common_images(*sides)
    opened = sum(side.open_test(where) for side in sides) if split == "test" else 0
    scores = [side.scores(at) for side, at in zip(sides, places, strict=True)]
    return _compare(sides, scores, opened, seed)


@dataclass(frozen=True, eq=False)
class _SideTrials:
    """A side's trials, and what they said of the images of the split."""

    name: str
    study: StudyRecord
    manifest: Manifest
    candidates: tuple[Candidate, ...]
    split: str

    @classmethod
    def read(cls, runs: RunsFolder, name: str, open_test: bool) -> _SideTrials:
        """Find a side's trials.

        Raises:
            RecordError: there are none, or they are of several configurations.
        """
        is_trial = "/" in name
        trial = runs.find_trial(name) if is_trial else None
        folder = StudyFolder(trial.path.parent.parent) if trial else runs.find_study(name)
        study = folder.record()
        read = read_trials(folder)
        if trial is not None:  # by name, one that was refitted as well
            found = tuple(one for one in comparable(study, read) if one.folder.path == trial.path)
        else:
            found = find_candidates(study, read, need_weights=False).complete
        if not found:
            raise RecordError(f"{name} has no complete trial with logits to compare")
        configs = {one.record.config.without_seed().model_dump_json() for one in found}
        if len(configs) > 1:
            raise RecordError(
                f"the {len(found)} trials of study {name!r} have {len(configs)} configurations: "
                f"name one of them, as in {found[0].record.name}"
            )
        manifest = study_manifest(study)
        split = "test" if open_test and len(manifest.rows("test")) else "val"
        return cls(name, study, manifest, found, split)

    @property
    def ids(self) -> list[Image]:
        """The split's images."""
        return self._ids(self.split)

    @property
    def train_ids(self) -> set[Image]:
        """The training images."""
        return set(self._ids("train"))

    @property
    def config(self) -> TrialConfig:
        """The configuration that the trials share, the seed apart."""
        return self.candidates[0].record.config.without_seed()

    def labels(self) -> dict[Image, str]:
        """Return {image: class} of the split."""
        labels = self.manifest.labels[self.manifest.rows(self.split)]
        return {
            image: self.manifest.classes[own] for image, own in zip(self.ids, labels, strict=True)
        }

    def scores(self, places: npt.NDArray[np.int64]) -> ScoresTN:
        """Return (2, trials, images) at some places of the split: right or not, and losses."""
        labels = self.manifest.labels[self.manifest.rows(self.split)]
        sides = SplitPredictions(self.candidates, self.split, labels)
        log_ps = [sides.log_p(member) for member in range(len(self.candidates))]
        right = [log_p.argmax(axis=1) == labels for log_p in log_ps]
        losses = [log_losses(log_p, labels) for log_p in log_ps]
        return np.stack([right, losses]).astype(np.float64)[:, :, places]

    def open_test(self, runs: RunsFolder) -> int:
        """Record that each trial looks at the test split; return how many models ever did."""
        names = [candidate.record.name for candidate in self.candidates]
        return record_trial_accesses(runs, self.study, names)

    def _ids(self, split: str) -> list[Image]:
        rows = self.manifest.included.iloc[self.manifest.rows(split)]
        return list(zip(rows["image_id"], rows["content_hash"], strict=True))


def _common_images(
    first: _SideTrials, second: _SideTrials
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the places, in each side's split, of the images that both have.

    Raises:
        RecordError: the classes, or an image's class, differ, or there is no such image.
    """
    known = [set(side.manifest.classes) for side in (first, second)]
    if known[0] != known[1]:
        extra = sorted(known[0] ^ known[1])[0]
        raise RecordError(
            f"{first.name} has {len(known[0])} classes and {second.name} {len(known[1])}, and "
            f"{extra!r} is only in one of them: what they say can't be compared"
        )
    labels = [side.labels() for side in (first, second)]
    both = [image for image in first.ids if image in labels[1]]
    if not both:
        raise RecordError(
            f"{first.name} and {second.name} have no {first.split} image in common: prepare both "
            "data sets from the same source"
        )
    other = [image for image in both if labels[0][image] != labels[1][image]]
    if other:
        raise RecordError(
            f"{first.name} and {second.name} differ on the class of "
            f"{counted(len(other), f'{first.split} image')}: {other[0][0]} is "
            f"{labels[0][other[0]]!r} and {labels[1][other[0]]!r}"
        )
    at = [{image: place for place, image in enumerate(side.ids)} for side in (first, second)]
    places = [np.array([own[image] for image in both], np.int64) for own in at]
    return places[0], places[1]


def _compare(
    sides: Sequence[_SideTrials], scores: Sequence[ScoresTN], opened: int, seed: int
) -> PairedComparison:
    resampled = _resampled(scores, seed)  # (2 sides, right or losses, resamples)
    actual = np.array([side.mean(axis=(1, 2)) for side in scores])
    gains = [
        interval(float(actual[1, k] - actual[0, k]), resampled[1, k] - resampled[0, k])
        for k in (0, 1)
    ]
    p = [two_sided_p(resampled[1, k] - resampled[0, k]) for k in (0, 1)]
    if all(side.shape[1] == 1 for side in scores):
        right = [side[0, 0] > 0 for side in scores]
        p[0] = mcnemar_exact(int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum()))
        gains[0] = paired_gain(right[0], right[1])
    trains = [side.train_ids for side in sides]
    first, second = (
        Side(
            name=side.name,
            trials=tuple(candidate.record.name for candidate in side.candidates),
            train_images=len(trains[place]),
            only_here=len(trains[place] - trains[1 - place]),
            left_out=len(side.ids) - scores[place].shape[2],
            top1=(
                accuracy_interval(scores[place][0, 0])
                if scores[place].shape[1] == 1
                else interval(float(actual[place, 0]), resampled[place, 0])
            ),
            log_loss=interval(float(actual[place, 1]), resampled[place, 1]),
        )
        for place, side in enumerate(sides)
    )
    configs = [flatten(side.config) for side in sides]
    return PairedComparison(
        split=sides[0].split,
        images=scores[0].shape[2],
        first=first,
        second=second,
        top1=gains[0],
        top1_p=p[0],
        log_loss=gains[1],
        log_loss_p=p[1],
        differences={
            name: (value, configs[1][name])
            for name, value in configs[0].items()
            if value != configs[1][name]
        },
        verdict=_verdict(gains, p),
        models_that_opened_test=opened,
    )


def _resampled(scores: Sequence[ScoresTN], seed: int) -> ScoresTN:
    """Return each side's mean scores, (2 sides, 2, resamples), over drawn images and trials.

    Both sides see the same drawn images. Few trials vary less when drawn than trials do, so their
    part is widened by sqrt(n / (n - 1)).
    """
    counts = [side.shape[1] for side in scores]
    columns = np.concatenate([side.reshape(-1, side.shape[2]) for side in scores]).T
    means = bootstrap_means(columns, seed).T
    numbers = np.random.default_rng(seed)
    out = []
    for place, count in enumerate(counts):
        start = 2 * sum(counts[:place])
        own = means[start : start + 2 * count].reshape(2, count, RESAMPLES)
        middle = own.mean(axis=1)
        drawn = numbers.integers(0, count, (1, count, RESAMPLES))
        picked = np.take_along_axis(own, np.broadcast_to(drawn, own.shape), axis=1).mean(axis=1)
        out.append(middle + (picked - middle) * (count / max(1, count - 1)) ** 0.5)
    return np.stack(out)


def _verdict(gains: Sequence[Interval], p: Sequence[float]) -> Verdict:
    for k, sign in ((1, -1), (0, 1)):
        if gains[k].excludes_zero() and p[k] < 1 - CONFIDENCE:
            return "better" if sign * gains[k].value > 0 else "worse"
    return "within noise"


@dataclass(frozen=True)
class Side:
    """What is compared."""

    name: str
    trials: tuple[str, ...]
    train_images: int
    only_here: int
    """Training images that the other side's data leave out."""
    left_out: int
    """Images of the split that the other side lacks; they don't count."""
    top1: Interval
    """Mean of the trials, on the images that both sides have; so is `log_loss`."""
    log_loss: Interval


@dataclass(frozen=True)
class PairedComparison(JsonResult):
    """Two sides on the images that both have."""

    split: str
    images: int
    first: Side
    second: Side
    top1: Interval
    """Second minus first: above zero the second is better."""
    top1_p: float
    """McNemar's exact test where each side is one trial, else as `log_loss_p`."""
    log_loss: Interval
    """Second minus first: below zero the second is better."""
    log_loss_p: float
    """Two-sided, by bootstrap over images and, where a side has several, trials."""
    differences: dict[str, tuple[Any, Any]]
    """Names of the configuration that differ, the seed apart."""
    verdict: Verdict
    """Of the second side; by log-loss first, then by top-1."""
    models_that_opened_test: int
