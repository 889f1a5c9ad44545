"""`Pool`: the trials of one or several studies that an ensemble is drawn from, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from carray.errors import ConfigError, RecordError, counted
from carray.predictions.candidates import (
    NO_WEIGHTS,
    Candidate,
    Candidates,
    best_first,
    find_candidates,
    read_trials,
)
from carray.predictions.labels import HeldLabels, held_labels
from carray.records import StudyFolder, StudyRecord
from carray.runs_folder import RunsFolder

MIN_BLEND_IMAGES = 10  # fewer can't be cut into folds that mean anything
LONG_NAME = 80  # letters; a file's name has room for 255, and a model's has more behind it


@dataclass(frozen=True)
class Pool:
    """Studies as an ensemble sees them."""

    runs: RunsFolder
    folder: StudyFolder
    """The first study's, which keeps what the ensemble was worth."""
    study: StudyRecord
    """The first one's: classes and data, which all share."""
    name: str
    """The study's, or `A+B`, or `A+9-more`."""
    labels: HeldLabels
    candidates: Candidates
    singles: Candidates
    """With trials whose weights are gone: the best single trial is the best of all."""
    split: str
    """Which judges the rules."""
    with_folds: bool
    """Whether trials on folds were asked for."""

    @classmethod
    def open(
        cls,
        runs: RunsFolder,
        folders: Sequence[StudyFolder],
        metric: str | None,
        *,
        need_weights: bool,
        folds: bool = False,
    ) -> Pool:
        """Read the trials of `folders`, those on folds too where `folds` asks for them.

        Raises:
            RecordError: the studies are of different data, or too few images can judge.
            ConfigError: they have different metrics, and none is asked for.
        """
        studies = [folder.record() for folder in folders]
        _check_alike(studies, metric)
        metric = metric or studies[0].metric
        read = [read_trials(folder, metric) for folder in folders]
        trials = read[0] if len(read) == 1 else best_first(chain.from_iterable(read), metric)
        labels = held_labels(folders[0])
        candidates, singles = (
            replace(
                find_candidates(studies[0], trials, metric, need_weights=need, folds=folds),
                study=" + ".join(study.name for study in studies),
            )
            for need in (need_weights, False)
        )
        return cls(
            runs,
            folders[0],
            studies[0],
            _name_of(studies),
            labels,
            candidates,
            singles,
            _judging_split(labels, folds),
            folds,
        )

    @property
    def judged_on(self) -> str:
        """The split that judges the rules, in words."""
        return "blend" if self.split == "blend" else "val, cross-fitted"

    def best_single(self, members: Sequence[Candidate]) -> list[Candidate]:
        """Return the best trial that ran to its end, or the best member if a stopped one is better.

        An ensemble is no gain if one of its own members alone is as good. A trial on a fold, which
        other images judged, is it where there is no other.
        """
        known = {member.record.name for member in members}
        usable = (
            trial
            for trial in self.singles.trials
            if trial.record.config.fold is None
            and (trial.is_complete or trial.record.name in known)
        )
        return [next(usable, members[0])]

    def notes(self, members: Sequence[Candidate]) -> list[str]:
        """Say what of the pool isn't as one would expect."""
        notes = []
        if stopped := sum(member.is_stopped for member in members):
            whole = f"only {len(members) - stopped}" if stopped < len(members) else "none"
            notes.append(
                f"stopped early: {stopped} of {counted(len(members), 'trial')} to vote, as "
                f"{whole} can join that ran to the end"
            )
        if self.split != "blend":
            notes.append(
                f"there is no blend split of {MIN_BLEND_IMAGES} images or more: rules were "
                "cross-fitted on val, which also picked epochs and members"
            )
        if self.with_folds and all(t.record.config.fold is None for t in self.candidates.trials):
            notes.append(
                f"--with-folds changes nothing: no trial of {self.name} is on a fold; `carray "
                "tune` with --folds trains the best on some"
            )
        left_out = self.candidates.left_out
        notes += [
            f"left out: {counted(count, 'trial')} {reason}" for reason, count in left_out.items()
        ]
        if left_out.get(NO_WEIGHTS):
            notes.append("--logits-only uses them too, and writes no package")
        return notes


def _name_of(studies: Sequence[StudyRecord]) -> str:
    """Return their names, as models and files are called after them; not all where it gets long."""
    names = "+".join(study.name for study in studies)
    return names if len(names) <= LONG_NAME else f"{studies[0].name}+{len(studies) - 1}-more"


def find_studies(
    runs: RunsFolder, studies: str | Sequence[str] | None, from_tracking: bool
) -> list[StudyFolder]:
    """Return the folders of studies, each once, fetched from the tracking server if so asked.

    Raises:
        RecordError: there is no such study.
        ConfigError: `from_tracking`, and none is named.
        TrackingError: the server doesn't answer, or has no such study.
    """
    names = [studies] if isinstance(studies, str) else list(dict.fromkeys(studies or ()))
    if not from_tracking:
        return [runs.find_study(name) for name in names] or [runs.find_study()]
    if not names:
        raise ConfigError("--from-tracking needs the study's name: add --study NAME")
    from carray.tracking import download_study

    return [download_study(runs, name) for name in names]


def _check_alike(studies: Sequence[StudyRecord], metric: str | None) -> None:
    first = studies[0]
    for study in studies[1:]:
        if study.manifest_hash != first.manifest_hash:
            raise RecordError(
                f"studies {first.name!r} and {study.name!r} are of different data "
                f"({first.manifest_hash[:12]} and {study.manifest_hash[:12]}): their trials can "
                "only be merged where they saw the same images; name studies of one data set"
            )
        if metric is None and study.metric != first.metric:
            raise ConfigError(
                f"studies {first.name!r} and {study.name!r} compare trials by {first.metric} and "
                f"{study.metric}: say which counts, as in --metric {first.metric}"
            )


def _judging_split(labels: HeldLabels, folds: bool) -> str:
    blend, val = len(labels.of("blend")), len(labels.of("val"))
    if blend >= MIN_BLEND_IMAGES:
        return "blend"
    if folds:
        raise RecordError(
            f"--with-folds needs a blend split of at least {MIN_BLEND_IMAGES} images, and it "
            f"has {blend}: what a trial on a fold leaves of val is its own fold; prepare the data "
            "with --blend-size"
        )
    if val >= MIN_BLEND_IMAGES:
        return "val"
    raise RecordError(
        f"blend has {counted(blend, 'image')} and val {val}: rules need "
        f"at least {MIN_BLEND_IMAGES}; prepare the data with larger --blend-size or --val-size"
    )
