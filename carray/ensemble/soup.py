"""`make_soup`: the weights of several trials of a study, averaged into one model.

Wortsman et al., "Model soups", ICML 2022. Trials of one backbone that began from the same weights
often lie in one basin, where the mean of weights is nearly as good as the mean of answers, at the
cost of one model. Whether they do is measured: the log-loss on `val` along the line between two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from carray import metrics
from carray.data.manifest import Manifest
from carray.ensemble.build import checked_package_name
from carray.ensemble.pool import Pool, find_studies
from carray.ensemble.soup_result import Barrier, Soup, SoupRow
from carray.ensemble.soup_weights import Shares, WeightAverager
from carray.errors import RecordError
from carray.inference.package import write_version
from carray.predictions.averaging import WeightedAverage, average_log_p
from carray.predictions.candidates import Candidate
from carray.predictions.combination import Combination
from carray.predictions.labels import study_manifest
from carray.predictions.logits import SplitPredictions, log_softmax
from carray.predictions.scores import (
    SCORES,
    cross_fitted_log_p,
    log_loss,
    make_folds,
)
from carray.predictions.statistics import compare, scores_of_log_p
from carray.progress import silent
from carray.records import HELD_SPLITS, StudyFolder, TrialFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.training.train import claim_trial_number, open_single_study
from carray.typing import Advance, Float32s, Progress

POINTS = (0.25, 0.5, 0.75)  # of the way between two trials, where the log-loss is measured
MOST_BARRIER = 0.1  # nats above the straight line between the two trials' log-losses


def make_soup(
    study: str | None = None,
    *,
    top: int = 8,
    runs: str | os.PathLike[str] | None = None,
    name: str | None = None,
    metric: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Soup:
    """Average the weights of the best trials that share backbone and first weights; package it.

    The uniform soup is of all that no barrier parts from the best; the greedy one adds the best
    first, each that makes it no worse on `val`. The better of the two on `val` becomes a trial of
    the study `STUDY-soup`, and is compared on `blend` with the best trial and with the soft vote
    of the same trials. Test stays closed.

    Args:
        study: its name; None takes the newest search.
        top: how many of the trials that can be averaged take part, the best first.
        runs: the runs folder.
        name: the model package's; None takes `STUDY-soup`.
        metric: ranks trials and soups on `val`; None takes the study's own.
        seed: of folds and bootstrap.
        progress: shows how far the evaluations are.

    Raises:
        RecordError: fewer than two trials can be averaged, or a barrier parts the best from all
            others, whose height is told; the data are gone or have changed.
        ConfigError: `name` can't be a folder's.
    """
    start = time.perf_counter()
    where = RunsFolder.at(runs)
    pool = Pool.open(where, find_studies(where, study, False), metric, need_weights=True)
    name = checked_package_name(name, f"{pool.name}-soup")
    trials = _alike(pool.candidates.complete)[:top]
    if len(trials) < 2:
        raise RecordError(_too_few(pool))
    manifest = study_manifest(pool.study)
    kitchen = _Kitchen(pool, trials, WeightAverager.of(trials, manifest, progress))
    steps = len(POINTS) * (len(trials) - 1) + len(trials)
    with progress("averages of weights on val", steps, "averages") as advance:
        kitchen.advance = advance
        barriers = [kitchen.barrier(place) for place in range(1, len(trials))]
        joined = [0, *(place for place, found in enumerate(barriers, 1) if found.is_passable)]
        if len(joined) < 2:
            raise RecordError(_parted(trials[0], barriers))
        soups = {"uniform soup": tuple(joined), "greedy soup": kitchen.greedy(joined)}
        chosen = kitchen.better(soups)
        advance(steps + len(trials) - len(kitchen.measured))  # of those that weren't needed
    record = kitchen.write(where, manifest, soups[chosen])
    soup = kitchen.judged(soups, chosen, joined, record.name, tuple(barriers), seed)
    folder = where.study(record.study).trial(record.number)
    alone = WeightedAverage((0,), (1.0,), temperature=soup.temperature)
    soup.package = write_version(
        where.models, name, pool.study, [folder], Combination(alone, chosen), soup.results()
    )
    where.keep(folder.path, soup.package)
    soup.seconds = time.perf_counter() - start
    return soup


def _alike(trials: Sequence[Candidate]) -> list[Candidate]:
    """Return the trials whose weights can be averaged with the best one's, it first."""
    return [trial for trial in trials if _origin(trial) == _origin(trials[0])]


def _origin(trial: Candidate) -> tuple[object, ...]:
    """Return what two trials must share: layers, first weights and what they look at."""
    config = trial.record.config
    head = config.head.model_copy(update={"seed": None})
    looks = config.image_size, config.fit
    return config.backbone, config.scratch, head, looks, trial.record.initialisation


def _too_few(pool: Pool) -> str:
    complete = pool.candidates.complete
    cure = "search on with one backbone, as in `--set backbone=NAME`"
    if complete and not any(trial.record.config.pretrained for trial in complete):
        cure = "from scratch each trial has first weights of its own: search with pretrained ones"
    return (
        f"study {pool.candidates.study!r} has no two complete trials with weights that share "
        "backbone, head, image size and first weights, so there is nothing to average: "
        f"{cure}, or merge answers with `carray ensemble`"
    )


def _parted(best: Candidate, barriers: Sequence[Barrier]) -> str:
    heights = ", ".join(f"{found.trial} {found.height:.3f}" for found in barriers)
    return (
        f"a barrier parts {best.record.name} from every other trial: along the line between their "
        f"weights the log-loss on val rises above the straight line by ({heights}), and at most "
        f"{MOST_BARRIER} may; merge their answers with `carray ensemble`, or search anew with "
        "`--set head.seed=0`, so that heads begin alike"
    )


@dataclass(eq=False)
class _Kitchen:
    """Trials whose weights are averaged, the best first, and what was measured on `val`."""

    pool: Pool
    trials: Sequence[Candidate]
    averager: WeightAverager
    measured: dict[tuple[tuple[int, float], ...], Float32s] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels = self.pool.labels.of("val")
        self.objective = metrics.Objective(self.pool.candidates.metric)
        self.advance: Advance = lambda count: None
        for place, trial in enumerate(self.trials):
            self.measured[((place, 1.0),)] = log_softmax(trial.folder.logits("val"))

    def val_log_p(self, shares: Shares) -> Float32s:
        """Return what an average of weights says of `val`, measured once."""
        key = tuple(sorted(shares.items()))
        if key not in self.measured:
            self.averager.take(shares)
            self.measured[key] = log_softmax(self.averager.logits("val"))
            self.advance(1)
        return self.measured[key]

    def barrier(self, place: int) -> Barrier:
        """Return how far the log-loss rises above the straight line from the best to a trial."""
        ends = [log_loss(self.val_log_p({end: 1.0}), self.labels) for end in (0, place)]
        heights = []
        for point in POINTS:
            between = log_loss(self.val_log_p({0: 1 - point, place: point}), self.labels)
            heights.append(between - (1 - point) * ends[0] - point * ends[1])
        return Barrier(self.trials[place].record.name, max(heights), max(heights) <= MOST_BARRIER)

    def value(self, places: Sequence[int]) -> float:
        """Return the metric of a soup on `val`."""
        return SCORES[self.objective.metric](self.val_log_p(equal(places)), self.labels)

    def greedy(self, joined: Sequence[int]) -> tuple[int, ...]:
        """Return the trials of which each made the soup no worse."""
        soup: tuple[int, ...] = (joined[0],)
        for place in joined[1:]:
            if not self.objective.is_better(self.value(soup), self.value((*soup, place))):
                soup = (*soup, place)
        return soup

    def better(self, soups: dict[str, tuple[int, ...]]) -> str:
        """Return the name of the soup that is best on `val`; of equals, the last."""
        return min(
            reversed(list(soups)), key=lambda name: self.objective.key(self.value(soups[name]))
        )

    def write(self, runs: RunsFolder, manifest: Manifest, places: Sequence[int]) -> TrialRecord:
        """Write a soup as a trial of the study `STUDY-soup`; one of before stays as it is."""
        study = open_single_study(runs, f"{self.pool.name}-soup", manifest)
        of = tuple(self.trials[place].record.name for place in places)
        known = _same(study, of)
        if known and study.trial(known.number).weights_file.exists():
            return known
        with claim_trial_number(study, known.number if known else None) as number:
            folder = study.trial(number)
            self.averager.take(equal(places))
            splits = [split for split in HELD_SPLITS if len(manifest.rows(split))]
            folder.write_logits({split: self.averager.logits(split) for split in splits})
            self.averager.save(folder.weights_file)
            record = self._record(study, number, of, folder)
            folder.write_record(record)
        return record

    def _record(
        self, study: StudyFolder, number: int, of: tuple[str, ...], folder: TrialFolder
    ) -> TrialRecord:
        best = self.trials[0].record
        log_p = log_softmax(folder.logits("val"))
        row = {metric: score(log_p, self.labels) for metric, score in SCORES.items()}
        begun = TrialRecord.begin(
            study.path.name, number, best.config, best.manifest_hash, kind="single", soup_of=of
        )
        facts = {
            "state": TrialState.COMPLETE,
            "reason": f"the mean weights of {len(of)} trials",
            "epochs": (row,),
            "initialisation": best.initialisation,
            "parameters": best.parameters,
            "ended_at": time.time(),
        }
        return begun.model_copy(update=facts)

    def judged(
        self,
        soups: dict[str, tuple[int, ...]],
        chosen: str,
        joined: Sequence[int],
        trial: str,
        barriers: tuple[Barrier, ...],
        seed: int,
    ) -> Soup:
        """Compare the soup with the best trial, and with the soft vote, where rules are judged."""
        split = self.pool.split
        labels = self.pool.labels.of(split)
        folds = make_folds(labels, seed)
        predictions = SplitPredictions(self.trials, split, labels)
        own = [predictions.log_p(place) for place in joined]
        answers = {
            "best single trial": own[0],
            f"soft vote of {len(own)}": average_log_p(
                own, [1 / len(own)] * len(own), "probability"
            ),
        }
        on_val = [self.val_log_p({place: 1.0}) for place in joined]
        val_answers = [on_val[0], average_log_p(on_val, [1 / len(own)] * len(own), "probability")]
        for name, places in soups.items():
            self.averager.take(equal(places))
            answers[name] = log_softmax(self.averager.logits(split))
            val_answers.append(self.val_log_p(equal(places)))
        fits = {
            name: cross_fitted_log_p(
                each, labels, folds, None if split == "val" else (of_val, self.labels)
            )
            for (name, each), of_val in zip(answers.items(), val_answers, strict=True)
        }
        scaled = {name: log_p for name, (log_p, _) in fits.items()}
        rows = tuple(
            SoupRow(name, len(own) if "vote" in name else 1, scores_of_log_p(each, labels, seed))
            for name, each in scaled.items()
        )
        single, vote, *_ = scaled.values()
        return Soup(
            study=self.pool.candidates.study,
            trial=trial,
            soup_of=tuple(self.trials[place].record.name for place in soups[chosen]),
            rule=chosen,
            barriers=barriers,
            rows=rows,
            against_single=compare(single, scaled[chosen], labels, seed),
            against_vote=compare(vote, scaled[chosen], labels, seed),
            judged_on=self.pool.judged_on,
            temperature=fits[chosen][1],
        )


def equal(places: Sequence[int]) -> Shares:
    """Return equal shares."""
    return {place: 1 / len(places) for place in places}


def _same(study: StudyFolder, of: tuple[str, ...]) -> TrialRecord | None:
    """Return the soup of these trials; None where there is none."""
    return next((record for record in study.records() if record.soup_of == of), None)
