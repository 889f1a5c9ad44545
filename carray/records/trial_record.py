"""`TrialRecord`: the JSON that a trial leaves."""

from __future__ import annotations

import math
import time
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, computed_field

from carray import metrics
from carray.config import Compute, Hardware, TrialConfig
from carray.costs import TIME_BUDGET, Cost, Held
from carray.json_file import JsonFile
from carray.masking import MaskedText
from carray.provenance import git_commit, versions_for

RECORD_VERSION = 1


class TrialState(StrEnum):
    """How a trial stands; only `running` is not an end."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    COLLAPSED = "collapsed"

    def is_finished(self) -> bool:
        """Say whether the trial has ended."""
        return self is not TrialState.RUNNING


class TrialRecord(JsonFile):
    """One trial: what was asked, what happened, what it left."""

    version: int = RECORD_VERSION
    cure: ClassVar[str] = "move its folder away, and the study goes on without that trial"
    study: str
    number: int
    kind: Literal["search", "refit", "fold", "single"] = "search"
    state: TrialState = TrialState.RUNNING
    reason: MaskedText = ""
    """Why it ended so: the stop's rule, the error's sentence."""
    params: dict[str, Any] = Field(default_factory=dict)
    """What was drawn for this trial, dotted names; the whole is in `config`."""
    config: TrialConfig
    epochs: tuple[dict[str, float], ...] = ()
    """One row a finished epoch, from the first; names of `carray.metrics`."""
    refit_of: int | None = None
    continued_epochs: int = 0
    """The first ones, taken over with their checkpoint from the trial that it is a refit of."""
    fold_of: int | None = None
    """The trial whose configuration this one trained on the fold `config.fold`."""
    soup_of: tuple[str, ...] = ()
    """The trials whose weights were averaged, as `STUDY/0007`; (): it was trained."""
    network_cost: dict[str, float] = Field(default_factory=dict)
    """Of the study's objectives, those of its network: `latency` in ms, `size` in MB."""
    sampler_number: int | None = None  # the trial's in Optuna's study
    is_given: bool = False
    """Whether its study was given it to try first, as a known recipe is; False before 0.2."""
    manifest_hash: str = ""
    initialisation: str = ""  # what the weights started from; soups need members that share it
    parameters: int | None = None  # how many the classifier has
    compute: Compute | None = None
    """How its steps were computed; None before the first epoch."""
    hardware: Hardware | None = None
    """What computed them; None before the first epoch, and in records of before 0.2."""
    held: Held | None = None
    """What its lane held; None where no lane trained it, or an older version."""
    started_at: float | None = None  # Unix time, seconds
    ended_at: float | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str = ""

    @classmethod
    def begin(
        cls, study: str, number: int, config: TrialConfig, manifest_hash: str, **fields: Any
    ) -> Self:
        """Return the record of a trial that begins now, by the code and packages at work."""
        now = {"started_at": time.time(), "git_commit": git_commit()}
        known = {"study": study, "number": number, "config": config, "manifest_hash": manifest_hash}
        return cls(**{**known, **now, "versions": versions_for(config), **fields})

    @property
    def name(self) -> str:
        """`STUDY/0007`, as the command line takes it."""
        return f"{self.study}/{self.number:04d}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost(self) -> Cost | None:
        """What its epochs cost; written for readers of the file."""
        joules, ranks = self._summed(metrics.ENERGY_JOULES), getattr(self.hardware, "ranks", 1)
        return self.held.cost(self.trained_seconds, joules, ranks) if self.held else None

    @property
    def refit_text(self) -> str:
        """Say of a refit what it is: trained anew, or gone on with; "" of any other trial."""
        if self.refit_of is None:
            return ""
        if self.continued_epochs:
            return f"trial {self.refit_of:04d}, continued after epoch {self.continued_epochs}"
        return f"a refit of trial {self.refit_of:04d}"

    @property
    def trained_seconds(self) -> float:
        """Seconds that its own epochs took."""
        return self._summed(metrics.EPOCH_SECONDS)

    def _summed(self, name: str) -> float:
        return sum(row.get(name, 0.0) for row in self.epochs[self.continued_epochs :])

    @property
    def can_be_continued(self) -> bool:
        """Say whether its training came to the end of its schedule, and to no other before."""
        is_whole = len(self.epochs) == self.config.epochs and not self.config.schedule.restart_after
        return self.kind == "search" and self.state is TrialState.COMPLETE and is_whole

    @property
    def stopped_by_budget(self) -> bool:
        """Say whether a budget stopped it, so that a later call goes on with it."""
        return self.state is TrialState.PRUNED and self.reason == TIME_BUDGET

    @property
    def keeps_checkpoint(self) -> bool:
        """Say whether its last checkpoint outlives its end: something may go on from there."""
        return self.can_be_continued or self.stopped_by_budget

    @property
    def best_epoch(self) -> int | None:
        """The 1-based epoch whose weights and logits are kept."""
        return metrics.best_epoch(self.epochs, self.config.best_metric)

    def best(self, metric: str) -> float:
        """Return `metric` at the best epoch; NaN if no epoch ended or the metric is unknown."""
        epoch = self.best_epoch
        return math.nan if epoch is None else self.epochs[epoch - 1].get(metric, math.nan)
