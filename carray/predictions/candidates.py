"""Which trials may join an ensemble, which may not and why, and which are the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from carray import metrics
from carray.errors import ConfigError, RecordError, did_you_mean
from carray.records import StudyFolder, StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.remote_studies import has_weights

SUPERSEDED = "superseded by a refit"
SAME_CONFIG = "of a configuration that is already in"
NO_LOGITS = "without logits"
NO_WEIGHTS = "whose weights the disk budget deleted"
OTHER_DATA = "scored on another data set"
ON_FOLD = "scored on a fold"
COLLAPSED = "that collapsed"
UNFINISHED = "not finished"
CURES = {  # where no trial can join; of all else searching on is
    ON_FOLD: "--with-folds takes those on folds",
    NO_WEIGHTS: "--logits-only takes those without weights, and writes no package",
}


@dataclass(frozen=True)
class Candidate:
    """A trial that may join: it left logits."""

    folder: TrialFolder
    record: TrialRecord
    value: float
    """The metric at its best epoch, on `val`."""

    @property
    def is_complete(self) -> bool:
        """Say whether it ran to its end."""
        return self.record.state is TrialState.COMPLETE

    @property
    def is_stopped(self) -> bool:
        """Say whether the scheduler or the budget ended it early."""
        return self.record.state is TrialState.PRUNED

    @property
    def configuration(self) -> str:
        """Name its configuration, which its trials on folds share."""
        return self.record.config.model_copy(update={"fold": None}).model_dump_json()

    @property
    def model_name(self) -> str:
        """Name its backbone; with its head where that isn't linear."""
        config = self.record.config
        head = config.head.kind
        return config.backbone if head == "linear" else f"{config.backbone} + {head}"

    @property
    def has_weights(self) -> bool:
        """Say whether its weights are still there."""
        return has_weights(self.folder)


@dataclass(frozen=True)
class Candidates:
    """The trials of one or several studies that may join, best first, and how many may not, by
    reason."""

    study: str
    """Its name; of several `A + B`."""
    metric: str
    trials: tuple[Candidate, ...]
    left_out: dict[str, int]

    @property
    def complete(self) -> tuple[Candidate, ...]:
        """Those that ran to their end, best first."""
        return tuple(trial for trial in self.trials if trial.is_complete)

    @property
    def stopped(self) -> tuple[Candidate, ...]:
        """Those that the scheduler or the budget ended early, best first."""
        return tuple(trial for trial in self.trials if trial.is_stopped)

    @property
    def fold_groups(self) -> tuple[tuple[Candidate, ...], ...]:
        """The complete trials of each configuration that folds trained, by fold; the best first.

        Their mean value counts: out of fold, each image is judged by the trial that hasn't seen it.
        """
        groups: dict[str, list[Candidate]] = {}
        for trial in self.complete:
            if trial.record.config.fold is not None:
                groups.setdefault(trial.configuration, []).append(trial)
        key = metrics.Objective(self.metric).key
        ranked = sorted(groups.values(), key=lambda own: fmean(key(each.value) for each in own))
        return tuple(tuple(sorted(own, key=fold_of)) for own in ranked)

    def ranked(self) -> list[tuple[Candidate, ...]]:
        """Return the trials of each configuration, the best configuration first.

        Those that folds trained come first, each with all its folds; then complete trials, and
        stopped ones last.
        """
        groups = self.fold_groups
        known = {group[0].configuration for group in groups}
        alone = [
            trial
            for trial in self.complete + self.stopped
            if trial.record.config.fold is None
            and not (known and trial.configuration in known)  # naming one takes a while
        ]
        return [*groups, *((trial,) for trial in alone)]

    def best(self, top: int) -> tuple[Candidate, ...]:
        """Return the trials of the best `top` configurations; of all, where there are fewer.

        Raises:
            ConfigError: `top` isn't positive.
            RecordError: there is none.
        """
        if top < 1:
            raise ConfigError(f"--top {top} must be at least 1")
        if found := self.ranked()[:top]:
            return tuple(trial for group in found for trial in group)
        why = "; ".join(f"left out: {count} {reason}" for reason, count in self.left_out.items())
        cures = [cure for reason, cure in CURES.items() if reason in self.left_out]
        raise RecordError(
            f"study {self.study!r} has no trial yet that could join an ensemble"
            f"{f' ({why})' if why else ''}; {', or '.join(cures or ['search on'])}"
        )


def fold_of(candidate: Candidate) -> int:
    """Return the fold that a trial was judged on; -1 of one that `val` judged."""
    fold = candidate.record.config.fold
    return -1 if fold is None else fold


def read_trials(folder: StudyFolder, metric: str | None = None) -> tuple[Candidate, ...]:
    """Return every trial of a study with its value, best first, whether it may join or not.

    They are ordered by `metric`; None takes the study's own.

    Raises:
        ConfigError: `metric` is unknown.
        RecordError: no trial of the study has it, since it was run before that was measured.
    """
    metric = metric or folder.record().metric
    if metric not in metrics.OBJECTIVES:
        near = did_you_mean(metric, metrics.OBJECTIVES)
        raise ConfigError(
            f"unknown metric {metric!r}{near}; one of {', '.join(metrics.OBJECTIVES)}"
        )
    found = [Candidate(trial, record, record.best(metric)) for trial, record in folder.trials()]
    _check_measured(folder, found, metric)
    return tuple(best_first(found, metric))


def _check_measured(folder: StudyFolder, found: Sequence[Candidate], metric: str) -> None:
    """Refuse a metric that no trial has: all would be equally good."""
    ran = [candidate.record for candidate in found if candidate.record.epochs]
    if ran and not any(metric in row for record in ran for row in record.epochs):
        raise RecordError(
            f"no trial of study {folder.path.name!r} has {metric}: they are older than it; rank "
            f"by another, as in --metric {metrics.VAL_MACRO_F1}"
        )


def candidate_of(study: StudyFolder, record: TrialRecord) -> Candidate:
    """Return a trial of a study with its lowest log-loss on `val`."""
    return Candidate(study.trial(record.number), record, record.best(metrics.VAL_LOG_LOSS))


def find_candidates(
    study: StudyRecord,
    trials: Sequence[Candidate],
    metric: str | None = None,
    *,
    need_weights: bool = True,
    folds: bool = False,
) -> Candidates:
    """Return those of `trials`, best first, that may join an ensemble.

    `metric` is what they are sorted by; None stands for the study's own.

    A refit supersedes the trial that it refits, unless it came out worse or has another seed, and
    of equal configurations one counts.
    `need_weights` leaves out trials that couldn't be packaged. Trials on folds join where `folds`
    asks for them. Trials of other studies may be among them, on the same data.
    """
    refitted: set[tuple[str, int | None, int]] = set()  # by those refits that are better
    left_out: Counter[str] = Counter()
    by_config: dict[str, Candidate] = {}
    for trial in trials:
        if trial.is_complete and trial.folder.logits_file.exists():
            refitted.add((trial.record.study, trial.record.refit_of, trial.record.config.seed))
        reason = _exclusion_reason(trial, refitted, study.manifest_hash, need_weights, folds)
        config = trial.record.config.model_dump_json() + " ".join(trial.record.soup_of)
        if not reason and config in by_config:
            reason = SAME_CONFIG
        if reason:
            left_out[reason] += 1
        else:
            by_config[config] = trial
    return Candidates(study.name, metric or study.metric, tuple(by_config.values()), dict(left_out))


def comparable(study: StudyRecord, trials: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return those of `trials` that can be looked at beside each other, best first.

    A trial that was refitted and one of a configuration that is there already are among them.
    """
    return tuple(
        trial
        for trial in trials
        if trial.is_complete and not _exclusion_reason(trial, set(), study.manifest_hash, False)
    )


def best_first(found: Iterable[Candidate], metric: str) -> list[Candidate]:
    """Sort by value; of equals, complete ones first, then those of less log-loss."""
    objective, log_loss = metrics.Objective(metric), metrics.Objective(metrics.VAL_LOG_LOSS)

    def key(candidate: Candidate) -> tuple[float, bool, float, int]:
        record = candidate.record
        value = objective.key(candidate.value)
        return value, not candidate.is_complete, log_loss.key_of(record), record.number

    return sorted(found, key=key)


def _exclusion_reason(
    candidate: Candidate,
    refitted: set[tuple[str, int | None, int]],
    manifest_hash: str,
    need_weights: bool,
    folds: bool = False,
) -> str:
    record = candidate.record
    if not record.state.is_finished():
        return UNFINISHED
    if record.state is TrialState.COLLAPSED:
        return COLLAPSED
    if not candidate.folder.logits_file.exists():
        return NO_LOGITS
    if (record.study, record.number, record.config.seed) in refitted:
        return SUPERSEDED
    if record.manifest_hash not in ("", manifest_hash):
        return OTHER_DATA
    if record.config.fold is not None and not folds:
        return ON_FOLD
    return NO_WEIGHTS if need_weights and not candidate.has_weights else ""
