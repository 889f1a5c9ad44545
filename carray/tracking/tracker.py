"""The interface of trackers, and what each of them shows of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from carray import metrics
from carray.config import flatten
from carray.costs import Cost
from carray.records import StudyRecord, TrialFolder, TrialRecord


class Tracker(Protocol):
    """Where a study shows its trials while it runs; written by one process, the study's driver.

    No call but `study_started` and `close` waits for a server. Telling the same thing twice changes
    nothing, so a resumed study tells what it knows again and makes no second run.
    """

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Begin or find the study's run; `files` go up beside it.

        Raises:
            TrackingError: the server doesn't answer or refuses.
        """

    def trial_started(self, record: TrialRecord) -> None:
        """Begin or find the trial's run, with what was drawn for it."""

    def epoch_ended(self, record: TrialRecord) -> None:
        """Tell every epoch of `record` that isn't told yet."""

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Tell how the trial ended; its record and logits go up."""

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Tell how the study ended; `files` go up beside it."""

    def close(self) -> None:
        """Wait until everything is told, at most about a minute."""


@dataclass(frozen=True)
class TrialRun:
    """What one trial shows beside its curves and files: its name, its tags, what was drawn."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


def run_of(record: TrialRecord) -> TrialRun:
    """Return what `record` shows.

    The whole configuration is params, so that a trial and its refit differ in them; the tag
    `carray.drawn` names those that were drawn.
    """
    drawn = {name: param_text(value) for name, value in dotted(record.params).items()}
    whole = {name: param_text(value) for name, value in flatten(record.config).items()}
    tags = {
        "carray.study": record.study,
        "carray.trial": f"{record.number:04d}",
        "carray.kind": record.kind,
        "carray.state": str(record.state),
        "carray.backbone": record.config.backbone,
        "carray.git_commit": record.git_commit,
        "carray.manifest_hash": record.manifest_hash,
        "carray.reason": record.reason[:500],
        "carray.refit_of": "" if record.refit_of is None else f"{record.refit_of:04d}",
        "carray.drawn": ", ".join(drawn),
    }
    return TrialRun(
        name=run_name(record),
        tags={name: value for name, value in tags.items() if value},
        params={**whole, **drawn},
    )


def run_name(record: TrialRecord) -> str:
    """Return `0007 resnet18`; a refit and a trial on a fold say what they are."""
    name = f"{record.number:04d} {record.config.backbone}"
    if record.refit_of is not None:
        return f"{name}, refit of {record.refit_of:04d}"
    return name if record.config.fold is None else f"{name}, fold {record.config.fold}"


def dotted(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was drawn for a trial; a block's own names lose its alias.

    `vit.optimizer.lr` and `resnet.optimizer.lr` are one axis when runs are compared.
    """
    alias = f"{params.get('backbone_block')}."
    return {name.removeprefix(alias): value for name, value in params.items()}


def drawn_params(record: TrialRecord) -> dict[str, Any]:
    """Return what was drawn for a trial beside its backbone, by dotted names."""
    found = dotted(record.params)
    return {n: v for n, v in found.items() if n not in ("backbone", "backbone_block")}


def param_text(value: Any) -> str:
    """Say a drawn value so that a parallel-coordinates plot sorts it: floats to six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def curve_row(record: TrialRecord, epoch: int) -> dict[str, float]:
    """Return the metrics of 1-based `epoch`, with `best/*`, the best epoch's values until then.

    A run table shows the last value of a curve, so it shows the best so. That of the metric that
    chooses epochs comes first, since MLflow's comparison begins with it.
    """
    rows, chosen_by = record.epochs[:epoch], record.config.best_metric
    best = metrics.best_epoch(rows, chosen_by)
    if best is None:
        return dict(rows[-1])
    held = {name: value for name, value in rows[best - 1].items() if name in metrics.OBJECTIVES}
    first = {f"best/{name}": held[name] for name in (chosen_by, *held) if name in held}
    return {**first, "best/epoch": best, **rows[-1]}


def cost_metrics(cost: Cost | None) -> dict[str, float]:
    """Return a cost as metrics: seconds of GPUs, or of CPUs, energy and money."""
    if cost is None:
        return {}
    is_gpu = cost.gpu_seconds > 0
    found = {f"cost/{'gpu' if is_gpu else 'cpu'}_seconds": cost.gpu_seconds or cost.cpu_seconds}
    if cost.energy_kwh:
        found["cost/energy_kwh"] = cost.energy_kwh
    return found | ({f"cost/{cost.currency}": cost.money} if cost.currency else {})


def end_metrics(record: TrialRecord) -> dict[str, float]:
    """Return what is known of a trial once it has ended: its cost, and its network's."""
    network = {f"network/{name}": value for name, value in record.network_cost.items()}
    return cost_metrics(record.cost) | network
