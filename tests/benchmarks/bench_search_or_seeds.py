"""Whether a search beats seeds of a known recipe: bench_search_or_seeds.py DATA SPACE [--trials N].

Studies that cost as many trainings over one prepared data set: `search`, carray's defaults and
refits within as large a budget; `seeds`, the first known recipe of the space again and again
with other seeds; `random`, blind draws, never stopped. Of each the best three by val vote, with a
temperature fitted to val; beside them stand the greedy ensemble of all by val, and what
`carray ensemble` chooses. The table has their log-loss and top-1 on test, the best single trial's,
and the differences to `seeds`, paired by image. Fewer seeds and draws are the first of the most
that are asked for; a search knows how many trials it has, so each is a study of its own. A study
that is there already is gone on with, so the same command repeats the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import carray
from carray.api import Study
from carray.cli.shared import parse_sets
from carray.data.manifest import Manifest
from carray.ensemble.cross_fit import best_rule, score_rule
from carray.ensemble.selection import WIDE, Greedy, Rule, SoftVote, all_rules
from carray.predictions.averaging import WeightedAverage
from carray.predictions.candidates import candidate_of
from carray.predictions.logits import SplitPredictions
from carray.predictions.scores import TEMPERATURES, log_losses, make_folds, temperature_losses
from carray.predictions.statistics import bootstrap_means, interval
from carray.predictions.test_access import record_trial_accesses
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.search.extension import best_first
from carray.search.request import BUDGET_REFITS, StudyRequest
from carray.search.scheduling.refits import (
    enough_refits,
    refit_lengths,
    refit_rounds,
    shorter_lengths,
    wanted_refits,
)
from carray.search.space.loading import load_space
from carray.search.space.space import BLOCK, SearchSpace
from carray.search.warm_start.known_recipes import recipe_points, refit_config
from carray.training.train import train
from carray.typing import Float32s

MEMBERS = 3
WITHIN = StudyRequest(data="", budget="1h")  # any budget: that of a benchmark is in trainings

Member = tuple[StudyFolder, TrialRecord]


@dataclass(frozen=True)
class Result:
    """What a study reached on test: log-losses of each image, and shares right, by what voted."""

    losses: dict[str, Float32s]
    top1: dict[str, float]
    epochs: int
    minutes: float


def result_of(study: Study, first: int, refits: Sequence[Study] = ()) -> Result:
    """Read what a study's first trials and its refits say of test; the look is recorded."""
    record = study.record
    again = [(refit.folder, refit.trials[0]) for refit in refits]
    pool = [(study.folder, trial) for trial in study.trials if trial.number < first]
    epochs = sum(len(trial.epochs) for _, trial in [*pool, *again])
    minutes = sum(trial.trained_seconds for _, trial in [*pool, *again]) / 60
    pool = [(folder, t) for folder, t in pool if folder.trial(t.number).logits_file.exists()]
    pool = again + [each for each in pool if not _is_superseded(each[1], again)]
    best = sorted(pool, key=lambda one: (_is_stopped(one[1]), record.objective.key_of(one[1])))
    for folder, trial in pool:
        record_trial_accesses(study.runs, folder.record(), [trial.name])
    val, test = (_predictions(study, best, split) for split in ("val", "test"))
    everyone = tuple(range(len(best)))
    rules: dict[str, Rule] = {
        "single": SoftVote(everyone[:1]),
        "three": SoftVote(everyone[:MEMBERS]),
        "greedy": Greedy(everyone),
    }
    averages = {name: _tempered(rule.fit(val), val) for name, rule in rules.items()}
    averages["ensemble"] = _chosen(study, best)
    log_ps, labels = {name: each.log_p(test) for name, each in averages.items()}, test.labels
    return Result(
        {name: log_losses(log_p, labels) for name, log_p in log_ps.items()},
        {name: float((log_p.argmax(axis=1) == labels).mean()) for name, log_p in log_ps.items()},
        epochs,
        minutes,
    )


def _tempered(average: WeightedAverage, val: SplitPredictions) -> WeightedAverage:
    sums = temperature_losses(average.log_p(val), val.labels).sum(axis=0)
    return average.with_temperature(TEMPERATURES[sums.argmin()])


def _chosen(study: Study, best: Sequence[Member]) -> WeightedAverage:
    """Return what `carray ensemble` would, judged where it judges."""
    split = "blend" if len(study.folder.labels("blend")) else "val"
    seen, metric = _predictions(study, best, split), study.record.metric
    beside = seen.beside(study.folder.labels("val"))
    everyone = tuple(range(len(best)))
    complete = sum(not _is_stopped(trial) for _, trial in best)
    more = everyone[: max(MEMBERS, min(WIDE * MEMBERS, complete))]
    rules = all_rules(everyone[:MEMBERS], more, everyone)
    folds = make_folds(seen.labels, 0)
    scores = [score_rule(rule, seen, folds, metric, beside) for rule in rules]
    return best_rule(scores, metric, 0).blend


def _is_superseded(trial: TrialRecord, again: Sequence[Member]) -> bool:
    """Say whether a trial's own seed was trained again."""
    own = {"epochs": trial.config.epochs, "loss": trial.config.loss}
    return any(refit.config.model_copy(update=own) == trial.config for _, refit in again)


def _is_stopped(trial: TrialRecord) -> bool:
    return trial.state is not TrialState.COMPLETE


def _predictions(study: Study, members: Sequence[Member], split: str) -> SplitPredictions:
    candidates = [candidate_of(folder, trial) for folder, trial in members]
    return SplitPredictions(candidates, split, study.folder.labels(split))


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
    voted = tuple(results["seeds"].losses)
    head = f"{'study':<8}{'epochs':>8}{'minutes':>9}"
    head += "".join(f"{name:>10}{'top-1':>8}" for name in voted)
    lines = [head + "".join(f"   {name + chr(32) + 'less seeds':<26}" for name in voted[1:])]
    for study, found in results.items():
        line = f"{study:<8}{found.epochs:>8}{found.minutes:>9.1f}"
        line += "".join(f"{found.losses[n].mean():>10.3f}{found.top1[n]:>8.3f}" for n in voted)
        for name in voted[1:]:
            gain = found.losses[name] - results["seeds"].losses[name]
            between = interval(float(gain.mean()), bootstrap_means(gain[:, None])[:, 0])
            line += f"   {between.value:+.3f} [{between.low:+.3f}, {between.high:+.3f}]  "
        lines.append(line.rstrip())
    return lines


def within_budget(trainings: int, epochs: int, space: SearchSpace) -> tuple[int, tuple[int, ...]]:
    """Return the trials that so many trainings have room for, and the epochs of each refit."""
    lengths = refit_lengths(WITHIN, epochs, space)
    shorter, enough = shorter_lengths(WITHIN, epochs), enough_refits(WITHIN, space)
    budget = trainings, BUDGET_REFITS, 1, shorter, enough

    def trainings_of(refit_epochs: int) -> float:
        return refit_epochs / epochs * (space.refit_pixels if refit_epochs > epochs else 1)

    longs = refit_rounds(lengths, trainings_of, *budget)
    return round(trainings - sum(map(trainings_of, longs))), longs


def refits_of(
    study: Study, data: Path, lengths: Sequence[int], weights: Path | None
) -> list[Study]:
    """Train again what a budget would have trained again, each as a study beside it."""
    ranked = best_first(study.trials, study.record.objective)
    space, names = load_space(study.folder.space_file), list[str]()
    for place, epochs in enumerate(lengths):
        refit = wanted_refits(WITHIN, ranked, epochs)[place]
        names.append(f"{study.record.name}-{refit.of.number}-{refit.seed}-{epochs}")
        if not study.runs.study(names[-1]).record_file.exists():
            config = refit_config(space, refit.of, refit.epochs, refit.seed)
            train(data, config, runs=study.runs.path, study=names[-1], weights=weights)
    return [carray.load_study(name, runs=study.runs.path) for name in names]


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
    parser.add_argument("--concurrent", type=int, default=1, help="Trials at once.")
    given = parser.parse_args()
    sets = parse_sets(given.sets)
    common: dict[str, Any] = {"runs": given.runs, "weights": given.weights, "pictures": False}
    common |= {"concurrent": given.concurrent, "cpus_per_worker": 1}
    seeds_space = write_seeds_space(given.data, given.space, sets, given.runs)
    blind = {"sampler": "random", "scheduler": "none", "trials": max(given.trials)}
    kinds: dict[str, dict[str, Any]] = {
        "search": {"space": given.space, "overrides": sets},
        "seeds": {"space": str(seeds_space), **blind},
        "random": {"space": given.space, "overrides": sets, **blind},
    }
    space = load_space(given.space).with_fixed(sets)
    epochs = int(str(space.shared.fixed["epochs"]))
    for seed in given.seeds:
        for trials in given.trials:
            results = {}
            drawn, lengths = within_budget(trials, epochs, space)
            for kind, options in kinds.items():
                asked = {**common, **options, "seed": seed}
                name = f"{kind}-{given.data.resolve().name}-{seed}"
                if kind == "search":
                    name += f"-{trials}"
                    study = carray.tune(given.data, name=name, trials=drawn, **asked)
                    again = refits_of(study, given.data, lengths, given.weights)
                    results[kind] = result_of(study, drawn, again)
                else:
                    results[kind] = result_of(carray.tune(given.data, name=name, **asked), trials)
            title = f"{given.data.resolve().name}, {trials} trainings, seed {seed}"
            print("\n".join([title, *lines_of(results)]), flush=True)


if __name__ == "__main__":
    main()
