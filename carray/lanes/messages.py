"""Orders to a lane and its answers; imports no torch, so that a Tune trial starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from carray.training.epoch_order import EpochOrder, EpochOutcome

NODE_ID_LABEL = "ray.io/node-id"  # Ray gives it to every node


@dataclass(frozen=True)
class LaneOrder:
    """One command to a lane; `job` names the trial, its folder and its epoch."""

    kind: Literal["epoch", "finish", "forget", "exit"]
    job: EpochOrder | None = None

    @property
    def trial(self) -> str:
        """The trial that the order belongs to; "" for `exit`."""
        return self.job.trial if self.job else ""

    @property
    def ends_trial(self) -> bool:
        """Say whether the lane holds nobody's state once the order is carried out."""
        return self.kind in ("finish", "forget")


@dataclass(frozen=True)
class Answer:
    """What a lane says of an order. `state` is the trial's: running, failed or infeasible.

    Of a trial that runs a `reason` says why the order was left undone: the study is being stopped.
    """

    state: Literal["running", "failed", "infeasible"] = "running"
    reason: str = ""
    outcome: EpochOutcome | None = None
    lane: int = -1
    waited_seconds: float = 0.0
    """How long the lane had nothing to do since its last epoch, what came between left out."""

    @property
    def is_undone(self) -> bool:
        """Say whether the order was left for the next call to carry out."""
        return self.state == "running" and bool(self.reason)
