"""Records of which models have looked at a test split, and how many did."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import ClassVar

from carray.errors import counted
from carray.json_file import JsonFile
from carray.predictions.combination import SINGLE_TRIAL, Combination
from carray.records import StudyRecord
from carray.runs_folder import RunsFolder


class AccessRecord(JsonFile):
    """Which model looked at a test split, and when; looking again adds a time to its record."""

    broken: ClassVar[str] = "the opening {path} can't be read: {why}"
    model: str
    study: str
    manifest_hash: str
    fingerprint: str
    """Names members, weights, rule and views."""
    times: tuple[float, ...]
    """Unix times, seconds."""


def record_access(
    runs: RunsFolder,
    *,
    model: str,
    study: str,
    manifest_hash: str,
    trials: Sequence[str],
    combination: Combination,
) -> int:
    """Record that a model looks at the test split; return how many models ever did, this too.

    Args:
        runs: the runs folder, which holds the records.
        model: its name.
        study: the study of its trials.
        manifest_hash: names the data set.
        trials: names of the members, as in `STUDY/0007`; one for each weight.
        combination: how the members are combined.
    """
    what = fingerprint(trials, combination)
    file = runs.openings / f"{manifest_hash[:12] or 'unknown'}-{what}.json"
    before = AccessRecord.read(file).times if file.exists() else ()
    record = AccessRecord(
        model=model,
        study=study,
        manifest_hash=manifest_hash,
        fingerprint=what,
        times=(*before, time.time()),
    )
    record.write(file)
    runs.keep(file)
    return len(accesses(runs, manifest_hash))


def record_trial_accesses(runs: RunsFolder, study: StudyRecord, trials: Sequence[str]) -> int:
    """Record that trials of a study, each a model of its own, look at the test split.

    Returns:
        How many models ever did, these too.
    """
    models = 0
    for trial in trials:
        models = record_access(
            runs,
            model=trial,
            study=study.name,
            manifest_hash=study.manifest_hash,
            trials=[trial],
            combination=SINGLE_TRIAL,
        )
    return models


def fingerprint(trials: Sequence[str], combination: Combination) -> str:
    """Return 16 hex digits that name a model: its trials, their weights, rule and views.

    The temperature isn't part of it: it follows from the others.
    """
    more: list[object] = [combination.tta.label] if combination.tta else []
    if stack := combination.average.stack:
        more += [stack.scales, stack.offsets]
    what = [list(trials), combination.average.weights, combination.rule, *more]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def accesses(runs: RunsFolder, manifest_hash: str) -> list[AccessRecord]:
    """Return the records of one data set's test split, oldest first."""
    records = map(AccessRecord.read, sorted(runs.openings.glob("*.json")))
    found = [record for record in records if record.manifest_hash == manifest_hash]
    return sorted(found, key=lambda record: record.times[0])


def access_text(models: int) -> str:
    """Return the sentence that says how many models have looked at the test split."""
    return f"{counted(models, 'model has', 'models have')} looked at this test split"
