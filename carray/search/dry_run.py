"""What a study would do: its plan, its first trials and about how long it takes; nothing is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import fmean

import optuna
import torch

from carray.config import TrialConfig
from carray.errors import counted
from carray.progress import seconds_text
from carray.records import TrialRecord
from carray.search.extension import best_first, worth_continuing
from carray.search.objectives import directions
from carray.search.observers.start_line import drawn_text
from carray.search.placement.gpu_sharing import resolve_gpu_share
from carray.search.placement.plan import Node, Plan
from carray.search.placement.ray_cluster import cluster_nodes, connected
from carray.search.plans import plan_study, trials_left
from carray.search.request import (
    StudyRequest,
    asked_budget,
    asked_folds,
    check_budget,
    fold_trials,
    refit_count,
)
from carray.search.sampling.members import EnsembleMembers
from carray.search.sampling.optuna_trials import draw_valid
from carray.search.sampling.samplers import build_sampler
from carray.search.scheduling.refits import SHARE, leaves_refits_open, wanted_refits
from carray.search.scheduling.time_plan import Pace
from carray.search.setup import StudySetup, check_classifiers
from carray.search.space.validation import check_against_timm
from carray.training.compute.autotune import step_seconds

SHOWN = 5  # trials
OTHER_WORK = 1.3  # of an epoch's training, with validation and loading, over its steps alone


@dataclass(frozen=True)
class Estimate:
    """How long a study trains at most, if no trial ends early."""

    left: int
    """Trials that are still to be run."""
    fitting: int
    """Those of them that a budget has room for, trained whole; all without one."""
    seconds: float | None
    """Of the search; None where nothing tells it."""
    seconds_again: float = 0.0
    """Of continued trials, refits and folds."""
    source: str = ""

    def lines(self) -> list[str]:
        """Say it."""
        if self.seconds is None:
            return ["how long it takes isn't known before its first epoch"]
        sentence = (
            f"about {seconds_text(self.seconds)} of training for {self._trials()} trained whole"
        )
        again = self.seconds_again
        sentence += (
            f" and {seconds_text(again)} for continued trials, refits and folds" if again else ""
        )
        return [sentence, f"  by {self.source}; starts and small sets take more, early ends less"]

    def _trials(self) -> str:
        every = counted(self.left, "trial")
        return every if self.fitting >= self.left else f"{self.fitting} of {every}"


@dataclass(frozen=True)
class DryRun:
    """What a study would do."""

    study: str
    epochs: int
    plan: list[str]
    """What the space, the cluster and past studies give, in sentences."""
    trials: list[TrialRecord]
    """The first ones; none where the study has begun."""
    continued: list[TrialRecord]
    """Trials that go on to more epochs."""
    estimate: Estimate

    def lines(self) -> list[str]:
        """Say it."""
        return [
            *self.plan,
            "",
            "the first trials:" if self.trials else self._left_line(),
            *(_trial_line(trial, self.trials) for trial in self.trials),
            *(_continued_line(trial, self.epochs) for trial in self.continued),
            "",
            *self.estimate.lines(),
            "nothing was run: the same command without --dry-run does",
        ]

    def _left_line(self) -> str:
        left = self.estimate.left
        what = counted(left, "trial is", "trials are") if left else "no trial is"
        return f"{what} left to run"

    def as_dict(self) -> dict[str, object]:
        """Return it for machines."""
        trials = [{"number": each.number, "params": each.params} for each in self.trials]
        return {
            "study": self.study,
            "plan": self.plan,
            "trials": trials,
            "continued": [each.number for each in self.continued],
            "estimate": asdict(self.estimate),
        }


def dry_run(request: StudyRequest) -> DryRun:
    """Check a request whole, and return its plan, first trials and about how long it takes.

    Nothing is written and no trial is trained; Ray is joined only where an address names one.

    Raises:
        CarrayError: the request can't be carried out.
    """
    setup = StudySetup.resolve(request)
    check_against_timm(setup.space)
    own = check_classifiers(setup)
    records = setup.folder.records()
    with _cluster(request) as cluster:
        notes: list[str] = []
        gpus = resolve_gpu_share(
            request.gpus_per_trial, setup.space, setup.manifest, cluster, notes.append
        )
        plan = plan_study(setup, records, cluster, gpus)
    check_budget(request, plan)
    trials = first_trials(setup, len(records))
    worth = worth_continuing(setup.study, records, EnsembleMembers(setup.folder))
    lines = [
        *filter(None, [*setup.notes, *notes]),
        *plan.lines(setup.study.trials, setup.study.max_epochs),
        *own,
        *([] if records else setup.starts.lines()),
    ]
    estimate = _estimate(setup, plan, records, trials, len(worth))
    return DryRun(setup.study.name, setup.study.max_epochs, lines, trials, worth, estimate)


@contextmanager
def _cluster(request: StudyRequest) -> Iterator[Sequence[Node]]:
    """Yield the nodes of the cluster that is named, else this machine as one."""
    if request.address or os.environ.get("RAY_ADDRESS"):
        with connected(request.address):
            yield [node.resources for node in cluster_nodes()]
        return
    yield [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]


def first_trials(setup: StudySetup, known: int) -> list[TrialRecord]:
    """Draw the first trials of a new study as it will, in memory; of one begun there are none."""
    study = setup.study
    if known:
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = build_sampler(study.sampler, study.seed, study.trials)
    drawing = optuna.create_study(directions=directions(study), sampler=sampler)
    for point in setup.starts.points:
        drawing.enqueue_trial(point)
    found: list[TrialRecord] = []
    for number in range(min(SHOWN, study.trials)):
        _, params, config = draw_valid(drawing, setup.space, {})
        found.append(
            TrialRecord.begin(study.name, number, config, study.manifest_hash, params=params)
        )
    return found


def _trial_line(trial: TrialRecord, trials: Sequence[TrialRecord]) -> str:
    return f"  {trial.config.backbone}, {drawn_text(trial, trials)}".removesuffix(", ")


def _continued_line(trial: TrialRecord, epochs: int) -> str:
    return f"  trial {trial.number:04d}, {trial.config.backbone}, goes on to {epochs} epochs"


def _estimate(
    setup: StudySetup,
    plan: Plan,
    records: Sequence[TrialRecord],
    trials: Sequence[TrialRecord],
    continued: int,
) -> Estimate:
    pace, left = Pace(records), trials_left(setup, records)
    if trials:
        seconds = [_epoch_seconds(trial.config, setup, plan) for trial in trials]
        each, source = fmean(seconds), "a step of each of these, measured here"
    elif (seen := pace.epoch_seconds(records[0].config)) is not None:
        each, source = seen, "the epochs of its trials so far"
    else:
        return Estimate(left, left, None)
    study, request = setup.study, setup.request
    longer = continued * (study.max_epochs - (study.extended_from or 0))
    refit_epochs = setup.refit_lengths[0] * setup.space.refit_pixels
    again = _refits_left(setup, records, left) * refit_epochs + longer
    again += _folds_left(setup, records, left) * study.max_epochs
    search, later = (each * n / max(1, plan.lanes) for n in (study.max_epochs * left, again))
    fitting = left
    if budget := asked_budget(request):
        later = min(later, SHARE * budget.seconds(plan))
        room = budget.seconds(plan) - later
        if room < search:
            fitting, search = max(1, int(left * room / search)), room
    return Estimate(left, fitting, search, later, source)


def _refits_left(setup: StudySetup, records: Sequence[TrialRecord], left: int) -> int:
    """Return how many refits are still to be trained; those of `left` trials to come aren't known.

    None where any length that they may have is there whole: the study is complete then.
    """
    request, best = setup.request, best_first(records, setup.study.objective)
    refits = [record for record in records if record.kind == "refit"]
    or_longer = leaves_refits_open(request)

    def of_length(epochs: int) -> int:
        wanted = wanted_refits(request, best, epochs)
        ended = sum(each.has_ended(refits, or_longer=or_longer) for each in wanted)
        return (refit_count(request) if left else len(wanted)) - ended

    counts = [of_length(epochs) for epochs in setup.refit_lengths]
    return counts[0] if all(counts) else 0


def _folds_left(setup: StudySetup, records: Sequence[TrialRecord], left: int) -> int:
    """Return how many trials on folds are still to be trained, of which none may be known yet."""
    request = setup.request
    best = best_first(records, setup.study.objective)[: request.top_folds]
    numbers, folds = {record.number for record in best}, asked_folds(request)
    ended = sum(
        record.fold_of in numbers and record.config.fold in folds and record.state.is_finished()
        for record in records
    )
    return (fold_trials(request) if left else len(best) * len(folds)) - ended


def _epoch_seconds(config: TrialConfig, setup: StudySetup, plan: Plan) -> float:
    """Time a step, and return what an epoch takes with it."""
    threads = max(1, int(plan.cpus_per_worker))
    batch = config.device_batch_size * plan.workers
    steps = max(1, (setup.space.images or batch) // batch)
    step = step_seconds(config, len(setup.manifest.classes), threads)
    return OTHER_WORK * steps * step
