"""What a report costs the driver: python tests/benchmarks/bench_driver.py [--concurrent 100]

A study of trials that don't train, so that all that is left is the driver's work: our searcher,
ledger, records, board, gauges and MLflow, against the same Tune run with Tune's own Optuna searcher
and no tracking. Both run trials of the same weight (a class trainable that imports no torch, actors
reused) whose epochs last as long, and nothing is stopped early. In both the trials share one
process, as a study's do, so that a hundred of them come up on a small machine. Counted are reports
after the last trial's first; the tracking's own tail, after the last report, counts as well.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import psutil
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from standin import standin_lanes, study

from carray.config import build_config
from carray.lanes.messages import LaneOrder
from carray.metrics import VAL_LOG_LOSS
from carray.search.placement.ray_cluster import connected
from carray.search.scheduling.schedulers import build_scheduler
from carray.search.scheduling.trainable import EPOCH
from carray.search.scheduling.trial_host import hosted_trials
from carray.search.scheduling.tune_run import PENDING, LedgerCallback, run_search
from carray.tracking.subprocess_tracker import ENTRY
from carray.training.epoch_order import EpochOrder

Clocks = tuple[float, float, float, int]  # CPU s, wall s, CPU s of the tracking, reports


@dataclass
class Watch:
    """The driver's clocks at three moments.

    When every trial has reported, when the first is about to end, and when all is over.
    """

    concurrent: int
    epochs: int
    reports: int = 0
    started: set[str] = field(default_factory=set)
    begin: Clocks | None = None
    turn: Clocks | None = None

    def see(self, trial_id: str, epoch: int) -> None:
        if self.turn is None and epoch == self.epochs:
            self.turn = self._clocks()
        self.reports += 1
        self.started.add(trial_id)
        if self.begin is None and len(self.started) >= self.concurrent:
            self.begin = self._clocks()

    def costs(self) -> tuple[list[float], list[float]]:
        """Return [CPU ms, wall ms, tracking's CPU ms, reports], while all run and to the end."""
        assert self.begin and self.turn, "not every trial has reported; ask for more epochs"
        return self._between(self.begin, self.turn), self._between(self.begin, self._clocks())

    def _between(self, first: Clocks, last: Clocks) -> list[float]:
        reports = last[3] - first[3]
        return [1000 * (last[i] - first[i]) / reports for i in range(3)] + [reports]

    def _clocks(self) -> Clocks:
        beside = os.times().children_user + os.times().children_system
        for each in psutil.Process().children():
            if ENTRY in each.cmdline():
                spent = each.cpu_times()
                beside += spent.user + spent.system
        return time.process_time(), time.perf_counter(), beside, self.reports


class Counted(LedgerCallback):
    """Our callback, with a watch on it."""

    def __init__(self, driver: Any, watch: Watch) -> None:
        super().__init__(driver)
        self._watch = watch

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        super().on_trial_result(iteration, trials, trial, result, **info)
        self._watch.see(trial.trial_id, result[EPOCH])


class CountedOnly(tune.Callback):  # type: ignore[misc]
    """A watch and nothing else."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        self._watch.see(trial.trial_id, result[EPOCH])


class PlainTrial(tune.Trainable):  # type: ignore[misc]
    """The same epochs without carray's records."""

    def setup(self, config: dict[str, Any], mailbox: Any, epochs: int) -> None:
        self._mailbox, self._epochs = mailbox, epochs
        self.reset_config(config)

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        job = self._job.model_copy(update={"epoch": self._epoch})
        answer = self._mailbox.call(LaneOrder("epoch", job))
        if is_done := self._epoch >= self._epochs:
            self._mailbox.leave(job.trial)
        return {EPOCH: self._epoch, **answer.outcome.metrics, "done": is_done}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {EPOCH: self._epoch}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epoch, config = 0, build_config(new_config)
        self._job = EpochOrder(trial=uuid.uuid4().hex, folder=".", data=".", config=config, epoch=1)
        return True


@dataclass(frozen=True)
class Load:
    """How many trials of how many epochs, how many at once, and how long an epoch lasts."""

    trials: int
    epochs: int
    concurrent: int
    epoch_seconds: float


def scheduler_of(load: Load) -> Any:
    return build_scheduler(
        "none", metric=VAL_LOG_LOSS, direction="minimize", max_epochs=load.epochs
    )


def ours(folder: Path, load: Load) -> tuple[list[float], list[float]]:
    watch = Watch(load.concurrent, load.epochs)
    name = "carray.search.scheduling.tune_run.LedgerCallback"
    with (
        patch(name, lambda driver: Counted(driver, watch)),
        study(
            folder,
            load.trials,
            load.epochs,
            load.concurrent,
            load.epoch_seconds,
            sampler="tpe-univariate",  # as of the plain one below
        ) as opened,
    ):
        run_search(opened[0], scheduler_of(load), None, folder / "tune")
    return watch.costs()


def plain(folder: Path, load: Load) -> tuple[list[float], list[float]]:
    watch = Watch(load.concurrent, load.epochs)
    lanes = standin_lanes(load.concurrent, load.epoch_seconds)
    lanes.start()
    space = {
        "optimizer.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "optimizer.weight_decay": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "augment.strength": optuna.distributions.FloatDistribution(0.0, 1.0),
        "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
    }

    searcher = OptunaSearch(
        space,
        metric=VAL_LOG_LOSS,
        mode="min",
        sampler=optuna.samplers.TPESampler(seed=0, multivariate=False, constant_liar=True),
    )
    trainable = tune.with_parameters(PlainTrial, mailbox=lanes.mailbox, epochs=load.epochs)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=load.concurrent),
            scheduler=scheduler_of(load),
            num_samples=load.trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="plain", storage_path=str(folder), callbacks=[CountedOnly(watch)], verbose=0
        ),
    )
    with hosted_trials(trainable):
        tuner.fit()
    lanes.stop()
    return watch.costs()


def row(name: str, *costs: list[float]) -> str:
    cells = [f"{c:8.2f} {w:8.1f} {t:11.2f} {r:8.0f}" for c, w, t, r in costs]
    return f"{name:7s}" + "  ".join(cells)


def ratios(ours: tuple[list[float], ...], plain: tuple[list[float], ...]) -> str:
    cells = [f"x{a[0] / b[0]:7.2f} x{a[1] / b[1]:7.2f}" for a, b in zip(ours, plain, strict=True)]
    return f"ratio  {cells[0]}{'':22s}{cells[1]}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concurrent", type=int, default=100)
    parser.add_argument("--trials", type=int, default=0, help="as many as at once, where not given")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--epoch-seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=("ours", "plain"))
    given = parser.parse_args()
    load = Load(
        given.trials or given.concurrent, given.epochs, given.concurrent, given.epoch_seconds
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ[PENDING] = str(given.concurrent)  # as the study's driver has it
    sides = {"plain": plain, "ours": ours}
    print(
        f"{load.trials} trials of up to {load.epochs} epochs of {load.epoch_seconds} s, "
        f"{load.concurrent} at once"
    )
    print("       while all run, a report:               starts and ends as well:")
    print("         CPU ms  wall ms  tracking's  reports    CPU ms  wall ms  tracking's  reports")
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        for number in range(given.rounds):
            told = {}
            for name, side in sides.items():
                if given.only in (None, name):
                    aside = Path(folder) / f"{name}-{number}"
                    aside.mkdir()
                    told[name] = side(aside, load)
                    print(row(name, *told[name]), flush=True)
            if len(told) == 2:
                print(ratios(told["ours"], told["plain"]), flush=True)


if __name__ == "__main__":
    main()
