"""Whether a search beats seeds of a known recipe: bench_search_or_seeds.py DATA SPACE [--trials N].

Three studies that cost as many trainings over one prepared data set: `search`, carray's defaults
and refits, each of which counts for two; `seeds`, the first known recipe of the space again and
again with other seeds; `random`, blind draws, never stopped. Of each the best three by val vote,
with a temperature fitted to val; the table has their log-loss and top-1 on test, the best single
trial's, and the difference to `seeds`, paired by image.
A study that is there already is gone on with, so the same command repeats the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import carray
from carray.api import Study
from carray.cli.shared import parse_sets
from carray.data.manifest import Manifest
from carray.predictions.averaging import average_log_p
from carray.predictions.candidates import candidate_of
from carray.predictions.logits import SplitPredictions, log_softmax
from carray.predictions.scores import TEMPERATURES, log_losses, temperature_losses
from carray.predictions.statistics import bootstrap_means, interval
from carray.predictions.test_access import record_trial_accesses
from carray.records import TrialRecord, TrialState
from carray.search.request import REFIT_LENGTH
from carray.search.space.loading import load_space
from carray.search.space.space import BLOCK
from carray.search.warm_start.known_recipes import recipe_points
from carray.typing import Float32s

MEMBERS = 3


@dataclass(frozen=True)
class Result:
    """What one study reached on test: log-losses of each image, and shares right."""

    single: Float32s
    ensemble: Float32s
    single_top1: float
    ensemble_top1: float
    epochs: int
    minutes: float


def result_of(study: Study) -> Result:
    """Read what a study's best trials say of test; the look is recorded."""
    record = study.record
    usable = [t for t in study.trials if _has_logits(study, t)]
    longer = {t.refit_of for t in usable if t.kind == "refit"}
    usable = [t for t in usable if t.kind == "refit" or t.number not in longer]
    best = sorted(usable, key=lambda t: (_is_stopped(t), record.objective.key_of(t)))[:MEMBERS]
    record_trial_accesses(study.runs, record, [trial.name for trial in best])
    losses, shares = [], []
    for members in (best[:1], best):
        log_p, labels = _voted(study, members, "val"), study.folder.labels("val")
        chosen = TEMPERATURES[temperature_losses(log_p, labels).sum(axis=0).argmin()]
        test, own = _voted(study, members, "test"), study.folder.labels("test")
        losses.append(log_losses(log_softmax(test / np.float32(chosen)), own))
        shares.append(float((test.argmax(axis=1) == own).mean()))
    epochs = sum(len(trial.epochs) for trial in study.trials)
    minutes = sum(trial.trained_seconds for trial in study.trials) / 60
    return Result(*losses, *shares, epochs, minutes)


def _has_logits(study: Study, trial: TrialRecord) -> bool:
    return study.folder.trial(trial.number).logits_file.exists()


def _is_stopped(trial: TrialRecord) -> bool:
    return trial.state is not TrialState.COMPLETE


def _voted(study: Study, members: Sequence[TrialRecord], split: str) -> Float32s:
    candidates = [candidate_of(study.folder, member) for member in members]
    read = SplitPredictions(candidates, split, study.folder.labels(split))
    log_ps = [read.log_p(member) for member in range(len(members))]
    return average_log_p(log_ps, [1 / len(log_ps)] * len(log_ps), "probability")


def write_seeds_space(data: Path, space: str, sets: dict[str, Any], folder: Path) -> Path:
    """Write a space that has the first known recipe of `space` and draws seeds alone."""
    import yaml

    read = load_space(space).with_fixed(sets)
    images = len(Manifest.load(data).rows("train"))
    point = read.dotted(recipe_points(read, images)[0][0])
    branch = dict(read.branches())[point.pop(BLOCK, None)]
    config = replace(read, images=images).completed({**branch.fixed, **point})
    fixed = {**branch.fixed, **point, "backbone": config.backbone}
    content = {
        "version": 1,
        "metric": read.metric,
        "fixed": fixed,
        "search": {"seed": {"int": [0, 10**6]}},
    }
    file = folder / f"seeds-{Path(space).stem}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return file


def lines_of(results: dict[str, Result]) -> list[str]:
    """Return the table."""
    head = (
        f"{'study':<10}{'epochs':>8}{'minutes':>9}{'single':>9}{'top-1':>8}{'three':>9}{'top-1':>8}"
    )
    lines = [head + "   three less seeds'"]
    for name, found in results.items():
        gain = found.ensemble - results["seeds"].ensemble
        between = interval(float(gain.mean()), bootstrap_means(gain[:, None])[:, 0])
        lines.append(
            f"{name:<10}{found.epochs:>8}{found.minutes:>9.1f}{found.single.mean():>9.3f}"
            f"{found.single_top1:>8.3f}{found.ensemble.mean():>9.3f}{found.ensemble_top1:>8.3f}"
            f"   {between.value:+.3f} [{between.low:+.3f}, {between.high:+.3f}]"
        )
    return lines


def main() -> None:
    """Run what is missing of the studies; print a table for each seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("space")
    parser.add_argument("--trials", type=int, nargs="+", default=[15], help="Trainings.")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    sets = parse_sets(given.sets)
    common: dict[str, Any] = {"runs": given.runs, "weights": given.weights, "pictures": False}
    seeds_space = write_seeds_space(given.data, given.space, sets, given.runs)
    kinds: dict[str, dict[str, Any]] = {
        "search": {"space": given.space, "overrides": sets},
        "seeds": {"space": str(seeds_space), "sampler": "random", "scheduler": "none"},
        "random": {
            "space": given.space,
            "overrides": sets,
            "sampler": "random",
            "scheduler": "none",
        },
    }
    for trials in given.trials:
        for seed in given.seeds:
            results = {}
            for kind, options in kinds.items():
                name = f"{kind}-{given.data.resolve().name}-{seed}-{trials}"
                asked = {**common, **options, "name": name, "trials": trials, "seed": seed}
                if kind == "search":
                    refits = min(MEMBERS, trials // 5)
                    asked |= {"refit": refits, "trials": trials - REFIT_LENGTH * refits}
                results[kind] = result_of(carray.tune(given.data, **asked))
            print("\n".join([f"{trials} trials, seed {seed}", *lines_of(results)]), flush=True)


if __name__ == "__main__":
    main()
