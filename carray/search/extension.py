"""Which trials of a study are worth more epochs: the best of them, where it asks for more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from carray.data.manifest import Manifest
from carray.errors import RecordError, counted
from carray.metrics import Objective
from carray.records import StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search.request import StudyRequest
from carray.search.sampling.members import EnsembleMembers
from carray.search.study_space import resolve_space

BEST = 3  # trials that go on whatever an ensemble makes of them


def asks_for_more_epochs(
    stored: StudyRecord, state: str, request: StudyRequest, manifest: Manifest, runs: RunsFolder
) -> bool:
    """Say whether a request differs from the stored study in more `--max-epochs` alone.

    Raises:
        RecordError: it does, and the study, whose `state` is told, isn't complete.
    """
    epochs = request.max_epochs
    if epochs is None or epochs <= stored.max_epochs:
        return False
    before, _ = resolve_space(replace(request, max_epochs=None), manifest, runs)
    known = before.hash, before.with_fixed({"epochs": stored.max_epochs}).hash
    if stored.space_hash not in known:
        return False
    if state != "complete":
        raise RecordError(
            f"study {stored.name!r} is {state}, and --max-epochs {epochs} goes on with one that is "
            f"complete: let it end first, with --max-epochs {stored.max_epochs}"
        )
    return True


def best_first(records: Sequence[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """Return a search's trials that have a value, the best first, complete ones before pruned."""
    ranked = [
        (record.state is TrialState.PRUNED, objective.key_of(record), record)
        for record in records
        if record.kind == "search" and record.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    ranked.sort(key=lambda row: row[:2])
    return [record for _, key, record in ranked if math.isfinite(key)]


def worth_continuing(
    study: StudyRecord, records: Sequence[TrialRecord], members: EnsembleMembers
) -> list[TrialRecord]:
    """Return the best complete trials of fewer epochs than the study has now, the best first.

    With them those that an ensemble of all such trials would take. None where no call has asked for
    more epochs than the study began with.
    """
    if study.extended_from is None:
        return []
    shorter = [
        record
        for record in records
        if record.kind == "search"
        and record.state is TrialState.COMPLETE
        and record.config.epochs < study.max_epochs
    ]
    shorter.sort(key=study.objective.key_of)
    wanted = {record.number for record in shorter[:BEST]}
    weights = members.weights(shorter)
    return [r for r in shorter if r.number in wanted or r.sampler_number in weights]


def continuation_text(refits: Sequence[TrialRecord]) -> str:
    """Say which trials go on to how many epochs, and which begin anew for want of a checkpoint."""
    epochs = refits[0].config.epochs
    count = counted(len(refits), "of the best trials goes", "of the best trials go")
    sentence = f"{count} on to {epochs} epochs"
    groups = (
        ("from their last checkpoints", [r for r in refits if r.continued_epochs]),
        ("anew, for they have no checkpoint", [r for r in refits if not r.continued_epochs]),
    )
    for how, group in groups:
        if group:
            sentence += f"; {', '.join(f'{record.refit_of:04d}' for record in group)} {how}"
    return sentence
