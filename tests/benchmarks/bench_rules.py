"""Which rule makes the best ensemble: bench_rules.py STUDY... [--runs DIR].

Trials are drawn from recorded studies of one data set, as a smaller search would have had them, and
every rule of `carray ensemble` is fitted and judged as that command does, on each split that there
is for it. The table has the log-loss on test, the mean of all draws, of the rule that the command
chooses, of the one that scored best, and of each.
"""

from __future__ import annotations

import argparse

import numpy as np

import carray
from carray import metrics
from carray.ensemble.cross_fit import RuleScore, best_rule, first_by_score, score_rule
from carray.ensemble.selection import RULES, WIDE, all_rules
from carray.predictions.candidates import Candidate, best_first, read_trials
from carray.predictions.logits import SplitPredictions
from carray.predictions.scores import log_losses, make_folds
from carray.predictions.test_access import record_trial_accesses
from carray.records import StudyFolder
from carray.runs_folder import RunsFolder

TOP = 3
METRIC = metrics.VAL_CALIBRATED_LOG_LOSS


def found_in(names: list[str], runs: str) -> tuple[StudyFolder, list[Candidate]]:
    """Return the first study's folder and all complete trials, the best first; test is opened."""
    found: list[Candidate] = []
    folders = [carray.load_study(name, runs=runs).folder for name in names]
    for folder in folders:
        kept = [trial for trial in read_trials(folder, METRIC) if trial.is_complete]
        kept = [trial for trial in kept if trial.folder.logits_file.exists()]
        known = [trial.record.name for trial in kept]
        record_trial_accesses(RunsFolder.at(runs), folder.record(), known)
        found += kept
    return folders[0], best_first(found, METRIC)


def losses_of(
    folder: StudyFolder, trials: list[Candidate], split: str
) -> tuple[list[RuleScore], list[float]]:
    """Return how each rule is judged on `split`, and its log-loss on test."""
    held = {name: folder.labels(name) for name in ("val", split, "test")}
    seen = {name: SplitPredictions(trials, name, labels) for name, labels in held.items()}
    first, more = (tuple(range(min(count, len(trials)))) for count in (TOP, WIDE * TOP))
    folds = make_folds(held[split], 0)
    beside = seen["val"] if split != "val" else None
    rules = all_rules(first, more, tuple(range(len(trials))))
    scores = [score_rule(rule, seen[split], folds, METRIC, beside) for rule in rules]
    log_ps = [score.blend.log_p(seen["test"]) for score in scores]
    return scores, [float(log_losses(each, held["test"]).mean()) for each in log_ps]


def main() -> None:
    """Print a table for each split that can judge rules."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--draws", type=int, default=40)
    given = parser.parse_args()
    folder, pool = found_in(given.studies, given.runs)
    for split in ("val", "blend"):
        if not len(folder.labels(split)):
            continue
        print(f"\n{len(folder.labels(split))} images of {split}, {len(pool)} trials")
        heads = [rule.removesuffix(" selection") for rule in RULES]
        print("drawn" + "".join(f"{head:>16}" for head in ("chosen", "best score", *heads)))
        for size in given.sizes:
            rng, rows = np.random.default_rng(size), []
            for _ in range(given.draws):
                picked = np.sort(rng.choice(len(pool), min(size, len(pool)), replace=False))
                scores, losses = losses_of(folder, [pool[each] for each in picked], split)
                on_test = dict(zip(RULES, losses, strict=True))
                ways = best_rule(scores, METRIC, 0), first_by_score(scores, METRIC)
                rows.append([*(on_test[way.rule] for way in ways), *losses])
            print(
                f"{size:<5}" + "".join(f"{each:>16.3f}" for each in np.mean(rows, axis=0)),
                flush=True,
            )


if __name__ == "__main__":
    main()
