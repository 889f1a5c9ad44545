"""How a study is fitted to a cluster: its search, and the few long trials after it."""

from __future__ import annotations

from collections.abc import Sequence

from carray.records import TrialRecord
from carray.search.extension import best_first, worth_continuing
from carray.search.ledger import goes_on, lacks_logits
from carray.search.placement.plan import Node, Plan, make_plan
from carray.search.request import fold_trials, refit_count
from carray.search.sampling.members import EnsembleMembers
from carray.search.scheduling.refits import leaves_refits_open, wanted_refits
from carray.search.setup import StudySetup


def plan_study(
    setup: StudySetup,
    records: Sequence[TrialRecord],
    nodes: Sequence[Node],
    gpus_per_trial: float | None = None,
) -> Plan:
    """Fit what is left of the study to the cluster; raises PlanError if it doesn't."""
    left = max(1, trials_left(setup, records), again_count(setup, records))
    return _plan_of(setup, left, nodes, gpus_per_trial)


def trials_left(setup: StudySetup, records: Sequence[TrialRecord]) -> int:
    """Return how many trials a search still has to train, those that go on among them."""
    searched = [record for record in records if record.kind == "search"]
    over = sum(not goes_on(record, setup.folder.trial(record.number)) for record in searched)
    return max(0, setup.study.trials - over)


def has_pending_trials(setup: StudySetup, records: Sequence[TrialRecord]) -> bool:
    """Say whether the study has a trial to open, to go on with or to finish."""
    lacking = (lacks_logits(record, setup.folder.trial(record.number)) for record in records)
    return trials_left(setup, records) > 0 or any(lacking)


def _plan_of(
    setup: StudySetup, trials: int, nodes: Sequence[Node], gpus_per_trial: float | None
) -> Plan:
    request = setup.request
    return make_plan(
        nodes,
        trials=trials,
        workers=request.workers_per_trial,
        gpus_per_trial=gpus_per_trial,
        cpus_per_worker=request.cpus_per_worker,
        concurrent=request.concurrent,
        min_lanes=request.min_lanes,
    )


def has_nothing_left(setup: StudySetup, records: Sequence[TrialRecord]) -> bool:
    """Say whether a study is complete, and is asked for nothing that it doesn't have already."""
    study, file = setup.study, setup.folder.record_file
    if not file.exists() or setup.folder.record().state != "complete":
        return False
    if has_pending_trials(setup, records) or fold_trials(setup.request) or study.extended_from:
        return False  # folds and longer trainings: the ledger knows
    best, refits = best_first(records, study.objective), [r for r in records if r.kind == "refit"]
    or_longer = leaves_refits_open(setup.request)
    return any(
        all(
            refit.has_ended(refits, or_longer=or_longer)
            for refit in wanted_refits(setup.request, best, epochs)
        )
        for epochs in setup.refit_lengths
    )


def again_count(setup: StudySetup, records: Sequence[TrialRecord]) -> int:
    """Return how many trials are trained again at once at most, after the search."""
    worth = worth_continuing(setup.study, records, EnsembleMembers(setup.folder))
    return max(refit_count(setup.request), fold_trials(setup.request), len(worth))


def refit_plan(
    setup: StudySetup,
    records: Sequence[TrialRecord],
    nodes: Sequence[Node],
    gpus_per_trial: float | None = None,
) -> Plan:
    """Plan refits and folds: few long trials on all that the whole study could take.

    What is left of the study doesn't count, so one that goes on refits with as many ranks.
    """
    most = again_count(setup, records)
    whole = _plan_of(setup, max(1, setup.study.trials, most), nodes, gpus_per_trial)
    return whole.widened(most) if most else whole
