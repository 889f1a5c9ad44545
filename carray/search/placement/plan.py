"""The plan: how many lanes of what shape fit the cluster, worked out before the first trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from carray.errors import PlanError, counted
from carray.lanes.lane import CPU_HEADROOM, ranks_on

AUTO = "auto"  # GPUs a trial as `carray.search.placement.gpu_sharing` measures them
TRIAL_CPU = 0.01

Node = Mapping[str, float]  # resource name -> amount, as Ray counts it


@dataclass(frozen=True)
class Plan:
    """What a study takes: `lanes` worker groups of `workers` ranks each."""

    lanes: int
    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    nodes: int
    most: int = 0
    """Lanes that are asked for, though nodes may have to join first; 0: all that ever fit."""
    shares_cpus: bool = False
    """Whether a rank computes with its share of its node's CPUs, where that is more."""

    @property
    def total_cpus(self) -> float:
        """CPUs that all lanes hold."""
        return self.lanes * self.workers * self.cpus_per_worker

    @property
    def total_gpus(self) -> float:
        """GPUs that all lanes hold."""
        return self.lanes * self.workers * self.gpus_per_worker

    def widened(self, trials: int) -> Plan:
        """Return a plan for `trials` long trials: lanes joined where there are more than those."""
        lanes = max(1, min(self.lanes, trials))
        if self.gpus_per_worker not in (0.0, 1.0):  # ranks that share a GPU can't be joined
            return replace(self, lanes=lanes)
        return replace(self, lanes=lanes, workers=self.workers * (self.lanes // lanes))

    def fit(self, nodes: Sequence[Node]) -> int:
        """Return how many such lanes nodes hold, with room left for what is small."""
        cpus, gpus = self.cpus_per_worker, self.gpus_per_worker
        rooms = ({**node, "CPU": max(0.0, node.get("CPU", 0) - CPU_HEADROOM)} for node in nodes)
        return sum(ranks_on(room, cpus, gpus) for room in rooms) // self.workers

    def bundles(self, lanes: int) -> list[dict[str, float]]:
        """Return what Ray's autoscaler is asked for, a bundle a rank."""
        each = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker}
        return [{k: v for k, v in each.items() if v} for _ in range(lanes * self.workers)]

    def serves(self, other: Plan) -> bool:
        """Say whether these lanes are such as `other` asks for, and as many at least."""
        return self.lanes >= other.lanes and (
            replace(self, lanes=other.lanes, most=other.most) == other
        )

    def lanes_text(self) -> str:
        """Say how many lanes of how many ranks."""
        return f"{counted(self.lanes, 'lane')} of {self._ranks_text()}"

    def lines(self, trials: int, max_epochs: int) -> list[str]:
        """Say the plan as a person reads it, at most 100 columns."""
        each = f"{self.cpus_per_worker:g} CPU"
        if self.gpus_per_worker:
            each += f" and {self.gpus_per_worker:g} GPU"
        total = f"{self.total_cpus:g} CPU"
        if self.total_gpus:
            total += f", {self.total_gpus:g} GPU"
        return [
            f"{counted(trials, 'trial')} of at most {counted(max_epochs, 'epoch')}, "
            f"{self._at_once_text(trials)} on lanes of {self._ranks_text()}, {each} a rank",
            f"in all {total} on {counted(self.nodes, 'node')}, held from the start to the end",
        ]

    def _at_once_text(self, trials: int) -> str:
        wanted = min(self.most, trials)
        return f"{self.lanes} at a time" + f" (of {wanted} wanted)" * (wanted > self.lanes)

    def _ranks_text(self) -> str:
        return counted(self.workers, "rank", "ranks (DDP)")


def make_plan(
    nodes: Sequence[Node],
    *,
    trials: int,
    workers: int = 1,
    gpus_per_trial: float | None = None,
    cpus_per_worker: float | None = None,
    concurrent: int | None = None,
    min_lanes: int | None = None,
) -> Plan:
    """Fit lanes to the cluster's nodes.

    Args:
        nodes: each node's resources in all.
        trials: trials still to run; no more lanes are planned than those.
        workers: DDP ranks a trial.
        gpus_per_trial: None takes one for each rank where the cluster has GPUs, else 0.
        cpus_per_worker: None shares a node's CPUs among the ranks that it holds.
        concurrent: trials at once; None takes what fits.
        min_lanes: what is there may be less than `concurrent`, and even nothing yet.

    Raises:
        PlanError: not one trial fits, or not as many as asked for; with the numbers.
    """
    have_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    check_counts(workers, concurrent, min_lanes)
    gpus = float(have_gpus) if gpus_per_trial is None else gpus_per_trial / workers
    _check_gpus(workers, gpus)
    smallest_cpus = cpus_per_worker or 1.0
    ranks_by_node = [ranks_on(node, smallest_cpus, gpus) for node in nodes]
    fit = sum(ranks_by_node) // workers
    if fit < 1 and (min_lanes is None or cpus_per_worker is None or gpus_per_trial is None):
        problem = _does_not_fit(nodes, workers, smallest_cpus, gpus)
        cure = "; to wait for nodes give both --gpus-per-trial and --cpus-per-worker"
        raise PlanError(problem + cure * (min_lanes is not None))
    if concurrent is not None and concurrent > fit and min_lanes is None:
        raise PlanError(
            f"{concurrent} trials at once don't fit, at most {fit} of {counted(workers, 'rank')}: "
            f"use --lanes {fit} or less"
        )
    lanes = min(concurrent or fit, max(trials, 1), fit)
    most = min(max(concurrent or 0, min_lanes or 0), max(trials, 1))
    most = max(most, lanes) if most else 0
    cpus = cpus_per_worker or _share(nodes, ranks_by_node, lanes * workers, gpus)
    plan = Plan(lanes, workers, cpus, gpus, sum(count > 0 for count in ranks_by_node), most)
    if min_lanes is not None:  # fewer will do, so what is small keeps its room
        plan = replace(plan, lanes=min(lanes, plan.fit(nodes)))
    plan = replace(plan, shares_cpus=cpus_per_worker is None)
    _check_room_for_trials(plan, sum(node.get("CPU", 0) for node in nodes))
    return plan


def _check_room_for_trials(plan: Plan, cpus: float) -> None:
    """Refuse lanes that hold every CPU: a trial's own small process would wait for ever."""
    if cpus - plan.total_cpus < plan.lanes * TRIAL_CPU:
        ranks = plan.lanes * plan.workers
        most = math.floor(100 * (cpus - CPU_HEADROOM) / ranks) / 100
        raise PlanError(
            f"--cpus-per-worker {plan.cpus_per_worker:g} gives {counted(ranks, 'rank')} all of the "
            f"cluster's {cpus:g} CPU, and each trial needs {TRIAL_CPU:g} besides; use {most:g} or "
            "less, or a smaller --concurrent"
        )


def gpus_asked(text: str | None) -> float | str | None:
    """Read `--gpus-per-trial`: a number or `auto`; None where nothing was asked.

    Raises:
        PlanError: it is neither.
    """
    if text is None or text == AUTO:
        return text
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"--gpus-per-trial {text!r} must be a number of GPUs, or auto") from None


def check_counts(workers: int, concurrent: int | None, min_lanes: int | None = None) -> None:
    """Refuse trials without a rank, or none at once, or more at the start than ever.

    Raises:
        PlanError: they are.
    """
    if workers < 1:
        raise PlanError(f"--workers-per-trial {workers} must be at least 1")
    if concurrent is not None and concurrent < 1:
        raise PlanError(f"--lanes {concurrent} must be at least 1")
    if min_lanes is not None and not 1 <= min_lanes <= (concurrent or min_lanes):
        most = f" and at most --lanes {concurrent}" if concurrent else ""
        raise PlanError(f"--min-lanes {min_lanes} must be at least 1{most}")


def _check_gpus(workers: int, each: float) -> None:
    if 0 < each < 1 and workers > 1:
        raise PlanError(
            f"{workers} ranks of one trial can't share a GPU ({each:g} each): NCCL refuses it; "
            f"use --workers-per-trial 1, or --gpus-per-trial {workers}"
        )
    if each < 0 or (each > 1 and each != int(each)):
        raise PlanError(
            f"--gpus-per-trial gives {each:g} GPU a rank; it must be a share of one, or whole ones"
        )


def _share(nodes: Sequence[Node], ranks_by_node: Sequence[int], ranks: int, gpus: float) -> float:
    """Share CPUs among ranks so that the fullest node still has headroom for thin trials.

    Without GPUs a node takes one rank more than its share where ranks don't divide evenly.
    """
    total = sum(ranks_by_node)
    shares = []
    for node, most in zip(nodes, ranks_by_node, strict=True):
        if most:
            here = most if gpus else math.ceil(ranks * most / total)
            shares.append((node["CPU"] - CPU_HEADROOM) / max(here, 1))
    share = min(shares)
    return float(math.floor(share)) if share >= 1 else math.floor(share * 100) / 100


def _does_not_fit(nodes: Sequence[Node], workers: int, cpus: float, gpus: float) -> str:
    totals = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    need = f"{workers} x {cpus:g} CPU" + (f" and {workers} x {gpus:g} GPU" if gpus else "")
    return (
        f"one trial asks for {need}, but the cluster has {totals['CPU']:g} CPU and "
        f"{totals['GPU']:g} GPU on {counted(len(nodes), 'node')}; lower "
        "--workers-per-trial, --gpus-per-trial or --cpus-per-worker, or join a larger cluster"
    )
